/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* PPTP's control connection, as nf_conntrack_pptp reads it: once both ends have agreed on a call, its GRE packets are expected either way,
 * and `calls` says which two call ids make one connection. The client is the PNS, the server the PAC.
 * Behind NAT nf_nat_pptp gives the client another call id, the port that the control connection has there. What the server says is read as
 * it comes from the wire, before that is undone: so both are known, and what GRE carries on either side of the translation. */
#ifndef CTWEB_PPTP_H
#define CTWEB_PPTP_H

enum pptp_session { PPTP_NO_SESSION, PPTP_SESSION_ERROR, PPTP_STOPPING, PPTP_REQUESTED, PPTP_CONFIRMED };
enum pptp_call {
	PPTP_NO_CALL, PPTP_OUT_REQUESTED, PPTP_OUT_CONFIRMED, PPTP_IN_REQUESTED, PPTP_IN_REPLIED, PPTP_IN_CONFIRMED, PPTP_CLEARING,
};

enum pptp_message {
	PPTP_START_REQUEST = 1,
	PPTP_START_REPLY,
	PPTP_STOP_REQUEST,
	PPTP_STOP_REPLY,
	PPTP_OUT_REQUEST = 7,
	PPTP_OUT_REPLY,
	PPTP_IN_REQUEST,
	PPTP_IN_REPLY,
	PPTP_IN_CONNECT,
	PPTP_CLEAR_REQUEST,
	PPTP_DISCONNECT,
};
enum { PPTP_CONTROL = 1, PPTP_OK = 1, PPTP_HEADER = 12 };
#define PPTP_COOKIE 0x1a2b3c4d

struct pptp_control {
	__be16 length;
	__be16 type;
	__be32 cookie;
	__be16 message;
	__be16 reserved;
	union {
		struct {		/* call messages */
			__be16 call;	/* the sender's, in IN_CONNECT the receiver's */
			__be16 peer;	/* replies: the receiver's */
			u8 result;
		};
		struct {		/* START_REPLY */
			__be16 version;
			u8 start_result;
		};
		struct {		/* STOP_REPLY */
			u8 stop_result;
			u8 stop_error;
		};
	};
};

/* The shortest that a message may be, behind the header. */
static __always_inline u64 pptp_length(u64 message)
{
	switch (message) {
	case PPTP_START_REQUEST:
	case PPTP_START_REPLY:
		return 144;
	case PPTP_OUT_REQUEST:
		return 156;
	case PPTP_OUT_REPLY:
		return 20;
	case PPTP_IN_REQUEST:
		return 208;
	case PPTP_IN_REPLY:
		return 12;
	case PPTP_IN_CONNECT:
		return 16;
	case PPTP_DISCONNECT:
		return 136;
	}
	return 4;
}

/* One direction of a call, as work->key: its packets know their sender's call id. */
static __always_inline void pptp_direction(struct work *work, __be32 from, __be32 to, u64 sender, u64 receiver)
{
	u64 id = sender;

	__builtin_memset(&work->key, 0, sizeof(work->key));
	work->key.lo_addr[0] = from;
	work->key.hi_addr[0] = to;
	work->key.protocol = PROTOCOL_GRE;
	work->key.family = 4;
	work->key.variant = GRE_CALL;
	work->key.hi_port = receiver;
	calls.update(&work->key, &id);
	work->key.lo_port = sender;
}

/* By the server's packet; `pns_hi`: the client is the tuple's `hi`. `translated`: the client's call id on the server's side of NAT. */
static __always_inline void pptp_agreed(struct per_cpu *cpu, struct work *work, struct watch *watch, u64 pns_hi, u64 translated, u64 now)
{
	struct tuple *tuple = &cpu->packet.tuple;
	__be32 client = pns_hi ? tuple->hi_addr[0] : tuple->lo_addr[0], server = pns_hi ? tuple->lo_addr[0] : tuple->hi_addr[0];
	u64 pns = watch->pns_call, pac = watch->pac_call;

	/* Where packets come in they are as their sender has made them; elsewhere, on their way out, they have been through NAT. */
	pptp_direction(work, work->wire.destination, work->wire.source, translated, pac);
	pptp_direction(work, server, client, pac, pns);
	pptp_direction(work, client, server, pns, pac);
	expect(work, watch, tuple, 0, TYPE_PPTP, now);
	pptp_direction(work, work->wire.source, work->wire.destination, pac, translated);
	expect(work, watch, tuple, 1, TYPE_PPTP, now);
}

/* Is this the client's call id, in what the server says? */
static __always_inline bool pptp_is_clients(const struct work *work, const struct watch *watch, __be16 call)
{
	return call == watch->pns_call || (work->translated && call == work->wire.destination_port);
}

/* A direction of a call that is over: so is the connection that began with it. Both ways of its ends know no sender any more. */
static __always_inline void pptp_forget(struct work *work, struct tuple *there, u64 now)
{
	struct conn *conn;
	u64 expires;

	directed(&work->key, there, ntoh32(there->lo_addr[0]) > ntoh32(there->hi_addr[0]));
	conn = find(&work->key);
	if (conn) {
		/* Expires now, unless a packet of it is just stamping it; then it lives on for its timeout. */
		expires = READ_ONCE(conn->expires);
		if (expires > now && conn->type == TYPE_PPTP)
			__sync_val_compare_and_swap(&conn->expires, expires, now);
	}
	forget_expectation(work, there);
	for (u64 from_hi = 0; from_hi < 2; from_hi++) {
		directed(&work->key, there, from_hi);
		work->key.lo_port = 0;
		calls.delete(&work->key);
	}
	there->protocol = 0;
}

static __always_inline void pptp_from_client(struct watch *watch, const struct pptp_control *control, u64 message)
{
	switch (message) {
	case PPTP_START_REQUEST:
		if (watch->session == PPTP_NO_SESSION)
			watch->session = PPTP_REQUESTED;
		break;
	case PPTP_STOP_REQUEST:
		watch->session = PPTP_STOPPING;
		break;
	case PPTP_OUT_REQUEST:
		if (watch->session != PPTP_CONFIRMED)
			break;
		watch->call = PPTP_OUT_REQUESTED;
		watch->pns_call = control->call;
		break;
	case PPTP_IN_REPLY:
		if ((watch->call != PPTP_IN_REQUESTED && watch->call != PPTP_IN_REPLIED) || watch->pac_call != control->peer)
			break;
		watch->call = control->result == PPTP_OK ? PPTP_IN_REPLIED : PPTP_NO_CALL;
		if (control->result == PPTP_OK)
			watch->pns_call = control->call;
		break;
	case PPTP_CLEAR_REQUEST:
		if (watch->session == PPTP_CONFIRMED)
			watch->call = PPTP_CLEARING;
		break;
	}
}

/* True: both ends have agreed on a call; `call` is the client's id, as the server has it. */
static __always_inline bool pptp_from_server(struct work *work, struct watch *watch, const struct pptp_control *control, u64 message,
					     u64 *call, u64 now)
{
	switch (message) {
	case PPTP_START_REPLY:
		if (watch->session >= PPTP_REQUESTED)
			watch->session = control->start_result == PPTP_OK ? PPTP_CONFIRMED : PPTP_SESSION_ERROR;
		break;
	case PPTP_STOP_REPLY:
		if (watch->session <= PPTP_STOPPING)
			watch->session = control->stop_error == PPTP_OK ? PPTP_NO_SESSION : PPTP_SESSION_ERROR;
		break;
	case PPTP_OUT_REPLY:
		if (watch->session != PPTP_CONFIRMED || !pptp_is_clients(work, watch, control->peer) ||
		    (watch->call != PPTP_OUT_REQUESTED && watch->call != PPTP_OUT_CONFIRMED))
			break;
		watch->call = control->result == PPTP_OK ? PPTP_OUT_CONFIRMED : PPTP_NO_CALL;
		if (control->result != PPTP_OK)
			break;
		watch->pac_call = control->call;
		*call = control->peer;
		return true;
	case PPTP_IN_REQUEST:
		if (watch->session != PPTP_CONFIRMED)
			break;
		watch->call = PPTP_IN_REQUESTED;
		watch->pac_call = control->call;
		break;
	case PPTP_IN_CONNECT:
		if (watch->session != PPTP_CONFIRMED || !pptp_is_clients(work, watch, control->call) ||
		    (watch->call != PPTP_IN_REPLIED && watch->call != PPTP_IN_CONFIRMED))
			break;
		watch->call = PPTP_IN_CONFIRMED;
		*call = control->call;
		return true;
	case PPTP_DISCONNECT:
		watch->call = PPTP_NO_CALL;
		for (u64 slot = 0; slot < 2; slot++) {
			if (watch->expected[slot].protocol == PROTOCOL_GRE)
				pptp_forget(work, &watch->expected[slot], now);
		}
		break;
	}
	return false;
}

static __always_inline void pptp_packet(struct per_cpu *cpu, struct work *work, struct watch *watch, u64 now)
{
	struct pptp_control *control = (void *)work->payload;
	u64 message = ntoh16(control->message), call = 0;

	/* No further than the buffer: the longest message fits. */
	if (work->length < PPTP_HEADER || ntoh16(control->type) != PPTP_CONTROL || control->cookie != hton32(PPTP_COOKIE) ||
	    work->length - PPTP_HEADER < pptp_length(message))
		return;
	if (work->direction == ORIGINAL)
		pptp_from_client(watch, control, message);
	else if (pptp_from_server(work, watch, control, message, &call, now))
		pptp_agreed(cpu, work, watch, !cpu->packet.from_hi, call, now);
}

#endif

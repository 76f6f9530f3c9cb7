/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* PPTP's control connection, as nf_conntrack_pptp reads it: once both ends have agreed on a call, its GRE packets are expected either way,
 * and `calls` says which two call ids make one connection. The client is the PNS, the server the PAC. */
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

/* One direction of a call: expected, and its packets know their sender's call id. */
static __always_inline void pptp_expect(struct per_cpu *cpu, struct work *work, struct watch *watch, u64 from_hi, u64 slot, u64 sender,
					u64 receiver, u64 now)
{
	u64 id = sender;

	directed(&work->key, &cpu->packet.tuple, from_hi);
	work->key.protocol = PROTOCOL_GRE;
	work->key.variant = GRE_CALL;
	work->key.lo_port = 0;
	work->key.hi_port = receiver;
	calls.update(&work->key, &id);
	work->key.lo_port = sender;
	expect(work, watch, &cpu->packet.tuple, slot, TYPE_PPTP, now);
}

/* `pns_hi`: the client is the tuple's `hi`. */
static __always_inline void pptp_agreed(struct per_cpu *cpu, struct work *work, struct watch *watch, u64 pns_hi, u64 now)
{
	u64 pns = watch->pns_call, pac = watch->pac_call;

	pptp_expect(cpu, work, watch, pns_hi, 0, pns, pac, now);
	pptp_expect(cpu, work, watch, !pns_hi, 1, pac, pns, now);
}

/* The call is over: so are its GRE connection and what was expected of it. */
static __always_inline void pptp_over(struct work *work, struct watch *watch, u64 now)
{
	struct tuple *there = &watch->expected[0];
	struct conn *conn;
	u64 expires;

	if (there->protocol != PROTOCOL_GRE)
		return;
	directed(&work->key, there, ntoh32(there->lo_addr[0]) > ntoh32(there->hi_addr[0]));
	conn = connections.lookup(&work->key);
	if (conn) {
		/* Expires now, unless a packet of it is just stamping it; then it lives on for its timeout. */
		expires = READ_ONCE(conn->expires);
		if (expires > now && conn->type == TYPE_PPTP)
			__sync_val_compare_and_swap(&conn->expires, expires, now);
	}
	forget_expectation(work, there);
	forget_expectation(work, &watch->expected[1]);
	work->key = *there;
	work->key.lo_port = 0;
	calls.delete(&work->key);
	work->key = watch->expected[1];
	work->key.lo_port = 0;
	calls.delete(&work->key);
	there->protocol = watch->expected[1].protocol = 0;
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

/* True: both ends have agreed on a call. */
static __always_inline bool pptp_from_server(struct work *work, struct watch *watch, const struct pptp_control *control, u64 message,
					     u64 now)
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
		if (watch->session != PPTP_CONFIRMED || watch->pns_call != control->peer ||
		    (watch->call != PPTP_OUT_REQUESTED && watch->call != PPTP_OUT_CONFIRMED))
			break;
		watch->call = control->result == PPTP_OK ? PPTP_OUT_CONFIRMED : PPTP_NO_CALL;
		if (control->result != PPTP_OK)
			break;
		watch->pac_call = control->call;
		return true;
	case PPTP_IN_REQUEST:
		if (watch->session != PPTP_CONFIRMED)
			break;
		watch->call = PPTP_IN_REQUESTED;
		watch->pac_call = control->call;
		break;
	case PPTP_IN_CONNECT:
		if (watch->session != PPTP_CONFIRMED || watch->pns_call != control->call ||
		    (watch->call != PPTP_IN_REPLIED && watch->call != PPTP_IN_CONFIRMED))
			break;
		watch->call = PPTP_IN_CONFIRMED;
		return true;
	case PPTP_DISCONNECT:
		watch->call = PPTP_NO_CALL;
		pptp_over(work, watch, now);
		break;
	}
	return false;
}

static __always_inline void pptp_packet(struct per_cpu *cpu, struct work *work, struct watch *watch, u64 now)
{
	struct pptp_control *control = (void *)work->payload;
	u64 message = ntoh16(control->message);

	/* No further than the buffer: the longest message fits. */
	if (work->length < PPTP_HEADER || ntoh16(control->type) != PPTP_CONTROL || control->cookie != hton32(PPTP_COOKIE) ||
	    work->length - PPTP_HEADER < pptp_length(message))
		return;
	if (work->direction == ORIGINAL)
		pptp_from_client(watch, control, message);
	else if (pptp_from_server(work, watch, control, message, now))
		pptp_agreed(cpu, work, watch, !cpu->packet.from_hi, now);
}

#endif

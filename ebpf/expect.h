/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Expectations: connections that a control connection has announced (FTP, TFTP, PPTP), as nf_conntrack's helpers make them. One is
 * used up by the connection that it expects, which then is `expected` and of the control connection's connection-type. */
#ifndef CTWEB_EXPECT_H
#define CTWEB_EXPECT_H

enum { EXPECTATIONS = 4096, WATCHED = 4096, PAYLOAD_MAX = 256 };
#define EXPECT_FOR (300 * 1000000000ULL)	/* as all of nf_conntrack's helpers */

struct expectation {
	struct tuple master;	/* the control connection: an expectation does not outlive it */
	u64 master_id;
	u64 expires;
	u32 type;		/* enum conn_type */
	u32 pad;
};
_Static_assert(sizeof(struct expectation) == 64, "struct expectation");

/* From `lo` to `hi`, not normalised; lo_port 0: any. Written by the helper programs, which also take away what is used up. Bounded:
 * when it is full, the one that was not asked for longest gives way. */
BPF_TABLE("lru_hash", struct tuple, struct expectation, expectations, EXPECTATIONS);

/* One element: when the last expectation expires. Written by the helper programs; read when a connection starts, so that none is
 * looked for where there can be none. */
BPF_TABLE("array", u32, u64, expecting, 1);

/* What a helper remembers of a control connection, and the last it expected for it. Two CPUs with packets of one connection may mix
 * their writes: one of the expectations is lost, or one made that the same two ends asked for. */
struct watch {
	u32 line_start[2][2];	/* FTP: sequence numbers right after a newline, of each direction */
	u32 line_starts[2];	/* how many of them are known */
	u32 session;		/* PPTP: enum pptp_session */
	u32 call;		/* PPTP: enum pptp_call */
	__be16 pns_call;	/* PPTP: the client's call id, as the client has it, */
	__be16 pac_call;	/* and the server's */
	u32 pad;
	struct tuple expected[2]; /* protocol 0: none */
};
_Static_assert(sizeof(struct watch) == 120, "struct watch");

/* Id of a control connection -> what its helper remembers. Written and read by the helper programs. Bounded, as above. */
BPF_TABLE("lru_hash", u64, struct watch, watched, WATCHED);

/* A payload while it is read for FTP commands (ftp.h). */
struct ftp_scan {
	u64 step;		/* enum ftp_step */
	u64 next;		/* what follows FTP_SKIP */
	u64 skip;		/* character that ends FTP_SKIP; 0: a digit */
	u64 end;		/* character that ends the numbers; 0: any */
	u64 family;
	u64 delimiter;
	u64 count;		/* numbers, or groups of an IPv6 address, that are complete */
	u64 value;		/* of the one that is being read */
	u64 digits;
	u64 colons;		/* right before this character */
	u64 gap;		/* groups before ::, NO_GAP: there is none */
	u64 port;
	u8 byte[16];		/* numbers or groups; their order is the wire's */
};

/* The ends of the packet itself. */
struct wire {
	__be32 source;		/* IPv4 */
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	u32 pad;
};
_Static_assert(sizeof(struct wire) == 16, "struct wire");

/* Working space of the helper programs, which do not interrupt one another on a CPU. */
struct work {
	u64 id;			/* the control connection's */
	struct tuple key;
	struct expectation expectation;
	struct watch none;	/* all zero */
	struct ftp_scan ftp;
	u64 direction;
	u64 translated;		/* the control connection is: its tuple may not be the packet's own */
	u64 at;			/* where the payload stands in the frame */
	u64 source_at;		/* and the sender's address, in the IP header */
	u64 ports_at;
	struct wire wire;
	u64 length;		/* of the payload as it is on the wire */
	u64 read;		/* what of it stands here */
	u8 payload[PAYLOAD_MAX];
	u8 last;		/* the last byte of all of it */
	u8 pad[7];
};
BPF_TABLE("percpu_array", u32, struct work, work, 1);

/* May there be an expectation? */
static __always_inline bool may_be_expected(u64 now)
{
	u32 zero = 0;
	u64 *until = expecting.lookup(&zero);

	return until && READ_ONCE(*until) > now;
}

static __always_inline void forget_expectation(struct work *work, struct tuple *key)
{
	struct expectation *old = expectations.lookup(key);

	/* Another connection's may have come in its place since: it is lost with it, as when the map is full. */
	if (old && old->master_id == work->id)
		expectations.delete(key);
}

static __always_inline bool is_alive(struct tuple *tuple, u64 id, u64 now)
{
	struct conn *conn = find(tuple);

	return conn && conn->id == id && READ_ONCE(conn->expires) > now;
}

/* Expects work->key for the control connection, which is the packet's. One in each slot: a new one replaces the one before. */
static __always_inline void expect(struct work *work, struct watch *watch, struct tuple *master, u32 slot, u32 type, u64 now)
{
	u32 zero = 0;
	u64 *until = expecting.lookup(&zero);
	struct expectation *old = expectations.lookup(&work->key);

	if (!until)
		return;
	if (old && old->master_id != work->id) {
		work->expectation = *old;
		if (work->expectation.expires > now &&
		    is_alive(&work->expectation.master, work->expectation.master_id, now))
			return;		/* first come, first served */
	}
	if (watch->expected[slot].protocol)
		forget_expectation(work, &watch->expected[slot]);
	watch->expected[slot] = work->key;
	work->expectation.master = *master;
	work->expectation.master_id = work->id;
	work->expectation.expires = now + EXPECT_FOR;
	work->expectation.type = type;
	work->expectation.pad = 0;
	if (expectations.update(&work->key, &work->expectation))
		return;
	/* Another CPU may be writing it too: both are at most a moment from the latest. */
	if (*until < now + EXPECT_FOR)
		*until = now + EXPECT_FOR;
}

/* The packet in the cpu's memory has started a connection, the last one that this CPU made: was it expected? Then it begins with the mark
 * of its control connection, as in nf_conntrack; the rules come after this. */
static __always_inline void meet_expectation(struct per_cpu *cpu, struct work *work, u64 now)
{
	struct tuple *tuple = &cpu->packet.tuple;
	struct expectation *found;
	struct conn *conn, *master;
	struct watch *watch;
	u64 bits;

	directed(&work->key, tuple, cpu->packet.from_hi);
	if (work->key.protocol == PROTOCOL_TCP || work->key.protocol == PROTOCOL_UDP)
		work->key.lo_port = 0;
	found = expectations.lookup(&work->key);
	if (!found)
		return;
	/* Replaced while it is read: then the parts do not fit, and the master is not found. */
	work->expectation = *found;
	if (work->expectation.expires <= now || !is_alive(&work->expectation.master, work->expectation.master_id, now))
		return;
	conn = find(tuple);
	/* Another CPU may have been first with this tuple, and looks for itself. */
	if (!conn || conn->id != (cpu->last_id << CPU_BITS | bpf_get_smp_processor_id()))
		return;
	if (expectations.delete(&work->key))
		return;			/* another connection has just used it up */
	conn->type = work->expectation.type;
	bits = STATUS_EXPECTED;
	master = find(&work->expectation.master);
	/* Should it be restarted meanwhile: its mark is that of the same two ends. */
	if (master && master->mark) {
		conn->mark = master->mark;
		bits |= master->status & STATUS_MARK_TOLD;
	}
	__sync_fetch_and_or(conn_word(conn), STATUS_BIT(bits));
	if (work->key.variant != GRE_CALL)
		return;
	/* Whichever direction of a call comes first: the other one is the same connection. */
	work->id = work->expectation.master_id;
	watch = watched.lookup(&work->id);
	if (watch) {
		forget_expectation(work, &watch->expected[0]);
		forget_expectation(work, &watch->expected[1]);
	}
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* FastTrack: which connections are forwarded by the XDP program itself (forward.h). User space decides, once for each established
 * connection and each change of the rules (ctweb/datapath/fasttrack.py), and a packet only compares: the upper half of conn.status
 * says by which rules STATUS_FASTTRACK was decided, so that other rules undo all earlier decisions at once. */
#ifndef CTWEB_FASTTRACK_H
#define CTWEB_FASTTRACK_H

/* What a connection's status must be for its packets to go fast, but for the stamp. */
#define STATUS_PASSES (STATUS_SEEN_REPLY | STATUS_ASSURED | STATUS_CONFIRMED | STATUS_FASTTRACK)
#define STATUS_STAMPS 0xffff0000U

/* The rules in force. A packet may meet one field as it is and the other as it was: no connection is fasttracked by stamp 0, which
 * stands between any two others, so nothing goes fast by a decision that was not in force a moment ago. */
struct fasttrack {
	u64 stamp;		/* in the place that it has in conn.status; 0: of no rules */
	u64 until;		/* datapath time: should user space fall silent, packets take the normal way from then on */
};

/* One element. Written by user space, read by xdp_fasttrack. */
BPF_TABLE("array", u32, struct fasttrack, fasttrack, 1);

/* Where the packets of a translated connection's original direction are to go to, which `translations` cannot tell. */
struct rewrite {
	struct tuple tuple;	/* as the connection is behind the translation */
	u64 id;			/* the connection's */
	u64 flip;		/* 1: what goes from the connection's `hi` goes from this tuple's `lo` */
	u64 pad;
};
_Static_assert(sizeof(struct rewrite) == 64, "struct rewrite: one cache line");

/* By conn.fresh: a connection that is assured never gives way, and its place in the ring means nothing any more. User space gives the
 * places out, and again once the connection is gone. Written by its runs of fasttrack_decide(), read by xdp_fasttrack. */
BPF_TABLE("array", u32, struct rewrite, rewrites, SIZED_AT_START);

/* Takes a decision back: the bit, and the stamp. */
static __always_inline void undecide_fasttrack(struct conn *conn)
{
	__sync_fetch_and_and(conn_word(conn), ~STATUS_BIT(STATUS_FASTTRACK | STATUS_STAMPS));
}

/* Puts another decision in the place of the one before. Packets change the rest of the word meanwhile; one that comes in between finds
 * nothing decided, and takes the normal way. */
static __always_inline void decide_fasttrack(struct conn *conn, u64 decision)
{
	undecide_fasttrack(conn);
	__sync_fetch_and_or(conn_word(conn), decision);
}

enum { FAST_ITEMS = 16 };	/* the verifier walks the loop turn by turn */
#define NO_REWRITE 0xffffffffU

struct fast_item {
	struct tuple tuple;	/* of the connection */
	struct rewrite rewrite;	/* its id is that of the connection */
	u32 decision;		/* status bits: STATUS_FASTTRACK or not, and the stamp */
	u32 place;		/* of its rewrite; NO_REWRITE: it is not translated */
};
_Static_assert(sizeof(struct fast_item) == 112, "struct fast_item");

struct fast_request {
	u64 now;		/* datapath time */
	u64 items;
	struct fast_item item[FAST_ITEMS];
};

#endif

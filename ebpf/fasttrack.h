/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* FastTrack: which connections are forwarded by the XDP program itself (forward.h). User space decides, once for each established
 * connection and each change of the rules (ctweb/datapath/fasttrack.py), and a packet only compares: the upper half of conn.status
 * says by which rules STATUS_FASTTRACK was decided, so that other rules undo all earlier decisions at once. */
#ifndef CTWEB_FASTTRACK_H
#define CTWEB_FASTTRACK_H

/* What a connection's status must be for its packets to go fast. */
struct fasttrack {
	u32 mask;
	u32 wanted;
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

enum { WORD_TRIES = 8 };

/* Puts another decision in the place of the one before: the bit, and the stamp. */
static __always_inline void decide_fasttrack(struct conn *conn, u64 decision)
{
	u64 mask = STATUS_BIT(STATUS_FASTTRACK | 0xffff0000U), word = READ_ONCE(*conn_word(conn));

	/* Packets change the rest of the word meanwhile. Who loses each time is decided at the next sweep. */
	for (int i = 0; i < WORD_TRIES; i++) {
		u64 seen = __sync_val_compare_and_swap(conn_word(conn), word, (word & ~mask) | decision);

		if (seen == word)
			break;
		word = seen;
	}
}

enum { FAST_ITEMS = 32 };
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

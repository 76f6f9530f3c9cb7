/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What a protocol says of a packet, and the word of an entry that holds status and TCP state together. */
#ifndef CTWEB_STATE_H
#define CTWEB_STATE_H

/* status and the four bytes after it are one 64-bit word, so that both change by one atomic operation. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
enum { STATUS_SHIFT = 0, STATE_SHIFT = 32, LAST_SHIFT = 40, RETRANS_SHIFT = 48, SCALES_SHIFT = 56 };
#else
enum { STATUS_SHIFT = 32, STATE_SHIFT = 24, LAST_SHIFT = 16, RETRANS_SHIFT = 8, SCALES_SHIFT = 0 };
#endif
_Static_assert(__builtin_offsetof(struct conn, status) == 8 && __builtin_offsetof(struct conn, tcp_state) == 12, "the word");

#define STATUS_BIT(bit) ((u64)(bit) << STATUS_SHIFT)

static __always_inline u64 *conn_word(struct conn *conn)
{
	return (u64 *)&conn->status;
}

/* What a TCP packet says, by the flag that counts most: RST, SYN, FIN, ACK. */
enum tcp_class { CLASS_SYN, CLASS_SYNACK, CLASS_FIN, CLASS_ACK, CLASS_RST, CLASS_NONE };

/* How a connection's first packet sets it up. */
struct start {
	u64 timeout;
	/* TCP */
	u64 state;
	u64 last;		/* tcp_last */
	u64 scale;
	u64 flags;		/* enum tcp_side, of the original direction */
	u64 other_flags;
	struct tcp_window window;
	u32 other_max_end;
	u64 in_window;		/* keep its numbers as the last packet's */
};

/* What a later packet does. */
enum verdict {
	VERDICT_COUNT,		/* belongs to the connection */
	VERDICT_INVALID,	/* does not belong to it */
	VERDICT_IGNORED,	/* let through without effect */
	VERDICT_REOPEN,		/* ends it and starts a new one */
	VERDICT_RESET,		/* belongs to it and ends it */
};

/* What an accepted packet changes, beyond the counters. */
struct change {
	u64 timeout;		/* from now; 0: leave it */
	u64 bits;		/* status bits to set */
};

#endif

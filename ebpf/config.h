/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Settings as the kernel sees them, and what is fixed when the program is compiled. */
#ifndef CTWEB_CONFIG_H
#define CTWEB_CONFIG_H

/* Given by ctweb/datapath/build.py:
 *   NEAR_BUCKETS  of the index (index.h), a power of two
 *   TICK_NSEC     length of a jiffy
 *   CPU_BITS      bits that a CPU number needs, for connection ids
 *   TABLE_GROWS   defined: the table's memory comes in chunks (places.h), of
 *   CHUNK_SHIFT   so many bits of a place's number
 *   REPLAY        defined: the clock is the skb's time stamp, its mark (if not 0) the frame's length on the wire
 *   ENDED_PAGES   memory for connections that end in a replay, until user space takes them, in pages */

/* Index of a timeout: a TCP state, or one of these. */
enum timeout {
	TIMEOUT_TCP_RETRANS = 10,
	TIMEOUT_TCP_UNACKED,
	TIMEOUT_UDP,
	TIMEOUT_UDP_STREAM,
	TIMEOUT_ICMP,
	TIMEOUT_GENERIC,
	TIMEOUTS,
};

/* Written by user space at any time, field by field; a packet sees each field old or new. */
struct settings {
	u64 timeout[TIMEOUTS];	/* ns */
	u32 tcp_loose;		/* pick up connections whose SYN was not seen */
	u32 tcp_liberal;	/* accept packets outside the TCP window */
	u32 nat;		/* nf_conntrack is there, and may translate */
	u32 pad;
};
_Static_assert(TIMEOUTS == 16, "a timeout index is four bits");

/* A map whose size is given when it is made, at each start: so a table of another size needs no other program, but for CHUNK_SHIFT. */
enum { SIZED_AT_START = 1 };

/* Written by user space before the first packet. */
struct size {
	u64 settled_note;	/* see hooks.h; 16 bits, not 0. Each packet reads these six: together, at the beginning, they are a cache line */
	u64 bucket_mask;	/* index.h: far buckets, a power of two, less one */
	u64 tag_mask;		/* the bits of a cell, of its 32, that are not the number of a place */
	u64 seed[2];		/* of its hash */
	u64 mostly_far;		/* 1: look for an entry there first. Written by the packet programs */
	u64 places;		/* entries there is room for */
	u64 max_entries;	/* connections the table holds */
	u64 fresh_cells;	/* of the ring of new connections (fresh.h) */
};

#endif

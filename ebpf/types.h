/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Structs shared with user space. Python reads their layout from BCC and does not repeat it; what it does need by
 * value (STATUS_*, enum tcp_state, enum counter) it reads from this file's enums at build time.
 * Padding is explicit. Byte order is in the type: __be16 and __be32 are as on the wire, everything else is the host's. */
#ifndef CTWEB_TYPES_H
#define CTWEB_TYPES_H

/* The normalised tuple: one entry for both directions. lo is the smaller end (address, then port, as on the wire);
 * ICMP: lo is the end that asks, lo_port the id, hi_port type << 8 | code of the asking packet. */
struct tuple {
	__be32 lo_addr[4];	/* IPv4 in the first word, the rest zero */
	__be32 hi_addr[4];
	__be16 lo_port;
	__be16 hi_port;
	u8 protocol;
	u8 family;		/* 4 or 6 */
	u8 variant;		/* GRE: enum gre_variant; otherwise 0 */
	u8 pad;			/* zero: part of the hash */
} __attribute__((aligned(8)));	/* it is read in words */
_Static_assert(sizeof(struct tuple) == 40, "struct tuple");

/* What stands in the tuple of a GRE connection where others have ports. */
enum gre_variant {
	GRE_PLAIN = 0,		/* nothing: addresses alone */
	GRE_KEYED = 1,		/* version 0, key: its upper half is lo_port, its lower one hi_port, in both directions */
	GRE_CALL = 2,		/* version 1 (PPTP): each end's call id, 0 if the control connection was not seen */
};

enum direction { ORIGINAL = 0, REPLY = 1 };

enum status {
	STATUS_SWAPPED = 1 << 0,	/* the original direction goes hi -> lo */
	STATUS_SEEN_REPLY = 1 << 1,
	STATUS_ASSURED = 1 << 2,
	STATUS_CONFIRMED = 1 << 3,	/* a packet of it left the machine */
	STATUS_EXPECTED = 1 << 4,
	STATUS_FASTTRACK = 1 << 5,
	STATUS_SRCNAT = 1 << 6,
	STATUS_DSTNAT = 1 << 7,
	STATUS_HELPER = 1 << 8,		/* watched by a helper: one of ours (helpers.h), or nf_conntrack's */
	STATUS_MARK_TOLD = 1 << 9,	/* nf_conntrack has marked it: there the mark may also be taken away again */
	STATUS_STAMP = 1 << 16,		/* from here up: the rules that STATUS_FASTTRACK was decided by (fasttrack.h); 0: not decided */
};

/* In the order of nf_conntrack's enum tcp_conntrack, so that the transition table reads the same. */
enum tcp_state {
	TCP_NONE, TCP_SYN_SENT, TCP_SYN_RECEIVED, TCP_ESTABLISHED, TCP_FIN_WAIT, TCP_CLOSE_WAIT,
	TCP_LAST_ACK, TCP_TIME_WAIT, TCP_CLOSE, TCP_LISTEN,
};

/* connection-type: the service, by the port that the connection was made to, or by what expected it. */
enum conn_type {
	TYPE_NONE, TYPE_PPTP, TYPE_FTP, TYPE_H323, TYPE_SIP, TYPE_IRC, TYPE_TFTP, TYPE_QUAKE3,
};

/* What one direction has sent, for window tracking (nf_conntrack's ip_ct_tcp_state). */
struct tcp_window {
	u32 end;	/* highest seq + len sent */
	u32 max_end;	/* highest seq the receiver allows */
	u32 max_win;	/* largest window sent, scaled; 0: nothing sent yet */
	u32 max_ack;	/* highest acknowledgement sent */
};

/* conn.expires has a value that is no time (docs/architecture.md, "Life of an entry"). */
enum expires {
	EXPIRES_CLAIMED = 0,	/* somebody is making, ending or restarting it right now, or there is none */
};

/* What the kernel counts, per CPU. Always: OFFERED = live connections + ENDED + UNTRACKED, in packets and in bytes.
 * From COUNT_UNTRACKED on, packets that belong to no connection, by reason; their bytes are UNTRACKED_BYTES. */
enum counter {
	COUNT_OFFERED_PACKETS,		/* IP packets met at the first tracked hook */
	COUNT_OFFERED_BYTES,		/* layer-3 bytes, as far as the header could be read */
	COUNT_ENDED_PACKETS,		/* of connections that are over */
	COUNT_ENDED_BYTES,
	COUNT_ENDED_REPLY_BYTES,	/* of these, what came back */
	COUNT_UNTRACKED_BYTES,
	COUNT_CREATED,			/* connections */
	COUNT_EXPIRED,			/* connections over, by cause */
	COUNT_EARLY_DROP,
	COUNT_RESET,			/* RST before any reply */
	COUNT_REOPENED,			/* SYN to a closed one */
	COUNT_REMOVED,			/* by the user */
	COUNT_MERGED,			/* turned out to be another one's other direction (NAT), which has its counters now */
	COUNT_NAT_LEARNED,		/* translations */
	COUNT_NAT_REFUSED,		/* translations that there was no room for */
	COUNT_FASTTRACK_PACKETS,	/* forwarded by XDP, each also offered and counted on its connection */
	COUNT_FASTTRACK_BYTES,
	COUNT_UNTRACKED,
	COUNT_CUT_LINK = COUNT_UNTRACKED, /* VLAN or PPPoE header cut short or malformed */
	COUNT_CUT_IP,			/* IP header or what it announces is longer than the frame */
	COUNT_MALFORMED_IP,		/* version, header length or total length impossible */
	COUNT_MALFORMED_EXTENSION,	/* IPv6 extension headers too many, too long or cut */
	COUNT_CUT_TRANSPORT,		/* TCP, UDP, ... header longer than the packet */
	COUNT_MALFORMED_TRANSPORT,	/* lengths or TCP flags impossible */
	COUNT_FRAGMENT,			/* not the first of its packet, and its first has not come; taken back when it does */
	COUNT_INVALID_TCP,		/* no connection starts or goes on with it */
	COUNT_IGNORED_TCP,		/* let through, but changes and counts nothing: retransmitted SYN, and the like */
	COUNT_INVALID_ICMP,		/* reply without request, unknown type, error about no connection in the table */
	COUNT_ICMP_ERROR,		/* about a connection in the table, on which it is not counted */
	COUNT_NEIGHBOUR,		/* neighbour discovery and multicast listener reports */
	COUNT_REFUSED,			/* table full and nothing could give way, or no memory */
	COUNT_BUSY,			/* entry was being claimed by somebody else, several times over */
	COUNTERS,
};

_Static_assert(COUNTERS <= 64, "struct per_cpu (maps.h)");

/* In its place (places.h), behind a key of 16 bytes. */
struct conn {
	u64 expires;		/* datapath time, or enum expires */
	u32 status;		/* with the four bytes after it one 64-bit word for atomic operations: bits set by or */
	u8 tcp_state;
	u8 tcp_last;		/* last packet: direction << 7 | window scale of an ignored SYN << 3 | flag class */
	u8 tcp_retrans;		/* times that it came again */
	u8 tcp_scales;		/* window scale: original in the low nibble, reply in the high one */
	u64 packets[2];		/* by enum direction; atomic adds */
	u64 bytes[2];		/* layer-3 bytes; atomic adds */
	/* -- cache line */
	struct tcp_window window[2];
	u32 tcp_last_seq;	/* of the last packet */
	u32 tcp_last_ack;
	u32 tcp_last_end;
	u16 tcp_last_win;
	u8 tcp_flags[2];	/* per direction: enum tcp_side (tcp_window.h) */
	u64 id;			/* never 0, never again the same while the maps live */
	u64 created;
	/* -- cache line */
	u64 fasttrack_packets[2];	/* forwarded by XDP, and not in `packets`: user space adds them up. Atomic adds */
	u64 fasttrack_bytes[2];
	u32 mark;		/* connection mark; 0: none */
	u16 type;		/* connection-type, enum conn_type; 0: none */
	u16 gre_protocol;	/* GRE: ethertype of what its first packet carried; TCP and UDP: see by_stack() (forward.h) */
	u32 ifindex;		/* interface of the first packet */
	u32 fresh;		/* place in the ring of new connections (room.h); of one fasttracked behind NAT the place of its rewrite */
};
_Static_assert(sizeof(struct conn) == 160, "struct conn");

/* Where a tuple behind NAT leads to. */
struct translation {
	struct tuple tuple;	/* of the connection */
	u64 id;			/* the connection's; one with another id is a later one */
	u32 standing;		/* nf_conntrack has it, as of this dump: good for whatever connection stands under the tuple; 0: for `id` alone */
	u32 flip;		/* 1: what goes from this tuple's `hi` goes from the connection's `lo` */
};
_Static_assert(sizeof(struct translation) == 56, "struct translation");

/* A packet that comes in fragments (fragments.h). */
struct datagram {
	struct tuple tuple;	/* of the connection */
	u64 id;			/* the connection's; 0: the first fragment has not come */
	u64 since;		/* datapath time of the fragment that came first */
	u64 from_hi;		/* of the tuple */
	u64 packets;		/* fragments that came before the first one, counted as COUNT_FRAGMENT so far; atomic */
	u64 bytes;
};
_Static_assert(sizeof(struct datagram) == 80, "struct datagram");

/* A connection that is over, as it stood in its last moment. */
struct ended {
	struct tuple tuple;
	struct conn conn;
};
_Static_assert(sizeof(struct ended) == 200, "struct ended: records in a ring buffer are aligned to 8");

#endif

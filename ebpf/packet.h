/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* A frame, the cursor that walks its headers, and what tracking needs to know of one packet. take() is the only bound check.
 * struct packet holds no pointer into the frame and lies in per-CPU memory, which the verifier does not follow: after parsing it
 * sees one state, whatever the headers were. On the stack, it would walk the rest of the program once for each kind of header.
 * Byte order: tuples keep the wire's, lengths are in the host's. */
#ifndef CTWEB_PACKET_H
#define CTWEB_PACKET_H

enum { NOT_IP = -1 };

enum { IP_LENGTH_MAX = 65535 };	/* a larger GSO packet has 0 in its header */
enum { HEADERS_MAX = 1024 };	/* bytes of a frame up to the transport header */

struct cursor {
	void *pos;
	void *end;
};

struct tcp_options;

/* The frame as a hook was given it. */
struct frame {
	void *data;
	void *end;		/* of the linear part */
	u64 length;		/* of the whole frame, on the wire in a replay */
	u64 gso_size;		/* payload of each packet that it becomes on the wire; 0: it is one */
	u64 gso_segs;
	u32 ifindex;
	u64 *scratch;		/* see forget(); per-CPU memory */
	struct tcp_options *options;
};

/* What tracking needs to know of one packet. */
struct packet {
	struct tuple tuple;
	u64 bytes;		/* layer 3, of all `packets` */
	u64 packets;		/* more than one: GSO */
	u64 from_hi;		/* 1: the sender is the tuple's `hi` */
	u64 start;		/* ICMP: may start a connection */
	u64 l4_length;		/* transport header and payload, by the IP length */
	u64 headers;		/* IP header with all that stands before the transport header */
	u64 l4_header;		/* transport header's length; 0: not known */
	u64 fragment;		/* 1: first fragment of a larger packet */
	/* TCP, in the host's order */
	u32 seq;
	u32 ack;
	u64 window;		/* not scaled */
	u64 tcp_flags;
	u32 end;		/* sequence number after it, SYN and FIN counted */
	u32 sack;		/* highest end of a SACK block, or ack */
	u64 scale;		/* window scale option, at most 14 */
	u64 options;		/* SIDE_SCALE, SIDE_SACK (tcp_window.h): what its options offer */
};

/* The options of a TCP header, while they are read. In per-CPU memory too. */
struct tcp_options {
	u32 words[16];		/* the options; no further than OPTIONS_MAX bytes */
	u64 length;
	u64 offset;
	u64 found;		/* SIDE_SCALE, SIDE_SACK */
	u64 scale;
	u32 sack;
	u32 pad;
};

/* The same value, by way of memory that the verifier does not follow: it forgets what the value may be, and so walks what follows
 * once and not once for each way that led here. */
static __always_inline u64 forget(u64 *scratch, u64 value)
{
	*(volatile u64 *)scratch = value;
	return *(volatile u64 *)scratch;
}

/* Lets the verifier forget by which headers the cursor got where it stands. False if that is further than headers go. */
static __always_inline bool forget_way(struct cursor *cursor, const struct frame *frame)
{
	u64 offset = forget(frame->scratch, cursor->pos - frame->data);

	if (offset > HEADERS_MAX)
		return false;
	cursor->pos = frame->data + offset;
	return true;
}

static __always_inline void *take(struct cursor *cursor, u64 size)
{
	void *header = cursor->pos;

	if (header + size > cursor->end)
		return 0;
	cursor->pos = header + size;
	return header;
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* A frame, the cursor that walks its headers, and what tracking needs to know of one packet. take() is the only bound check.
 * struct packet holds no pointer into the frame: so the verifier sees one state after parsing, whatever the headers were.
 * Byte order: tuples keep the wire's, lengths are in the host's. */
#ifndef CTWEB_PACKET_H
#define CTWEB_PACKET_H

enum { NOT_IP = -1 };

enum { HEADERS_MAX = 1024 };	/* bytes of a frame up to the transport header */

struct cursor {
	void *pos;
	void *end;
};

/* The frame as a hook was given it. */
struct frame {
	void *data;
	void *end;		/* of the linear part */
	u64 length;		/* of the whole frame, on the wire in a replay */
	u64 gso_size;		/* payload of each packet that it becomes on the wire; 0: it is one */
	u64 gso_segs;
	u32 ifindex;
	u64 *scratch;		/* see forget_way() */
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
	u64 fragment;		/* 1: first fragment of a larger packet */
	/* TCP, in the host's order */
	u32 seq;
	u32 ack;
	u64 window;		/* not scaled */
	u64 tcp_flags;
	u64 tcp_header;		/* length, options included */
};

/* Where the cursor stands, by way of memory: so the verifier forgets by which headers it got there, and walks what follows once
 * and not once for each way. False if that is further than headers go. */
static __always_inline bool forget_way(struct cursor *cursor, const struct frame *frame)
{
	*(volatile u64 *)frame->scratch = cursor->pos - frame->data;
	u64 offset = *(volatile u64 *)frame->scratch;

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

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

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define TUPLE_IPV4(address) (address)
#define TUPLE_REST(lo_port, hi_port, protocol, family) ((lo_port) | (hi_port) << 16 | (protocol) << 32 | (family) << 40)
#else
#define TUPLE_IPV4(address) ((address) << 32)
#define TUPLE_REST(lo_port, hi_port, protocol, family) ((lo_port) << 48 | (hi_port) << 32 | (protocol) << 24 | (family) << 16)
#endif

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

/* What the headers say, while they are parsed. Addresses and ports as on the wire. */
struct layers {
	u64 family;
	u64 protocol;
	u64 headers;		/* length of the IP header and all that stands before the transport header */
	u64 transport;		/* length of the transport header; 0: not known */
	u64 payload;		/* what follows the IP headers, by the IP length: transport header and its payload */
	u64 source;		/* IPv4; IPv6 addresses are in the packet's tuple already, the source as `lo` */
	u64 destination;
	u64 source_port;
	u64 destination_port;
};

/* What tracking needs to know of one packet. */
struct packet {
	struct tuple tuple;
	u64 bytes;		/* layer 3, of all `packets` */
	u64 packets;		/* more than one: GSO */
	u64 from_hi;		/* 1: the sender is the tuple's `hi` */
	u64 start;		/* ICMP: may start a connection */
	u64 fragment;		/* 1: part of a larger packet */
	u32 fragment_id;	/* as on the wire; IPv4: the first two bytes */
	u32 quoted;		/* ICMP error: where in the frame the packet stands that it is about, */
	u64 quoted_length;	/* and how much of it */
	struct tuple datagram;	/* fragment: see name_datagram() (parse.h) */
	/* GRE, in the host's order */
	u64 gre_protocol;
	u64 gre_variant;
	/* For helpers (helpers.h): where the transport header stands in the frame; lengths as in struct layers */
	u64 transport_at;
	u64 headers;
	u64 transport;
	u64 payload;
	/* TCP, in the host's order */
	u32 seq;
	u32 ack;
	u32 end;		/* sequence number after it, SYN and FIN counted */
	u32 sack;		/* highest end of a SACK block, or ack */
	u64 window;		/* not scaled */
	u64 tcp_flags;
	u64 scale;		/* window scale option, at most 14 */
	u64 options;		/* SIDE_SCALE, SIDE_SACK (tcp_options.h): what its options offer */
	u64 has_options;
};

/* A plain packet's numbers, in the host's order, and its tuple (quick.h). */
struct quick {
	struct tuple tuple;
	u64 bytes;
	u64 headers;		/* IP and transport header */
	u64 from_hi;
	u64 protocol;
	u64 seq;
	u64 ack;
	u64 end;
	u64 window;
};

/* The options of a TCP header, while they are read. In per-CPU memory too. */
struct tcp_options {
	u32 words[16];		/* the options; no further than OPTIONS_MAX bytes */
	u64 length;
	u64 offset;
	u64 found;		/* SIDE_SCALE, SIDE_SACK */
	u64 scale;
	u64 sack_at;		/* the first SACK option */
	u64 sack_size;		/* 0: there is none */
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

/* Some tens of nanoseconds between two looks at what another CPU is about to write: a cache line takes a while to come over. */
static __always_inline void pause(void)
{
	bpf_ktime_get_ns();
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

static __always_inline u64 two_words(const __be32 *words)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return words[0] | (u64)words[1] << 32;
#else
	return (u64)words[0] << 32 | words[1];
#endif
}

/* The tuple is written in whole words: the hash reads it right after, and words that are put together from smaller writes would
 * have to wait for the cache. */
static __always_inline void write_tuple(struct packet *packet, const struct layers *layers, u64 from_hi, u64 lo_port, u64 hi_port)
{
	u64 *word = (u64 *)&packet->tuple;

	if (likely(layers->family == 4)) {
		word[0] = TUPLE_IPV4(from_hi ? layers->destination : layers->source);
		word[1] = 0;
		word[2] = TUPLE_IPV4(from_hi ? layers->source : layers->destination);
		word[3] = 0;
	} else if (from_hi) {
		u64 first = word[0], second = word[1];

		word[0] = word[2];
		word[1] = word[3];
		word[2] = first;
		word[3] = second;
	}
	word[4] = TUPLE_REST(lo_port, hi_port, layers->protocol, layers->family);
	packet->from_hi = from_hi;
}

/* Is the sender the larger end? Address first, then port. */
static __always_inline u64 sent_by_hi(const struct packet *packet, const struct layers *layers)
{
	const u64 *word = (const u64 *)&packet->tuple;

	if (likely(layers->family == 4)) {
		if (layers->source != layers->destination)
			return ntoh32((u32)layers->source) > ntoh32((u32)layers->destination);
	} else {
		if (word[0] != word[2])
			return ntoh64(word[0]) > ntoh64(word[2]);
		if (word[1] != word[3])
			return ntoh64(word[1]) > ntoh64(word[3]);
	}
	return ntoh16((u16)layers->source_port) > ntoh16((u16)layers->destination_port);
}

/* A tuple's ends in the order of one direction, not normalised. */
static __always_inline void directed(struct tuple *key, const struct tuple *tuple, u64 from_hi)
{
	*key = *tuple;
	if (!from_hi)
		return;
	for (int i = 0; i < 4; i++) {
		key->lo_addr[i] = tuple->hi_addr[i];
		key->hi_addr[i] = tuple->lo_addr[i];
	}
	key->lo_port = tuple->hi_port;
	key->hi_port = tuple->lo_port;
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What a packet of the fast path (forward.h) leaves as: its new ends, link header, TTL and checksums. */
#ifndef CTWEB_OUTGOING_H
#define CTWEB_OUTGOING_H

/* What a packet becomes. In the cpu's memory lie its new ends (quick.tuple, quick.from_hi). */
struct outgoing {
	u32 ifindex;
	u8 macs[12];		/* destination, source */
};

/* What is taken off a sum and what is added to it, in ones' complement. */
static __always_inline u64 exchanged(u32 old, u32 new)
{
	return (u64)(u32)~old + new;
}

static __always_inline u16 folded(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* A checksum that covers what was exchanged; never 0xffff, as in the kernel's own. */
static __always_inline u16 corrected(u16 checksum, u64 exchange)
{
	return ~folded((u16)~checksum + exchange);
}

/* Corrects the transport checksum. False if it lies beyond the frame. */
static __always_inline bool correct_transport(void *transport, void *frame_end, u64 protocol, u64 exchange)
{
	if (protocol == PROTOCOL_TCP) {
		struct tcp_header *tcp = transport;

		if ((void *)(tcp + 1) > frame_end)
			return false;
		tcp->checksum = corrected(tcp->checksum, exchange);
	} else {
		struct udp_header *udp = transport;
		u16 checksum;

		if ((void *)(udp + 1) > frame_end)
			return false;
		if (!udp->checksum)
			return true;	/* there is none */
		checksum = corrected(udp->checksum, exchange);
		udp->checksum = checksum ? checksum : 0xffff;
	}
	return true;
}

/* The new ends' addresses. */
static __always_inline const __be32 *new_source(const struct quick *quick)
{
	return (const __be32 *)((const void *)&quick->tuple + (quick->from_hi & 1) * 16);
}

static __always_inline const __be32 *new_destination(const struct quick *quick)
{
	return (const __be32 *)((const void *)&quick->tuple + (~quick->from_hi & 1) * 16);
}

static __always_inline u32 new_ports(const struct quick *quick)
{
	u32 lo = quick->tuple.lo_port, hi = quick->tuple.hi_port;

	/* As the two stand in a header. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return quick->from_hi & 1 ? hi | lo << 16 : lo | hi << 16;
#else
	return quick->from_hi & 1 ? hi << 16 | lo : lo << 16 | hi;
#endif
}

/* Writes the packet as it leaves. False, with nothing changed, if its headers are not where they were. */
static __always_inline bool rewrite_frame(struct xdp_md *xdp, const struct quick *quick, bool translated, const struct outgoing *outgoing)
{
	void *data = (void *)(long)xdp->data, *data_end = (void *)(long)xdp->data_end;
	struct ethernet_header *ethernet = data;
	const __be32 *source = new_source(quick), *destination = new_destination(quick);
	u32 new = new_ports(quick);
	u64 exchange = 0;
	u32 *ports;

	if (quick->tuple.family == 4) {
		struct ipv4_header *ip = data + sizeof(*ethernet);
		u16 *ttl = (u16 *)&ip->ttl;
		u16 before;

		ports = (u32 *)(ip + 1);
		if ((void *)(ports + 1) > data_end)
			return false;
		if (translated) {
			exchange = exchanged(ip->source, source[0]) + exchanged(ip->destination, destination[0]);
			if (!correct_transport(ports, data_end, quick->protocol, exchange + exchanged(*ports, new)))
				return false;
			ip->source = source[0];
			ip->destination = destination[0];
			*ports = new;
		}
		before = *ttl;
		ip->ttl--;
		ip->checksum = corrected(ip->checksum, exchange + exchanged(before, *ttl));
	} else {
		struct ipv6_header *ip = data + sizeof(*ethernet);

		ports = (u32 *)(ip + 1);
		if ((void *)(ports + 1) > data_end)
			return false;
		if (translated) {
#pragma unroll
			for (int i = 0; i < 4; i++)
				exchange += exchanged(ip->source[i], source[i]) + exchanged(ip->destination[i], destination[i]);
			if (!correct_transport(ports, data_end, quick->protocol, exchange + exchanged(*ports, new)))
				return false;
#pragma unroll
			for (int i = 0; i < 4; i++) {
				ip->source[i] = source[i];
				ip->destination[i] = destination[i];
			}
			*ports = new;
		}
		ip->hops--;
	}
	__builtin_memcpy(ethernet->destination, outgoing->macs, 12);
	return true;
}

/* Has the sender left the checksum to its hardware? A virtual one has none, and hands the packet on with the sum of the pseudo-header in
 * its place; the stack knows, but past the stack nobody completes it. One good checksum in 65,535 looks the same: the stack
 * forwards that packet as well. */
static __always_inline bool checksum_missing(struct xdp_md *xdp, const struct quick *quick)
{
	void *data = (void *)(long)xdp->data + sizeof(struct ethernet_header), *data_end = (void *)(long)xdp->data_end;
	struct ipv4_header *ip4 = data;
	struct ipv6_header *ip6 = data;
	u64 sum = 0, length;
	void *transport;
	u16 checksum;

	if (quick->tuple.family == 4) {
		transport = ip4 + 1;
		if (transport + sizeof(struct udp_header) > data_end)
			return true;
		sum = (u64)ip4->source + ip4->destination;
		length = quick->bytes - sizeof(*ip4);
	} else {
		transport = ip6 + 1;
		if (transport + sizeof(struct udp_header) > data_end)
			return true;
#pragma unroll
		for (int i = 0; i < 4; i++)
			sum += (u64)ip6->source[i] + ip6->destination[i];
		length = quick->bytes - sizeof(*ip6);
	}
	sum += hton32((u32)length) + (u64)hton32((u32)quick->protocol);
	if (quick->protocol == PROTOCOL_TCP) {
		if (transport + sizeof(struct tcp_header) > data_end)
			return true;
		checksum = ((struct tcp_header *)transport)->checksum;
	} else {
		if (transport + sizeof(struct udp_header) > data_end)
			return true;
		checksum = ((struct udp_header *)transport)->checksum;
	}
	return checksum == folded(sum);
}

#endif

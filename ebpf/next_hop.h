/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Where a packet of the fast path (forward.h) goes: the kernel is asked, and what it says is kept as long as it holds. */
#ifndef CTWEB_NEXT_HOP_H
#define CTWEB_NEXT_HOP_H

enum { TICK_SHIFT = 30 };	/* of a tick, about a second */
enum { FAMILY_INET = 2, FAMILY_INET6 = 10 };	/* as bpf_fib_lookup() calls them */

/* Where packets go, as bpf_fib_lookup() has said: in a cpu's memory, for it alone. A cache line. */
struct next_hop {
	u64 source[2], destination[2];	/* as two_words() */
	u64 from;		/* the interface it came in through << 32 | version and type of service; IPv6: with flow label */
	u64 valid;		/* see validity() */
	u16 mtu;
	u16 ifindex;
	u8 macs[12];		/* destination, source */
};
_Static_assert(sizeof(struct next_hop) == 64 && FAST_PORTS <= 1 << 16, "struct next_hop");

enum { NEXT_HOPS = 1024 };

/* By a hash of what was asked. Written and read by xdp_fasttrack; two of its runs on a CPU do not interrupt one another. */
BPF_TABLE("percpu_array", u32, struct next_hop, next_hops, NEXT_HOPS);

/* One element: the number of changes that user space has seen of routes, rules, neighbours, addresses and interfaces; 0: nothing may be
 * kept, for the way depends on more than what a next hop is found by. Written by user space, read by xdp_fasttrack. */
BPF_TABLE("array", u32, u64, way_changes, 1);

/* What is kept holds until user space sees a change, and should it see none, to the end of a tick. 0: nothing may be kept. */
static __always_inline u64 validity(u64 now)
{
	u32 zero = 0;
	u64 *changes = way_changes.lookup(&zero);
	u32 seen = changes ? READ_ONCE(*changes) : 0;

	return seen ? now >> TICK_SHIFT << 32 | seen : 0;
}

/* What the way depends on, but for protocol and ports, which only rules may ask for. */
static __always_inline struct next_hop *kept_next_hop(const struct next_hop *asked)
{
	u64 mixed = ((asked->source[0] ^ asked->source[1]) * 0x9e3779b97f4a7c15ULL + (asked->destination[0] ^ asked->destination[1])) *
		0xff51afd7ed558ccdULL + asked->from * 0xc4ceb9fe1a85ec53ULL;
	u32 place = mixed >> 54 & (NEXT_HOPS - 1);

	return next_hops.lookup(&place);
}

static __always_inline bool is_same_way(const struct next_hop *kept, const struct next_hop *asked)
{
	return kept->valid == asked->valid && kept->from == asked->from && kept->destination[0] == asked->destination[0] &&
		kept->source[0] == asked->source[0] && kept->destination[1] == asked->destination[1] &&
		kept->source[1] == asked->source[1];
}

/* Asks for the way: by the packet's source as it came and its new destination, as the stack does. 0 if it may be sent. */
static __always_inline int find_way(struct xdp_md *xdp, const struct quick *quick, u64 now, struct outgoing *outgoing)
{
	void *data = (void *)(long)xdp->data, *data_end = (void *)(long)xdp->data_end;
	struct ipv4_header *ip4 = data + sizeof(struct ethernet_header);
	struct ipv6_header *ip6 = data + sizeof(struct ethernet_header);
	const __be32 *destination = new_destination(quick);
	struct next_hop asked, *kept;
	struct fast_port *port;
	struct ports *ports;
	u32 ifindex;

	/* Before the kernel is asked: what changes while it answers makes the answer invalid. */
	asked.valid = validity(now);
	asked.from = (u64)xdp->ingress_ifindex << 32;
	if (quick->tuple.family == 4) {
		ports = (void *)(ip4 + 1);
		if ((void *)(ports + 1) > data_end || ip4->ttl <= 1)
			return -1;
		asked.from |= ip4->version_words | ip4->tos << 8;	/* of IPv6 this byte, or the highest, is 0x6. */
		asked.source[0] = ip4->source;
		asked.destination[0] = destination[0];
		asked.source[1] = asked.destination[1] = 0;
	} else {
		ports = (void *)(ip6 + 1);
		if ((void *)(ports + 1) > data_end || ip6->hops <= 1)
			return -1;
		asked.from |= ip6->version_class_label;
		asked.source[0] = two_words(ip6->source);
		asked.source[1] = two_words(ip6->source + 2);
		asked.destination[0] = two_words(destination);
		asked.destination[1] = two_words(destination + 2);
	}
	kept = kept_next_hop(&asked);
	if (!kept)
		return -1;
	if (asked.valid && is_same_way(kept, &asked) && quick->bytes <= kept->mtu) {
		ifindex = kept->ifindex;
		__builtin_memcpy(outgoing->macs, kept->macs, sizeof(kept->macs));
	} else {
		struct bpf_fib_lookup way = {};

		if (quick->tuple.family == 4) {
			way.family = FAMILY_INET;
			way.tos = ip4->tos;
			way.ipv4_src = ip4->source;
			way.ipv4_dst = destination[0];
		} else {
			way.family = FAMILY_INET6;
			way.flowinfo = ip6->version_class_label & hton32(0x0fffffff);
#pragma unroll
			for (int i = 0; i < 4; i++) {
				way.ipv6_src[i] = ip6->source[i];
				way.ipv6_dst[i] = destination[i];
			}
		}
		way.l4_protocol = quick->protocol;
		way.sport = ports->source;
		way.dport = quick->from_hi & 1 ? quick->tuple.lo_port : quick->tuple.hi_port;
		way.tot_len = quick->bytes;
		way.ifindex = xdp->ingress_ifindex;
		if (bpf_fib_lookup(xdp, &way, sizeof(way), 0))
			return -1;	/* no route, no neighbour, for this machine, too long, ... */
		ifindex = way.ifindex;
		if (ifindex >= FAST_PORTS)
			return -1;
		__builtin_memcpy(outgoing->macs, way.dmac, 6);
		__builtin_memcpy(outgoing->macs + 6, way.smac, 6);
		if (asked.valid) {
			/* The way's MTU, which shares this field (`mtu_result`, unknown to older headers) with the packet's length; Linux before
			 * 5.12 leaves that there: longer ones ask again. */
			asked.mtu = way.tot_len;
			asked.ifindex = ifindex;
			__builtin_memcpy(asked.macs, outgoing->macs, sizeof(asked.macs));
			*kept = asked;
		}
	}
	port = fast_ports.lookup(&ifindex);
	if (!port || !(port->flags & PORT_TAKES_PART))
		return -1;
	outgoing->ifindex = ifindex;
	return 0;
}

#endif

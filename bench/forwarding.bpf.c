/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What bench/fasttrack.py measures a router with: where packets come from, where they end, and the least that forwards them. */
#include "wire.h"

enum { FAMILY_INET = 2 };

/* Small UDP packets, whose pages come back as the router has left them: so all of the headers are written each time. */
struct shape {
	u8 head[44];		/* Ethernet, IPv4 and UDP; the rest of the frame stays as it is */
	u32 ifindex;		/* where to send them */
	u32 connections;	/* each has a port of its own, */
	u32 first;		/* from this one on */
	u32 at;			/* where that port stands: 0 source, 1 destination */
	u64 sent;
};
BPF_TABLE("array", u32, struct shape, shape, 1);

/* Packets that have arrived. */
BPF_TABLE("percpu_array", u32, u64, arrived, 1);

struct udp_frame {
	struct ethernet_header ethernet;
	struct ipv4_header ip;
	struct udp_header udp;
} __attribute__((packed));

int xdp_generate(struct xdp_md *xdp)
{
	struct udp_frame *frame = (void *)(long)xdp->data;
	u32 zero = 0;
	struct shape *wanted = shape.lookup(&zero);

	if (!wanted || (void *)(frame + 1) > (void *)(long)xdp->data_end)
		return XDP_ABORTED;
	u32 port = wanted->first + wanted->sent++ % wanted->connections;	/* one CPU sends */

	__builtin_memcpy(frame, wanted->head, sizeof(*frame));
	if (wanted->at)
		frame->udp.destination = ntoh16((u16)port);
	else
		frame->udp.source = ntoh16((u16)port);
	return bpf_redirect(wanted->ifindex, 0);
}

static __always_inline bool is_udp(struct xdp_md *xdp)
{
	struct udp_frame *frame = (void *)(long)xdp->data;

	return (void *)(frame + 1) <= (void *)(long)xdp->data_end && frame->ethernet.type == hton16(ETHERTYPE_IPV4) &&
		frame->ip.protocol == PROTOCOL_UDP;
}

/* The end of the way: packets are counted and dropped, all else (neighbour discovery) lives. */
int xdp_end(struct xdp_md *xdp)
{
	u32 zero = 0;
	u64 *count = arrived.lookup(&zero);

	if (!count || !is_udp(xdp))
		return XDP_PASS;
	++*count;
	return XDP_DROP;
}

/* Bare forwarding: the way is asked for, TTL and addresses are written. Nothing is tracked. */
int xdp_bare(struct xdp_md *xdp)
{
	struct udp_frame *frame = (void *)(long)xdp->data;
	struct bpf_fib_lookup way = {};

	if (!is_udp(xdp) || (void *)(frame + 1) > (void *)(long)xdp->data_end || frame->ip.ttl <= 1)
		return XDP_PASS;
	way.family = FAMILY_INET;
	way.tos = frame->ip.tos;
	way.l4_protocol = frame->ip.protocol;
	way.tot_len = ntoh16(frame->ip.length);
	way.ipv4_src = frame->ip.source;
	way.ipv4_dst = frame->ip.destination;
	way.ifindex = xdp->ingress_ifindex;
	if (bpf_fib_lookup(xdp, &way, sizeof(way), 0))
		return XDP_PASS;
	u32 checksum = frame->ip.checksum + hton16(0x0100);

	frame->ip.checksum = checksum + (checksum >= 0xffff);
	frame->ip.ttl--;
	__builtin_memcpy(frame->ethernet.destination, way.dmac, 6);
	__builtin_memcpy(frame->ethernet.source, way.smac, 6);
	return bpf_redirect(way.ifindex, 0);
}

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The ends of bench/router.py: where packets are made, and where they are counted and dropped. */
#include "wire.h"

enum { FRAME = 60, LENGTHS = 4 };

/* What a CPU sends: small UDP or TCP packets of many connections. Written by user space while nothing is sent; `sent` by the program. */
struct shape {
	u8 frame[FRAME];	/* all of it, with the client's address and port zero */
	u32 checksum;		/* folded sum of the IP header without the client's address */
	u32 ifindex;		/* where to send them */
	u32 from_server;	/* 1: the client is the destination */
	u64 connections;	/* how many take turns, ... */
	u64 stride;		/* ... in steps of this, which has no divisor in common with their number */
	u64 first;		/* the number of the first one */
	u64 sent;
	u32 step;		/* TCP: sequence numbers from one turn to the next */
	u32 pad;
};
BPF_TABLE("array", u32, struct shape, shapes, 64);

/* Packets that have arrived. */
BPF_TABLE("percpu_array", u32, u64, arrived, 1);

struct any_frame {
	struct ethernet_header ethernet;
	struct ipv4_header ip;
	__be16 source_port;
	__be16 destination_port;
	__be32 seq;		/* of TCP */
} __attribute__((packed));

/* Connection n has the port 1024 + n % 64 of the client 10.128.0.0 + n / 64. */
int xdp_generate(struct xdp_md *xdp)
{
	struct any_frame *frame = (void *)(long)xdp->data;
	u32 cpu = bpf_get_smp_processor_id();
	struct shape *shape = shapes.lookup(&cpu);

	if (!shape || !shape->connections || (void *)(long)xdp->data + FRAME > (void *)(long)xdp->data_end)
		return XDP_ABORTED;
	u64 sent = shape->sent++;
	u64 number = shape->first + sent * shape->stride % shape->connections;
	u32 address = 0x0a800000 + (number >> 6), sum = shape->checksum + (address >> 16) + (address & 0xffff);

	/* The page comes back as the router has left it: all is written anew. */
	__builtin_memcpy(frame, shape->frame, FRAME);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	frame->ip.checksum = ntoh16((u16)~sum);
	if (shape->from_server) {
		frame->ip.destination = hton32(address);
		frame->destination_port = ntoh16((u16)(1024 + (number & 63)));
	} else {
		frame->ip.source = hton32(address);
		frame->source_port = ntoh16((u16)(1024 + (number & 63)));
	}
	if (shape->step)
		frame->seq = hton32(ntoh32(frame->seq) + (u32)(sent / shape->connections) * shape->step);
	return bpf_redirect(shape->ifindex, 0);
}

static __always_inline bool is_client(__be32 address)
{
	return ntoh32(address) >> 23 == 0x0a800000 >> 23;
}

/* Where packets end, at both ends of the way. All else lives. */
int xdp_end(struct xdp_md *xdp)
{
	struct any_frame *frame = (void *)(long)xdp->data;
	u32 zero = 0;
	u64 *count = arrived.lookup(&zero);

	if (!count || (void *)(frame + 1) > (void *)(long)xdp->data_end || frame->ethernet.type != hton16(ETHERTYPE_IPV4) ||
	    !(is_client(frame->ip.source) || is_client(frame->ip.destination)))
		return XDP_PASS;
	++*count;
	return XDP_DROP;
}

/* What two hooks cost by themselves. */
int tc_nothing(struct __sk_buff *skb)
{
	return -1;	/* the packet goes on as if it were not there */
}

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the datapath is measured against. The empty program is what a test run costs by itself. The floor is the least that any
 * per-connection counter over a map of the kernel does for a packet: parse Ethernet, IPv4 and TCP with one bound check, one lookup of the same key in the
 * same kind of map with the same entries, two atomic adds, a coarse clock. It knows no state, no direction, no other header. */
#include "wire.h"
#include "types.h"

BPF_F_TABLE("hash", struct tuple, struct conn, floor_connections, MAX_ENTRIES, MAP_FLAGS);

struct frame {
	struct ethernet_header ethernet;
	struct ipv4_header ip;
	struct tcp_header tcp;
} __attribute__((packed));

static __always_inline void floor_packet(void *data, void *end)
{
	struct frame *frame = data;

	if ((void *)(frame + 1) > end || frame->ethernet.type != hton16(ETHERTYPE_IPV4) || frame->ip.version_words != 0x45 ||
	    frame->ip.protocol != PROTOCOL_TCP)
		return;
	struct tuple tuple = {
		.lo_addr[0] = frame->ip.source,
		.hi_addr[0] = frame->ip.destination,
		.lo_port = frame->tcp.source,
		.hi_port = frame->tcp.destination,
		.protocol = PROTOCOL_TCP,
		.family = 4,
	};
	struct conn *conn = floor_connections.lookup(&tuple);

	if (!conn)
		return;
	__sync_fetch_and_add(&conn->packets[ORIGINAL], 1);
	__sync_fetch_and_add(&conn->bytes[ORIGINAL], ntoh16(frame->ip.length));
	conn->expires = bpf_jiffies64();
}

int tc_floor(struct __sk_buff *skb)
{
	floor_packet((void *)(long)skb->data, (void *)(long)skb->data_end);
	return 0;
}

int xdp_floor(struct xdp_md *xdp)
{
	floor_packet((void *)(long)xdp->data, (void *)(long)xdp->data_end);
	return XDP_PASS;
}

int tc_empty(struct __sk_buff *skb)
{
	return 0;
}

int xdp_empty(struct xdp_md *xdp)
{
	return XDP_PASS;
}

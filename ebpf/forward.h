/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The fast path: the program that hangs at XDP in the place of xdp_ingress while there are rules that fasttrack. It counts a packet by the
 * short way (quick.h) and, if its connection is fasttracked, forwards it; whatever it must not decide goes to the stack, and whatever
 * the short way does not count goes the long one (xdp_long), both as if this program were not there.
 * No packet is changed before it is certain that it can be sent. */
#ifndef CTWEB_FORWARD_H
#define CTWEB_FORWARD_H

enum { FAST_PORTS = 4096 };			/* the first interface index that cannot take part */
enum { TICK_SHIFT = 30 };			/* of a tick, about a second */
enum {						/* of by_stack() */
	STACK_TICKS = 2,			/* after the last one, the next is due */
	STACK_TICKS_AT_MOST = 4,		/* half of them after a packet has found one due, any will do */
	STACK_TICK = 0x7f, STACK_SOUGHT = 0x80,
};
enum { STAMP_GRAIN = 1 << 26 };			/* ns, about 67 ms */
enum { ETHERNET_SHORTEST = 60 };		/* a frame that is no longer may be padded */
enum { FAMILY_INET = 2, FAMILY_INET6 = 10 };	/* as bpf_fib_lookup() calls them */

enum fast_port_flags {
	PORT_TAKES_PART = 1 << 0,
	PORT_VIRTUAL = 1 << 1,	/* checksums may be left to hardware that is not there */
};

struct fast_port {
	u8 mac[6];
	u16 flags;
};
_Static_assert(sizeof(struct fast_port) == 8, "struct fast_port");

/* Interfaces by index. Both written by user space, read by xdp_fasttrack. */
BPF_TABLE("array", u32, struct fast_port, fast_ports, FAST_PORTS);
BPF_DEVMAP(fast_devices, FAST_PORTS);

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

/* In which tick the stack last got a packet of a direction that could have gone fast: the low bits of its number. With STACK_SOUGHT: since
 * STACK_TICKS after it one is sought that may be late. */
static __always_inline u8 *by_stack(struct conn *conn, u64 direction)
{
	return (u8 *)&conn->gre_protocol + (direction & 1);
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

/* May the frame be forwarded at all: is it addressed to the interface it came in through, and nothing but a complete packet? */
static __always_inline bool is_for_us(struct xdp_md *xdp, const struct quick *quick)
{
	void *data = (void *)(long)xdp->data, *data_end = (void *)(long)xdp->data_end;
	struct ethernet_header *ethernet = data;
	u32 ifindex = xdp->ingress_ifindex;
	struct fast_port *port = fast_ports.lookup(&ifindex);
	u64 length = data_end - data;

	if (!port || !(port->flags & PORT_TAKES_PART) || (void *)(ethernet + 1) > data_end)
		return false;
	if (*(u32 *)ethernet->destination != *(u32 *)port->mac || *(u16 *)(ethernet->destination + 4) != *(u16 *)(port->mac + 4))
		return false;
	if (length != sizeof(*ethernet) + quick->bytes && length > ETHERNET_SHORTEST)
		return false;
	return !(port->flags & PORT_VIRTUAL) || !checksum_missing(xdp, quick);
}

/* Will what follows a TCP segment not overtake it on its longer way through the stack, or do no harm if it does? That is one without payload,
 * and mostly the last one that the sender had to send. Others that come late count as lost, and make it send again. */
static __always_inline bool may_be_late(struct xdp_md *xdp, const struct quick *quick)
{
	void *data = (void *)(long)xdp->data + sizeof(struct ethernet_header), *data_end = (void *)(long)xdp->data_end;
	struct tcp_header *tcp = data + (quick->tuple.family == 4 ? sizeof(struct ipv4_header) : sizeof(struct ipv6_header));

	if (quick->protocol != PROTOCOL_TCP || quick->bytes == quick->headers)
		return true;
	return (void *)(tcp + 1) > data_end || tcp->flags & TCP_PSH;
}

/* One is due for the stack, so that its own entry lives on: is it this one? It is one that may be late; any, only if no such packet comes for
 * a while after the first that could have been it: that one, after a silence or as the connection begins to go fast, is the first of a
 * burst, and the rest would overtake it. Two CPUs at once may both send one. */
static __always_inline bool is_for_stack(struct xdp_md *xdp, struct conn *conn, const struct quick *quick, u64 direction, u8 tick)
{
	u8 *last = by_stack(conn, direction);
	u8 passed = tick - *last & STACK_TICK;

	if (may_be_late(xdp, quick) || (*last & STACK_SOUGHT && passed >= STACK_TICKS_AT_MOST)) {
		*last = tick & STACK_TICK;
		return true;
	}
	if (!(*last & STACK_SOUGHT))
		*last = (u8)(tick - STACK_TICKS) & STACK_TICK | STACK_SOUGHT;
	return false;
}

/* Sends the packet in cpu->quick, of `conn`, on its way if it may go fast. `behind`: its tuple was the one behind a translation. False:
 * it is for the stack, and unchanged. */
static __always_inline bool forward(struct xdp_md *xdp, struct conn *conn, struct quick *quick, u64 word, u64 direction, u64 now,
				    bool behind, struct outgoing *outgoing)
{
	u32 zero = 0;
	struct fasttrack *fast = fasttrack.lookup(&zero);
	bool translated = word & STATUS_BIT(STATUS_SRCNAT | STATUS_DSTNAT);
	u8 tick = now >> TICK_SHIFT;

	if (!fast || (word & STATUS_BIT(STATUS_PASSES | STATUS_STAMPS)) != STATUS_BIT(STATUS_PASSES | fast->stamp) ||
	    now >= fast->until || !is_for_us(xdp, quick))
		return false;
	if (unlikely((u8)(tick - *by_stack(conn, direction) & STACK_TICK) >= STACK_TICKS) && is_for_stack(xdp, conn, quick, direction, tick))
		return false;
	/* A reply to a translated connection comes as it is behind the translation, and nothing else does. */
	if (behind != (translated && direction == REPLY))
		return false;
	if (translated && direction == ORIGINAL) {
		u32 place = conn->fresh;
		struct rewrite *rewrite = rewrites.lookup(&place);

		if (!rewrite || rewrite->id != conn->id)
			return false;
		quick->tuple = rewrite->tuple;
		quick->from_hi ^= rewrite->flip & 1;
	}
	return !find_way(xdp, quick, now, outgoing) && rewrite_frame(xdp, quick, translated, outgoing);
}

/* As add(), of a packet that was forwarded here. */
static __always_inline void add_fast(struct conn *conn, u64 direction, u64 bytes, u64 expires, u64 until, struct per_cpu *cpu)
{
	u64 before;

	__sync_fetch_and_add(&conn->fasttrack_packets[direction & 1], 1);
	before = __sync_fetch_and_add(&conn->fasttrack_bytes[direction & 1], bytes);
	asm volatile("" : : "r"(before));
	/* A stamp this little older will do: at these rates each would be an atomic operation of its own. */
	stamp(conn, expires, until - expires < STAMP_GRAIN ? expires : until, cpu);
}

/* The connection of a packet that carries the tuple behind a translation; the packet is turned into one of it. */
static __always_inline struct conn *behind_translation(struct quick *quick)
{
	struct translation *translation = translation_of(&quick->tuple);
	struct conn *conn = translation ? find(&translation->tuple) : 0;

	/* Deleted and used again while it is read: see track(). Here the tuple and the id must fit in any case. */
	if (!conn || conn->id != translation->id)
		return 0;
	quick->tuple = translation->tuple;
	quick->from_hi ^= translation->flip & 1;
	return conn;
}

/* Run by user space through PROG_TEST_RUN: puts its decisions on connections that are alive and still the ones meant. */
int fasttrack_decide(struct __sk_buff *skb)
{
	struct fast_request *request = (void *)(long)skb->data;
	u32 zero = 0;
	struct per_cpu *cpu = per_cpu.lookup(&zero);

	if (!cpu || (void *)(request + 1) > (void *)(long)skb->data_end)
		return 0;
	for (u32 i = 0; i < FAST_ITEMS; i++) {
		if (i >= request->items)
			break;
		struct fast_item *item = &request->item[i];
		struct tuple tuple = item->tuple;
		struct rewrite rewrite = item->rewrite;
		struct conn *conn = living(&tuple, request->now, cpu);

		if (!conn || conn->id != rewrite.id)
			continue;
		if (item->place != NO_REWRITE) {
			u32 place = item->place;
			struct rewrite *there = rewrites.lookup(&place);

			if (!there || !(READ_ONCE(conn->status) & STATUS_ASSURED))
				continue;
			/* No packet reads it meanwhile: whose it was is gone, or it says the same; `fresh` leads here from now on. */
			*there = rewrite;
			conn->fresh = place;
		}
		/* Started anew meanwhile, it is answered and assured before a packet goes fast, and behind NAT its id is another. */
		decide_fasttrack(conn, STATUS_BIT(item->decision));
	}
	return 0;
}

int xdp_fasttrack(struct xdp_md *xdp)
{
	u32 zero = 0;
	struct per_cpu *cpu = per_cpu.lookup(&zero);
	if (!cpu)
		return XDP_PASS;
	u64 now = bpf_jiffies64() * TICK_NSEC;
	struct quick *quick = &cpu->quick;
	bool absent = false;
	struct outgoing outgoing;
	struct frame frame;

	look_at_xdp(xdp, &frame, cpu);
	if (quick_parse(&frame, sizeof(struct ethernet_header), 0, quick)) {
		struct conn *conn = find(&quick->tuple);

		absent = !conn;
		if (absent)
			conn = behind_translation(quick);
		if (conn) {
			u64 expires = READ_ONCE(conn->expires), word = READ_ONCE(*conn_word(conn));
			u64 direction = (quick->from_hi ^ word >> STATUS_SHIFT) & STATUS_SWAPPED;
			u64 bytes = quick->bytes;
			u64 timeout = quick_timeout(conn, quick, now, 0, expires, word, direction);

			if (timeout) {
				bool fast = forward(xdp, conn, quick, word, direction, now, absent, &outgoing);

				cpu->counter[COUNT_OFFERED_PACKETS] += 1;	/* see() says why plain adds will do */
				cpu->counter[COUNT_OFFERED_BYTES] += bytes;
				if (!fast) {
					add(conn, direction, 1, bytes, expires, now + timeout, cpu);
					return XDP_PASS;
				}
				cpu->counter[COUNT_FASTTRACK_PACKETS] += 1;
				cpu->counter[COUNT_FASTTRACK_BYTES] += bytes;
				add_fast(conn, direction, bytes, expires, now + timeout, cpu);
				return fast_devices.redirect_map(outgoing.ifindex, XDP_DROP);
			}
		}
	}
	cpu->absent = absent;
	xdp_long_way.call(xdp, 0);
	return XDP_PASS;	/* user space is gone, and the program with it */
}

#endif

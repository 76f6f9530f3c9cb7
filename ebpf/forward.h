/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The fast path: the program that hangs at XDP in the place of xdp_ingress while there are rules that fasttrack. It counts a packet by the
 * short way (quick.h) and, if its connection is fasttracked, forwards it; whatever it must not decide goes to the stack, and whatever
 * the short way does not count goes the long one (xdp_long), both as if this program were not there.
 * No packet is changed before it is certain that it can be sent. */
#ifndef CTWEB_FORWARD_H
#define CTWEB_FORWARD_H

enum {						/* of by_stack() */
	STACK_TICKS = 2,			/* after the last one, the next is due */
	STACK_TICKS_AT_MOST = 4,		/* half of them after a packet has found one due, any will do */
	STACK_TICK = 0x7f, STACK_SOUGHT = 0x80,
};
enum { STAMP_GRAIN = 1 << 26 };			/* ns, about 67 ms */
enum { ETHERNET_SHORTEST = 60 };		/* a frame that is no longer may be padded */

/* In which tick the stack last got a packet of a direction that could have gone fast: the low bits of its number. With STACK_SOUGHT: since
 * STACK_TICKS after it one is sought that may be late. */
static __always_inline u8 *by_stack(struct conn *conn, u64 direction)
{
	return (u8 *)&conn->gre_protocol + (direction & 1);
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

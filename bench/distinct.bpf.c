/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Gives each run of one test another sender, and with it another connection: the frame stays as the run before has left it. */
#include "wire.h"

/* What the frame is handed to. Written by user space. */
BPF_PROG_ARRAY(handed_to, 1);

struct frame {
	struct ethernet_header ethernet;
	struct ipv4_header ip;
} __attribute__((packed));

int tc_distinct(struct __sk_buff *skb)
{
	struct frame *frame = (void *)(long)skb->data;

	if ((void *)(frame + 1) > (void *)(long)skb->data_end)
		return 0;
	frame->ip.source = hton32(ntoh32(frame->ip.source) + 1);
	handed_to.call(skb, 0);
	return 1;	/* nothing was there */
}

int tc_nothing(struct __sk_buff *skb)
{
	return 0;
}

/* Written by user space. */
struct order {
	u32 mask;	/* senders - 1, a power of two less one */
	u32 step;	/* odd: all of them come before one comes again */
	u32 answers;	/* 1: they are the receivers */
	u32 pad;
};
BPF_TABLE("array", u32, struct order, order, 1);

/* Gives each run one of so many senders, in an order that no prefetcher guesses: the place in the order stands in the IP header's id and
 * checksum, which nobody here looks at. */
int tc_any_order(struct __sk_buff *skb)
{
	struct frame *frame = (void *)(long)skb->data;
	u32 zero = 0;
	struct order *wanted = order.lookup(&zero);

	if (!wanted || (void *)(frame + 1) > (void *)(long)skb->data_end)
		return 0;
	u32 place = ((u32)frame->ip.id << 16 | (u16)frame->ip.checksum) + 1;
	__be32 address = hton32(0x0a400000 + (place * wanted->step & wanted->mask));

	frame->ip.id = place >> 16;
	frame->ip.checksum = (u16)place;
	if (wanted->answers)
		frame->ip.destination = address;
	else
		frame->ip.source = address;
	handed_to.call(skb, 0);
	return 1;	/* nothing was there */
}

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

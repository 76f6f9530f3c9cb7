/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the programs that are attached and those that they call have in common. */
#ifndef CTWEB_PROGRAMS_H
#define CTWEB_PROGRAMS_H

enum { PASS_ON = -1 };		/* TC_ACT_UNSPEC */

static __always_inline u64 clock_now(struct __sk_buff *skb)
{
#ifdef REPLAY
	return skb->tstamp;
#else
	return bpf_jiffies64() * TICK_NSEC;
#endif
}

#endif

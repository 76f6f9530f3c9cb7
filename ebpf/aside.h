/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What is rare and takes long: fragments and ICMP errors. A hook tail-calls a program of its own for it, at the end of its work, so that
 * it adds nothing to the hooks' verification. The packet as the hook has parsed it is in the cpu's memory. */
#ifndef CTWEB_ASIDE_H
#define CTWEB_ASIDE_H

enum aside { ASIDE_NONE, ASIDE_FIRST_FRAGMENT, ASIDE_FRAGMENT, ASIDE_ICMP_ERROR };

/* Where the hooks call to: one program. Written by user space before anything is attached. */
BPF_PROG_ARRAY(tc_asides, 1);
BPF_PROG_ARRAY(xdp_asides, 1);

/* What to do with a packet that could not be parsed to its end. */
static __always_inline u64 aside_of(int error)
{
	return error == COUNT_FRAGMENT ? ASIDE_FRAGMENT : error == COUNT_ICMP_ERROR ? ASIDE_ICMP_ERROR : ASIDE_NONE;
}

/* The call came back: user space is gone, and the program with it. */
static __always_inline void not_set_aside(struct per_cpu *cpu)
{
	if (cpu->aside != ASIDE_FIRST_FRAGMENT)
		count_untracked(cpu, cpu->aside == ASIDE_FRAGMENT ? COUNT_FRAGMENT : COUNT_INVALID_ICMP, &cpu->packet);
}

static __always_inline void see_aside(struct frame *frame, struct layers *layers, u64 now, struct per_cpu *cpu)
{
	if (cpu->aside == ASIDE_FIRST_FRAGMENT)
		see_first_fragment(&cpu->packet, now, cpu);
	else if (cpu->aside == ASIDE_FRAGMENT)
		see_fragment(&cpu->packet, now, cpu);
	else
		see_icmp_error(frame, layers, now, cpu);
}

#endif

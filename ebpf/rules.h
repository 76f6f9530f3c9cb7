/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Rules ([[rule]] in the configuration): matched on a connection's first packet, the first one that matches wins.
 * They are a program of their own, which a hook tail-calls once its packet has started a connection: so they add nothing to the
 * hooks' verification, and without rules nothing is loaded and the call goes nowhere. */
#ifndef CTWEB_RULES_H
#define CTWEB_RULES_H

/* A packet matches if, in every part, it differs from the rule in no bit of the mask and its ports lie in the ranges. */
struct rule {
	__be32 src_addr[4];
	__be32 src_mask[4];
	__be32 dst_addr[4];
	__be32 dst_mask[4];
	u32 ifindex;		/* of the interface that the packet came in through; 0: it began here */
	u32 ifindex_mask;
	u16 src_first;		/* ports in the host's order; 0 to 65535 for all */
	u16 src_last;
	u16 dst_first;
	u16 dst_last;
	u8 protocol;
	u8 protocol_mask;
	u8 family;
	u8 family_mask;
	u32 mark;		/* conn.mark */
};
_Static_assert(sizeof(struct rule) == 88, "struct rule");

enum { RULES_MAX = 512 };

struct rules {
	u32 count;
	struct rule rule[RULES_MAX];
};

/* Two lists: the one in force, and room for the next. Written by user space, read by the rule programs. A program may still read the
 * old list while the next is put into force; user space writes that one again at the next change only. */
BPF_TABLE("array", u32, struct rules, rules, 2);

/* One element: which list is in force. Written by user space, read by the rule programs. */
BPF_TABLE("array", u32, u32, rules_in_force, 1);

/* Where the hooks call to: one program, or none while there are no rules. Written by user space. */
BPF_PROG_ARRAY(tc_rules, 1);
BPF_PROG_ARRAY(xdp_rules, 1);

/* One for a bit outside of the mask, or not: without branches, for the verifier walks the loop once for each way through it. */
static __always_inline u32 differs(const __be32 *address, const __be32 *wanted, const __be32 *mask)
{
	u32 bits = 0;

	for (int i = 0; i < 4; i++)
		bits |= (address[i] ^ wanted[i]) & mask[i];
	return bits;
}

static __always_inline u32 outside(u32 port, u32 first, u32 last)
{
	u32 above = port - first, below = last - port;

	asm volatile("" : "+r"(above), "+r"(below));	/* newer compilers would make comparisons of it */
	return (above | below) >> 31;	/* the sign */
}

/* The packet in the cpu's memory has started a connection, the last one that this CPU made: mark it. */
static __always_inline void mark_new(u32 ifindex)
{
	u32 zero = 0;
	struct per_cpu *cpu = per_cpu.lookup(&zero);
	u32 *in_force = rules_in_force.lookup(&zero);

	if (!cpu || !in_force)
		return;
	u32 which = *in_force & 1;
	struct rules *list = rules.lookup(&which);
	struct tuple tuple = cpu->packet.tuple;
	bool from_hi = cpu->packet.from_hi;
	struct conn *conn = find(&tuple);

	/* Another CPU may have been first with this tuple, and matches the rules itself. */
	if (!list || !conn || conn->id != (cpu->last_id << CPU_BITS | bpf_get_smp_processor_id()))
		return;
	__be32 src[4], dst[4];
	for (int i = 0; i < 4; i++) {
		src[i] = from_hi ? tuple.hi_addr[i] : tuple.lo_addr[i];
		dst[i] = from_hi ? tuple.lo_addr[i] : tuple.hi_addr[i];
	}
	u32 src_port = ntoh16(from_hi ? tuple.hi_port : tuple.lo_port);
	u32 dst_port = ntoh16(from_hi ? tuple.lo_port : tuple.hi_port);
	u32 mark = 0, matches = 0;

	for (u32 i = 0; i < RULES_MAX; i++) {
		const struct rule *rule = &list->rule[i];

		if (i >= list->count)
			break;
		u32 miss = differs(src, rule->src_addr, rule->src_mask) | differs(dst, rule->dst_addr, rule->dst_mask) |
			((ifindex ^ rule->ifindex) & rule->ifindex_mask) |
			((tuple.protocol ^ rule->protocol) & rule->protocol_mask) |
			((tuple.family ^ rule->family) & rule->family_mask) |
			outside(src_port, rule->src_first, rule->src_last) | outside(dst_port, rule->dst_first, rule->dst_last);
		if (!miss) {
			mark = rule->mark;
			matches = 1;
			break;
		}
	}
	/* Should the entry be restarted meanwhile, its new connection gets the mark of the same two ends until its own rules are done. */
	if (matches)		/* no mark, too: an expected connection has its control connection's until here */
		conn->mark = mark;
}

#endif

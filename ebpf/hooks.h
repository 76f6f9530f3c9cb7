/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The programs that are attached. None drops or changes a frame.
 * The tc programs return TC_ACT_UNSPEC, which is TCX_NEXT too: whatever program or filter stands behind this one runs as if this
 * one were not there. TC_ACT_OK would end the chain: tcx programs and clsact filters of others behind it would never see the packet. */
#ifndef CTWEB_HOOKS_H
#define CTWEB_HOOKS_H

enum { PULL = 256 };		/* headers are at most this long */
#ifdef REPLAY
enum { PARSE_TRIES = 1 };	/* a test run's frames are linear */
#else
enum { PARSE_TRIES = 2 };
#endif

enum hook { INGRESS, EGRESS };
enum { LOOPBACK = 1 };		/* its index in every network namespace */

/* Counts the packet. `bits`: status bits that this hook sets. */
static __always_inline void see(const struct frame *frame, struct packet *packet, int error, u64 now, u64 bits, struct per_cpu *cpu)
{
	u64 last_id = cpu->last_id;

	/* Plain adds: only packet programs on this CPU write these two, and those do not interrupt one another. */
	cpu->counter[COUNT_OFFERED_PACKETS] += packet->packets;
	cpu->counter[COUNT_OFFERED_BYTES] += packet->bytes;
	cpu->offered = 0;
	cpu->watched = 0;
	cpu->aside = ASIDE_NONE;
	if (unlikely(error)) {
		cpu->aside = aside_of(error);
		if (!cpu->aside)
			count_untracked(cpu, error, packet);
	} else {
		u64 untracked = cpu->counter[COUNT_UNTRACKED_BYTES];

		track(packet, now, bits, cpu, frame->ifindex);
		if (unlikely(packet->fragment) && cpu->counter[COUNT_UNTRACKED_BYTES] == untracked)
			cpu->aside = ASIDE_FIRST_FRAGMENT;
	}
	cpu->started = cpu->last_id != last_id;
}

/* Did the packet come in through a tracked interface, where it was counted? */
static __always_inline bool came_in(struct __sk_buff *skb)
{
	u32 ifindex = skb->ingress_ifindex;

	return ifindex && interfaces.lookup(&ifindex);
}

/* What ingress notes in an skb for egress: the packet is counted, on a connection of which packets have left before, so there is nothing to
 * do for it on its way out. It stands in a field that the stack carries along and, since the tcindex classifier is gone, only sch_gred
 * reads; egress takes it away again before a queue sees the packet, but not on an interface that has no programs. The number is drawn
 * at each start, so that what another namespace's tracker has noted in a packet that comes from there through a pair of veth devices is
 * not taken for ours. */
static __always_inline u32 settled_note(void)
{
	u32 zero = 0;
	struct size *sized = size.lookup(&zero);

	return sized ? sized->settled_note : 0;
}

/* At ingress, of a counted packet. */
static __always_inline void leave_note(struct __sk_buff *skb, struct conn *conn)
{
	skb->tc_index = READ_ONCE(conn->status) & STATUS_CONFIRMED ? settled_note() : 0;
}

/* At egress. */
static __always_inline bool take_note(struct __sk_buff *skb)
{
	u32 note = skb->tc_index;

	if (!note || note != settled_note() || !skb->ingress_ifindex)
		return false;
	skb->tc_index = 0;
	return true;
}

static __always_inline void look_at(struct __sk_buff *skb, struct frame *frame, struct per_cpu *cpu)
{
	*frame = (struct frame){
		.data = (void *)(long)skb->data,
		.end = (void *)(long)skb->data_end,
#ifdef REPLAY
		.length = skb->mark ? skb->mark : skb->len,	/* wire_len holds no more than 64 KB */
#else
		.length = skb->len,
#endif
		.scratch = &cpu->scratch,
		.options = &cpu->options,
	};
}

/* Where the hooks go on with what the short way leaves: one program for all of them, so that the verifier walks it once and their own few
 * lines lie together in the processor's cache. What it has to know is in the cpu's memory. Written by user space before anything is
 * attached. */
BPF_PROG_ARRAY(tc_long_way, 1);
BPF_PROG_ARRAY(xdp_long_way, 1);

/* `ethertype`: of a device without a link header; 0: it has one. */
static __always_inline int tc(struct __sk_buff *skb, enum hook hook, u32 ethertype)
{
	u32 zero = 0;

	if (hook == EGRESS && take_note(skb))
		return PASS_ON;
	struct per_cpu *cpu = per_cpu.lookup(&zero);
	if (!cpu)
		return PASS_ON;
	bool counted = hook == EGRESS && came_in(skb), absent = false;
	struct frame frame;

	look_at(skb, &frame, cpu);
	if (quick_parse(&frame, ethertype ? 0 : sizeof(struct ethernet_header), ethertype, &cpu->quick)) {
		struct conn *conn = find(&cpu->quick.tuple);

		if (conn && counted && (READ_ONCE(conn->status) & STATUS_CONFIRMED || READ_ONCE(conn->expires) > clock_now(skb))) {
			set_confirmed(conn);
			return PASS_ON;
		}
		frame.gso_size = skb->gso_size;
		if (frame.gso_size)
			frame.gso_segs = skb->gso_segs;
		if (conn && !counted && quick(conn, &frame, &cpu->quick, clock_now(skb), hook == EGRESS ? STATUS_CONFIRMED : 0, cpu)) {
			if (hook == INGRESS)
				leave_note(skb, conn);
			return PASS_ON;
		}
		absent = !conn;
	}
	cpu->absent = absent;
	cpu->egress = hook == EGRESS;
	cpu->counted = counted;
	cpu->ethertype = ethertype;
	tc_long_way.call(skb, 0);
	return PASS_ON;		/* user space is gone, and the program with it */
}

/* What the hooks call, see tc_long_way. */
int tc_long(struct __sk_buff *skb)
{
	u32 zero = 0;
	struct per_cpu *cpu = per_cpu.lookup(&zero);
	if (!cpu)
		return PASS_ON;
	struct packet *packet = &cpu->packet;
	u64 now = clock_now(skb), egress = cpu->egress;
	struct layers layers;
	struct frame frame;
	int error = 0;

	for (int tries = 0; tries < PARSE_TRIES; tries++) {
		look_at(skb, &frame, cpu);
		error = parse(&frame, cpu->ethertype, &layers, packet);
		if (!error || error == NOT_IP)
			break;
		/* Headers outside of the linear part: fetch them there, once. */
		if (frame.data + skb->len <= frame.end || frame.data + PULL <= frame.end ||
		    bpf_skb_pull_data(skb, skb->len < PULL ? skb->len : PULL))
			break;
	}
	if (error == NOT_IP)
		return PASS_ON;
	if (cpu->counted) {
		if (!error)
			confirm(packet, now, offered_key(skb), cpu);
		return PASS_ON;
	}
	frame.ifindex = skb->ifindex;
	frame.gso_size = skb->gso_size;
	if (frame.gso_size) {
		frame.gso_segs = skb->gso_segs;
		count_segments(&frame, &layers, packet);
	}
	see(&frame, packet, error, now, egress ? STATUS_CONFIRMED : 0, cpu);

	if (!egress && unlikely(may_offer(cpu)))
		offer(packet, cpu->offered, KEY_HASH | bpf_get_hash_recalc(skb));
	if (unlikely(cpu->aside)) {
		tc_asides.call(skb, 0);
		not_set_aside(cpu);
	}
	if (unlikely(wants_helper(cpu, now)))
		tc_helpers.call(skb, 0);	/* does not come back: it goes on to the rules itself */
	if (unlikely(cpu->started))
		tc_rules.call(skb, 0);	/* comes back only if there are no rules */
	return PASS_ON;
}

int tc_ingress(struct __sk_buff *skb)
{
	return tc(skb, INGRESS, 0);
}

int tc_egress(struct __sk_buff *skb)
{
	return tc(skb, EGRESS, 0);
}

/* For devices without a link header. */
int tc_ingress_l3(struct __sk_buff *skb)
{
	return skb->protocol ? tc(skb, INGRESS, skb->protocol) : PASS_ON;
}

int tc_egress_l3(struct __sk_buff *skb)
{
	return skb->protocol ? tc(skb, EGRESS, skb->protocol) : PASS_ON;
}

#ifndef REPLAY
static __always_inline void look_at_xdp(struct xdp_md *xdp, struct frame *frame, struct per_cpu *cpu)
{
	*frame = (struct frame){
		.data = (void *)(long)xdp->data,
		.end = (void *)(long)xdp->data_end,
		.scratch = &cpu->scratch,
		.options = &cpu->options,
	};
	frame->length = frame->end - frame->data;
}

int xdp_ingress(struct xdp_md *xdp)
{
	u32 zero = 0;
	struct per_cpu *cpu = per_cpu.lookup(&zero);
	if (!cpu)
		return XDP_PASS;
	bool absent = false;
	struct frame frame;

	look_at_xdp(xdp, &frame, cpu);
	if (quick_parse(&frame, sizeof(struct ethernet_header), 0, &cpu->quick)) {
		struct conn *conn = find(&cpu->quick.tuple);

		if (conn && quick(conn, &frame, &cpu->quick, bpf_jiffies64() * TICK_NSEC, 0, cpu))
			return XDP_PASS;
		absent = !conn;
	}
	cpu->absent = absent;
	xdp_long_way.call(xdp, 0);
	return XDP_PASS;	/* user space is gone, and the program with it */
}

/* What xdp_ingress and xdp_fasttrack call, see xdp_long_way. */
int xdp_long(struct xdp_md *xdp)
{
	u32 zero = 0;
	struct per_cpu *cpu = per_cpu.lookup(&zero);
	if (!cpu)
		return XDP_PASS;
	u64 now = bpf_jiffies64() * TICK_NSEC;
	struct layers layers;
	struct frame frame;
	int error;

	look_at_xdp(xdp, &frame, cpu);
	error = parse(&frame, 0, &layers, &cpu->packet);
	if (error == NOT_IP)
		return XDP_PASS;
	frame.ifindex = xdp->ingress_ifindex;
	see(&frame, &cpu->packet, error, now, 0, cpu);

	if (unlikely(may_offer(cpu)))
		offer_xdp(xdp, &cpu->packet, cpu->offered);
	if (unlikely(cpu->aside)) {
		xdp_asides.call(xdp, 0);
		not_set_aside(cpu);
	}
	if (unlikely(wants_helper(cpu, now)))
		xdp_helpers.call(xdp, 0);
	if (unlikely(cpu->started))
		xdp_rules.call(xdp, 0);
	return XDP_PASS;
}

int xdp_aside(struct xdp_md *xdp)
{
	u32 zero = 0;
	struct per_cpu *cpu = per_cpu.lookup(&zero);
	struct layers layers;
	struct frame frame;

	if (!cpu)
		return XDP_PASS;
	look_at_xdp(xdp, &frame, cpu);
	see_aside(&frame, &layers, bpf_jiffies64() * TICK_NSEC, cpu);
	if (wants_helper(cpu, bpf_jiffies64() * TICK_NSEC))
		xdp_helpers.call(xdp, 0);
	if (cpu->started)
		xdp_rules.call(xdp, 0);
	return XDP_PASS;
}

int xdp_mark(struct xdp_md *xdp)
{
	mark_new(xdp->ingress_ifindex);
	return XDP_PASS;
}
#endif

/* Called by the programs above, see aside.h. */
int tc_aside(struct __sk_buff *skb)
{
	u32 zero = 0;
	struct per_cpu *cpu = per_cpu.lookup(&zero);
	struct layers layers;
	struct frame frame;

	if (!cpu)
		return PASS_ON;
	look_at(skb, &frame, cpu);
	see_aside(&frame, &layers, clock_now(skb), cpu);
	if (wants_helper(cpu, clock_now(skb)))
		tc_helpers.call(skb, 0);
	if (cpu->started)
		tc_rules.call(skb, 0);
	return PASS_ON;
}

/* The same, see rules.h. */
int tc_mark(struct __sk_buff *skb)
{
	u32 ifindex = skb->ingress_ifindex;

	/* What leaves by loopback comes in there. */
	if (!ifindex && skb->ifindex == LOOPBACK)
		ifindex = LOOPBACK;
	mark_new(ifindex);
	return PASS_ON;
}

/* Tells user space the datapath's time (ctweb/datapath/clock.py): it leaves it in the first bytes of the packet data. */
int read_clock(struct __sk_buff *skb)
{
	u64 *out = (void *)(long)skb->data;

	if ((void *)(out + 1) > (void *)(long)skb->data_end)
		return 1;
	*out = bpf_jiffies64() * TICK_NSEC;
	return 0;
}

#endif

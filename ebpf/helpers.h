/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Helpers: what reads the payload of control connections, and what looks whether a new connection was expected. They are programs of their
 * own, which a hook tail-calls for packets of connections that a helper watches, and for new connections while something is
 * expected: so they add nothing to the hooks' verification, and other packets pay nothing. They end where the hook would have:
 * with the rules, if the packet has started a connection. */
#ifndef CTWEB_HELPERS_H
#define CTWEB_HELPERS_H

/* Where the hooks call to. Written by user space when the programs are loaded. */
BPF_PROG_ARRAY(tc_helpers, 1);
BPF_PROG_ARRAY(xdp_helpers, 1);

enum { PACKET_MAX = 65000 };	/* how far into a frame the verifier lets a program reach, and somewhat less */

static __always_inline bool wants_helper(struct per_cpu *cpu, u64 now)
{
	return cpu->watched || (cpu->started && may_be_expected(now));
}

/* Is the packet's payload to be read? Then it is said in `work` where it stands. */
static __always_inline bool is_to_be_read(struct per_cpu *cpu, struct work *work, u32 *type, u64 now)
{
	struct packet *packet = &cpu->packet;
	struct conn *conn = find(&packet->tuple);
	u64 status;

	if (!cpu->watched || packet->fragment || packet->payload <= packet->transport || !conn || READ_ONCE(conn->expires) <= now)
		return false;
	status = READ_ONCE(conn->status);
	*type = conn->type;
	work->id = conn->id;
	work->direction = (packet->from_hi ^ status) & STATUS_SWAPPED;
	work->translated = status & (STATUS_SRCNAT | STATUS_DSTNAT);
	work->at = packet->transport_at + packet->transport;
	work->source_at = packet->transport_at - packet->headers + (packet->tuple.family == 4 ?
		__builtin_offsetof(struct ipv4_header, source) : __builtin_offsetof(struct ipv6_header, source));
	work->ports_at = packet->transport_at;
	work->length = packet->payload - packet->transport;
	work->read = 0;
	work->last = 0;
	if (packet->tuple.protocol == PROTOCOL_UDP)
		return *type == TYPE_TFTP;
	/* As nf_conntrack: once there was traffic both ways. */
	return packet->tuple.protocol == PROTOCOL_TCP && status & STATUS_SEEN_REPLY && (*type == TYPE_FTP || *type == TYPE_PPTP);
}

static __always_inline void read_control(struct per_cpu *cpu, struct work *work, u32 type, const u8 *own_address, u64 now)
{
	struct watch *watch = watched.lookup(&work->id);

	if (!watch) {
		watched.update(&work->id, &work->none);
		watch = watched.lookup(&work->id);
	}
	if (!watch)
		return;
	if (type == TYPE_FTP)
		ftp_packet(cpu, work, watch, own_address, now);
	else if (type == TYPE_PPTP)
		pptp_packet(cpu, work, watch, now);
	else
		tftp_packet(cpu, work, watch, now);
}

int tc_help(struct __sk_buff *skb)
{
	u32 zero = 0, type;
	struct per_cpu *cpu = per_cpu.lookup(&zero);
	struct work *space = work.lookup(&zero);
	u64 now = clock_now(skb);

	if (!cpu || !space)
		return PASS_ON;
	if (is_to_be_read(cpu, space, &type, now)) {
		u64 size = space->length < PAYLOAD_MAX ? space->length : PAYLOAD_MAX;
		u8 source[16] = {};
		int failed;

		asm volatile("" : "+r"(size));
		if (size - 1 >= PAYLOAD_MAX)
			return PASS_ON;
		failed = bpf_skb_load_bytes(skb, space->at, space->payload, size);
		failed |= bpf_skb_load_bytes(skb, space->at + space->length - 1, &space->last, 1);
		if (cpu->packet.tuple.family == 4)
			failed |= bpf_skb_load_bytes(skb, space->source_at, source, 4);
		else
			failed |= bpf_skb_load_bytes(skb, space->source_at, source, 16);
		failed |= bpf_skb_load_bytes(skb, space->source_at, &space->wire.source, 8);
		failed |= bpf_skb_load_bytes(skb, space->ports_at, &space->wire.source_port, 4);
		space->read = size;
		if (!failed)
			read_control(cpu, space, type, source, now);
	}
	if (cpu->started) {
		meet_expectation(cpu, space, now);
		tc_rules.call(skb, 0);
	}
	return PASS_ON;
}

#ifndef REPLAY
/* One byte of the frame; false: it is not there. */
static __always_inline bool xdp_byte(struct xdp_md *xdp, u64 at, u8 *byte)
{
	u8 *from = (void *)(long)xdp->data;

	asm volatile("" : "+r"(at));
	if (at > PACKET_MAX)
		return false;
	from += at;
	if ((void *)(from + 1) > (void *)(long)xdp->data_end)
		return false;
	*byte = *from;
	return true;
}

int xdp_help(struct xdp_md *xdp)
{
	u32 zero = 0, type;
	struct per_cpu *cpu = per_cpu.lookup(&zero);
	struct work *space = work.lookup(&zero);
	u64 now = bpf_jiffies64() * TICK_NSEC;

	if (!cpu || !space)
		return XDP_PASS;
	if (is_to_be_read(cpu, space, &type, now)) {
		u8 source[16] = {}, last = 0;
		bool there = xdp_byte(xdp, space->at + space->length - 1, &last);

		for (u32 i = 0; i < PAYLOAD_MAX; i++) {
			if (i >= *(volatile u64 *)&space->length ||
			    !xdp_byte(xdp, *(volatile u64 *)&space->at + i, &space->payload[i]))
				break;
			*(volatile u64 *)&space->read = i + 1;
		}
		for (u32 i = 0; i < 16; i++) {
			if (i < 4 || cpu->packet.tuple.family == 6)
				there &= xdp_byte(xdp, *(volatile u64 *)&space->source_at + i, &source[i]);
		}
		for (u32 i = 0; i < 12; i++)
			there &= xdp_byte(xdp, i < 8 ? *(volatile u64 *)&space->source_at + i : *(volatile u64 *)&space->ports_at + i - 8,
					  (u8 *)&space->wire + i);
		space->last = last;
		if (there)
			read_control(cpu, space, type, source, now);
	}
	if (cpu->started) {
		meet_expectation(cpu, space, now);
		xdp_rules.call(xdp, 0);
	}
	return XDP_PASS;
}
#endif

#endif

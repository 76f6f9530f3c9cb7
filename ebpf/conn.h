/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Entries of the table: start, count, end. The rules that make them safe are in docs/architecture.md, "Life of an entry":
 * whoever wins cmpxchg(&expires, seen, EXPIRES_CLAIMED) owns the entry until it stores another value there; counters only ever
 * grow by atomic adds and are only ever taken by atomic exchange; the place of an entry that is over rests until no program can
 * still be running that saw it alive. So a packet's counts end up on a connection or in the cpu, exactly once. */
#ifndef CTWEB_CONN_H
#define CTWEB_CONN_H

enum { CLAIM_SPINS = 48 };	/* looks at an entry that somebody is ending or restarting */

static __always_inline void count(struct per_cpu *cpu, u32 counter, u64 n)
{
	/* Atomic, for on older kernels the reaper's test run can be interrupted by a packet on its CPU. */
	__sync_fetch_and_add(&cpu->counter[counter & 63], n);
}

static __always_inline void count_untracked(struct per_cpu *cpu, u32 counter, const struct packet *packet)
{
	count(cpu, counter, packet->packets);
	count(cpu, COUNT_UNTRACKED_BYTES, packet->bytes);
}

/* Takes what is on the counters over to the cpu. Late packets and the one who ended the entry may do so at the same time:
 * each count is exchanged out by exactly one of them. */
static __always_inline void move_counters(struct conn *conn, struct per_cpu *cpu)
{
	u64 packets = __sync_lock_test_and_set(&conn->packets[ORIGINAL], 0);
	packets += __sync_lock_test_and_set(&conn->packets[REPLY], 0);
	u64 bytes = __sync_lock_test_and_set(&conn->bytes[ORIGINAL], 0);
	u64 replied = __sync_lock_test_and_set(&conn->bytes[REPLY], 0);

	/* Who adds to these looks afterwards whether the connection has ended, and moves them himself. */
	if (unlikely(READ_ONCE(conn->fasttrack_packets[ORIGINAL]) | READ_ONCE(conn->fasttrack_packets[REPLY]) |
		     READ_ONCE(conn->fasttrack_bytes[ORIGINAL]) | READ_ONCE(conn->fasttrack_bytes[REPLY]))) {
		packets += __sync_lock_test_and_set(&conn->fasttrack_packets[ORIGINAL], 0);
		packets += __sync_lock_test_and_set(&conn->fasttrack_packets[REPLY], 0);
		bytes += __sync_lock_test_and_set(&conn->fasttrack_bytes[ORIGINAL], 0);
		replied += __sync_lock_test_and_set(&conn->fasttrack_bytes[REPLY], 0);
	}
	count(cpu, COUNT_ENDED_PACKETS, packets);
	count(cpu, COUNT_ENDED_BYTES, bytes + replied);
	count(cpu, COUNT_ENDED_REPLY_BYTES, replied);
}

/* When it expires; waits a little for whoever has claimed it. */
static __always_inline u64 settled(struct conn *conn)
{
	u64 expires = READ_ONCE(conn->expires);

	for (int i = 0; i < CLAIM_SPINS && unlikely(expires == EXPIRES_CLAIMED); i++) {
		pause();
		expires = READ_ONCE(conn->expires);
	}
	return expires;
}

static __always_inline bool claim(struct conn *conn, u64 seen)
{
	return __sync_val_compare_and_swap(&conn->expires, seen, EXPIRES_CLAIMED) == seen;
}

static __always_inline void count_live(s64 n)
{
	u32 zero = 0;
	struct shared *all = shared.lookup(&zero);

	if (all)
		__sync_fetch_and_add(&all->live, n);
}

/* By the owner of the claim, which keeps it. */
static __always_inline void end(struct conn *conn, struct per_cpu *cpu, u32 cause)
{
#ifdef REPLAY
	struct ended *record = ended.ringbuf_reserve(sizeof(*record));
	if (record) {		/* user space sees to it that there is room */
		tuple_of(place_of(conn), &record->tuple);
		record->conn = *conn;
		ended.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	}
#endif
	move_counters(conn, cpu);
	count(cpu, cause, 1);
	count_live(-1);
}

static __always_inline u64 new_id(struct per_cpu *cpu)
{
	return ++cpu->last_id << CPU_BITS | bpf_get_smp_processor_id();
}

/* All but `expires` and the counters; the rest is zero. */
static __always_inline void fill(struct conn *conn, const struct packet *packet, const struct start *start, u64 now, u64 bits,
				 struct per_cpu *cpu, u32 ifindex)
{
	u64 type = forget(&cpu->scratch, service_of(packet));

	bits |= packet->from_hi * STATUS_SWAPPED;
	if (unlikely(is_watched(type, packet))) {
		bits |= STATUS_HELPER;
		cpu->watched = 1;
	}
	bits = forget(&cpu->scratch, bits);
	*conn_word(conn) = STATUS_BIT(bits) | start->state << STATE_SHIFT;
	conn->tcp_last = start->last;
	conn->tcp_scales = start->scale;
	conn->window[ORIGINAL] = start->window;
	conn->window[REPLY].max_end = start->other_max_end;
	conn->tcp_flags[ORIGINAL] = start->flags;
	conn->tcp_flags[REPLY] = start->other_flags;
	if (start->in_window) {
		conn->tcp_last_seq = packet->seq;
		conn->tcp_last_ack = packet->ack;
		conn->tcp_last_end = packet->end;
		conn->tcp_last_win = packet->window;
	}
	conn->id = cpu->offered = new_id(cpu);
	conn->created = now;
	conn->type = type;
	conn->gre_protocol = packet->tuple.protocol == PROTOCOL_GRE ? packet->gre_protocol : 0;
	conn->ifindex = ifindex;
}

/* A new connection under the tuple of one that is over, by the owner of the claim. The counters are added to, not written: a
 * late packet of the old connection may still be adding to them. */
static __always_inline void restart(struct conn *conn, const struct packet *packet, const struct start *start, u64 now, u64 bits,
				    struct per_cpu *cpu, u32 ifindex)
{
	/* Packets that found the old connection alive may read a mixture here. They are of the same two ends and at the same time, so
	 * what they make of it is what some order of their arrival would have made. */
	u64 position = take_position();

	__builtin_memset(conn->window, 0, __builtin_offsetof(struct conn, id) - __builtin_offsetof(struct conn, window));
	conn->mark = 0;
	fill(conn, packet, start, now, bits, cpu, ifindex);
	__sync_fetch_and_add(&conn->packets[ORIGINAL], packet->packets);
	__sync_fetch_and_add(&conn->bytes[ORIGINAL], packet->bytes);
	conn->fresh = position;
	/* An exchange, for it orders all of the above before the entry is alive again. */
	__sync_lock_test_and_set(&conn->expires, now + start->timeout);
	count(cpu, COUNT_CREATED, 1);
	count_live(1);
	remember(conn, position);
}

static __always_inline int insert(const struct packet *packet, const struct start *start, u64 now, u64 bits,
				  struct per_cpu *cpu, u32 ifindex)
{
	struct conn *conn = draft(cpu, now);
	int error;

	if (!conn)
		return -ENOMEM;
	u64 position = take_position();

	__builtin_memset(conn, 0, sizeof(*conn));
	conn->packets[ORIGINAL] = packet->packets;
	conn->bytes[ORIGINAL] = packet->bytes;
	fill(conn, packet, start, now, bits, cpu, ifindex);
	conn->fresh = position;
	error = publish(&packet->tuple, conn, now + start->timeout, now);
	if (!error) {
		count(cpu, COUNT_CREATED, 1);
		count_live(1);
		remember(conn, position);
	}
	return error;
}

/* What follows a packet's count, and what the packet earned: a new stamp. */
static __always_inline void stamp(struct conn *conn, u64 expires, u64 until, struct per_cpu *cpu)
{
	/* Fails if somebody stamped it in the meantime, which is as good, or claimed it. */
	if (until != expires)
		__sync_val_compare_and_swap(&conn->expires, expires, until);
	/* Ended while we counted: whoever ended it may have taken the counters before our adds. */
	if (unlikely(READ_ONCE(conn->expires) == EXPIRES_CLAIMED))
		move_counters(conn, cpu);
}

/* Counts a packet, or several, on a live connection that was seen to expire at `expires`, and stamps it anew. */
static __always_inline void add(struct conn *conn, u64 direction, u64 packets, u64 bytes, u64 expires, u64 until,
				struct per_cpu *cpu)
{
	u64 before;

	__sync_fetch_and_add(&conn->packets[direction & 1], packets);
	/* Its value is asked for, though nobody needs it: then this orders what comes before and after on every machine. */
	before = __sync_fetch_and_add(&conn->bytes[direction & 1], bytes);
	asm volatile("" : : "r"(before));
	stamp(conn, expires, until, cpu);
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Fragments count on the connection of their packet, as they are on the wire. Only the first one has ports: it leaves its connection in
 * `datagrams`, where later ones find it. One that comes before it is counted as COUNT_FRAGMENT, and held there; the first one takes
 * what is held off that counter, and adds it to the connection. What is held and never asked for (the first never came, the entry
 * was given to another packet, it is too old) stays where it is counted. So each is counted once, at every moment.
 * Fragments change neither state nor timeout: the first one has done that. Whether some of them overlap is not looked at. */
#ifndef CTWEB_FRAGMENTS_H
#define CTWEB_FRAGMENTS_H

enum { DATAGRAMS = 4096 };	/* packets in fragments, on their way at a time */
enum { REASSEMBLY_IPV4 = 30, REASSEMBLY_IPV6 = 60 };	/* seconds that the kernel waits for the rest */

/* A packet's sender, receiver and id (packet.datagram) -> its connection. Written and read by the aside programs. When it is full, the
 * one that was not asked for longest gives way; who still has a pointer to it then finds another packet's entry there. What it holds
 * there by mistake is counted as COUNT_FRAGMENT like all that is held, so the sums stay right. */
BPF_TABLE("lru_hash", struct tuple, struct datagram, datagrams, DATAGRAMS);

static __always_inline bool is_over(const struct datagram *datagram, u64 family, u64 now)
{
	u64 seconds = family == 4 ? REASSEMBLY_IPV4 : REASSEMBLY_IPV6;

	return datagram->since + seconds * 1000000000 <= now;
}

/* The connection of a packet whose first fragment was there. While that is written anew for a later packet with the same id, the tuple
 * may be a mixture of both: no connection has it, or not with this id. */
static __always_inline struct conn *conn_of(struct datagram *datagram, u64 now)
{
	struct tuple tuple = datagram->tuple;
	struct conn *conn = find(&tuple);

	if (conn && (READ_ONCE(conn->id) != READ_ONCE(datagram->id) || READ_ONCE(conn->expires) <= now))
		conn = 0;
	asm volatile("" : "+r"(conn));	/* as in living() */
	return conn;
}

static __always_inline void add_fragments(struct conn *conn, const struct datagram *datagram, u64 packets, u64 bytes, struct per_cpu *cpu)
{
	u64 direction = (datagram->from_hi ^ READ_ONCE(conn->status)) & STATUS_SWAPPED;

	/* No stamp. Should it end or be started anew meanwhile, add() sees to it. */
	add(conn, direction, packets, bytes, 0, 0, cpu);
}

/* What was held goes to the connection, each count by whoever exchanges it out. */
static __always_inline void join(struct datagram *datagram, u64 now, struct per_cpu *cpu)
{
	struct conn *conn = conn_of(datagram, now);

	if (!conn)
		return;
	u64 packets = __sync_lock_test_and_set(&datagram->packets, 0);
	u64 bytes = __sync_lock_test_and_set(&datagram->bytes, 0);

	if (!(packets | bytes))
		return;
	add_fragments(conn, datagram, packets, bytes, cpu);
	count(cpu, COUNT_FRAGMENT, -packets);
	count(cpu, COUNT_UNTRACKED_BYTES, -bytes);
}

/* The entry of the packet's datagram that was there. Null: there was none, and `new` is there now, or no memory. */
static __always_inline struct datagram *enter(struct packet *packet, struct datagram *new)
{
	struct datagram *datagram = datagrams.lookup(&packet->datagram);

	if (datagram || !datagrams.insert(&packet->datagram, new))
		return datagram;
	return datagrams.lookup(&packet->datagram);	/* another CPU was first */
}

/* After the packet was counted on the connection under its tuple. */
static __always_inline void see_first_fragment(struct packet *packet, u64 now, struct per_cpu *cpu)
{
	struct conn *conn = find(&packet->tuple);
	struct datagram *new = &cpu->datagram, *datagram;

	if (!conn)
		return;
	new->tuple = packet->tuple;
	new->id = READ_ONCE(conn->id);
	new->since = now;
	new->from_hi = packet->from_hi;
	new->packets = 0;
	new->bytes = 0;
	datagram = enter(packet, new);
	if (!datagram)
		return;
	if (is_over(datagram, packet->datagram.family, now)) {
		/* What it holds is of an earlier packet. */
		__sync_lock_test_and_set(&datagram->packets, 0);
		__sync_lock_test_and_set(&datagram->bytes, 0);
	}
	datagram->since = now;
	datagram->from_hi = packet->from_hi;
	datagram->tuple = packet->tuple;
	/* The exchange orders: what somebody holds who sees no id afterwards, is seen here. */
	__sync_lock_test_and_set(&datagram->id, new->id);
	join(datagram, now, cpu);
}

static __always_inline void see_fragment(struct packet *packet, u64 now, struct per_cpu *cpu)
{
	struct datagram *new = &cpu->datagram, *datagram = datagrams.lookup(&packet->datagram);
	struct conn *conn;

	if (datagram && READ_ONCE(datagram->id) && !is_over(datagram, packet->datagram.family, now)) {
		conn = conn_of(datagram, now);
		if (conn)
			add_fragments(conn, datagram, packet->packets, packet->bytes, cpu);
		else
			count_untracked(cpu, COUNT_FRAGMENT, packet);
		return;
	}
	count_untracked(cpu, COUNT_FRAGMENT, packet);
	/* Two CPUs may do this at the same time: what one of them holds is then forgotten, and stays counted as it is. */
	if (datagram && is_over(datagram, packet->datagram.family, now))
		datagrams.delete(&packet->datagram);
	__builtin_memset(new, 0, sizeof(*new));
	new->since = now;
	new->packets = packet->packets;
	new->bytes = packet->bytes;
	datagram = enter(packet, new);
	if (!datagram)
		return;
	__sync_fetch_and_add(&datagram->packets, packet->packets);
	u64 before = __sync_fetch_and_add(&datagram->bytes, packet->bytes);
	asm volatile("" : : "r"(before));	/* as in add(): orders */
	if (READ_ONCE(datagram->id))
		join(datagram, now, cpu);
}

#endif

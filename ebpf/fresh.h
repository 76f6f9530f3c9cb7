/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The ring of new connections, in the order they came: where a full table finds its oldest ones (room.h). */
#ifndef CTWEB_FRESH_H
#define CTWEB_FRESH_H

static __always_inline u64 fresh_cells(void)
{
	u32 zero = 0;
	struct size *sized = size.lookup(&zero);

	return sized ? sized->fresh_cells : 0;
}

/* The number of a new connection's place, and one. Written and read by the packet programs when connections are made. */
BPF_TABLE("array", u32, u64, fresh, SIZED_AT_START);

static __always_inline u64 take_place(const struct tuple *tuple)
{
	u32 zero = 0;
	struct shared *all = shared.lookup(&zero);

	return all ? __sync_fetch_and_add(&all->fresh_head, 1) : 0;
}

static __always_inline void remember(const struct tuple *tuple, struct conn *conn, u64 position)
{
	u64 cells = fresh_cells();
	u32 index = cells ? position % cells : 0;
	u64 *cell = fresh.lookup(&index);

	if (cell)
		WRITE_ONCE(*cell, place_of(conn)->number + 1);
}

static __always_inline struct conn *recall(u64 position, u64 cells, struct tuple *tuple, u64 *taken, struct per_cpu *cpu)
{
	u32 index = cells ? position % cells : 0;
	u64 *cell = fresh.lookup(&index);
	u64 number = cell ? READ_ONCE(*cell) : 0;

	*taken = 1;
	if (!number)
		return 0;
	struct place *place = place_at(number - 1);
	if (!place)
		return 0;
#ifdef REPLAY
	tuple_of(place, tuple);
#endif
	asm volatile("" : "+r"(place));
	return &place->conn;
}

#endif

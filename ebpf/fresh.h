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

/* The position of a new connection, before it is in the table; and its cell, once it is. */
static __always_inline u64 take_position(void)
{
	u32 zero = 0;
	struct shared *all = shared.lookup(&zero);

	return all ? __sync_fetch_and_add(&all->fresh_head, 1) : 0;
}

static __always_inline void remember(struct conn *conn, u64 position)
{
	u64 cells = fresh_cells();
	u32 index = cells ? position % cells : 0;
	u64 *cell = fresh.lookup(&index);

	if (cell)
		WRITE_ONCE(*cell, place_of(conn)->number + 1);
}

/* The connection that was put at a position, or a later one at its place: conn->fresh tells. */
static __always_inline struct conn *recall(u64 position, u64 cells)
{
	u32 index = cells ? position % cells : 0;
	u64 *cell = fresh.lookup(&index);
	u64 number = cell ? READ_ONCE(*cell) : 0;

	return number ? conn_at(number - 1) : 0;
}

#endif

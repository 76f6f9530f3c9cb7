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

#ifdef TABLE_GROWS

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define FIRST_WORD(lo, hi) ((lo) | (hi) << 32)
#define PAD_SHIFT 56
#else
#define FIRST_WORD(lo, hi) ((lo) >> 32 | (hi))
#define PAD_SHIFT 0
#endif

/* One cell for IPv4, three in a row for IPv6: the ring of a large table has a cell for each connection. When all are IPv6 it remembers
 * the younger third of them. */
struct fresh_cell {
	u64 first;		/* IPv4: the two addresses. IPv6: half of lo_addr. Its other cells: a part of the addresses each */
	u64 last;		/* the last word of the tuple, and in its `pad` the place's seal. IPv6's other cells: the same as `first` */
};
_Static_assert(sizeof(struct fresh_cell) == 16, "four in a cache line");

enum { CELLS_IPV4 = 1, CELLS_IPV6 = 3 };

/* Written and read by the packet programs when connections are made. */
BPF_TABLE("array", u32, struct fresh_cell, fresh, SIZED_AT_START);

static __always_inline struct fresh_cell *fresh_at(u64 position, u64 cells)
{
	u32 index = cells ? position % cells : 0;

	return fresh.lookup(&index);
}

/* By which a cell of an earlier turn is told apart, all but one in 256 of them: what is done with a tuple from here looks whether the
 * connection there is the one of this place (conn->fresh). */
static __always_inline u64 seal(u64 position)
{
	return (position * 0x9e3779b97f4a7c15ULL) >> 56 << PAD_SHIFT;
}

/* The place of a new connection, before it is in the table; and its cells, once it is. */
static __always_inline u64 take_place(const struct tuple *tuple)
{
	u32 zero = 0;
	struct shared *all = shared.lookup(&zero);

	return all ? __sync_fetch_and_add(&all->fresh_head, tuple->family == 4 ? CELLS_IPV4 : CELLS_IPV6) : 0;
}

static __always_inline void write_cell(u64 position, u64 cells, u64 first, u64 last)
{
	struct fresh_cell *cell = fresh_at(position, cells);

	if (!cell)
		return;
	WRITE_ONCE(cell->first, first);
	WRITE_ONCE(cell->last, last);
}

/* A cell may be read while it is written: such a mixture leads to no connection, or to one of another place. */
static __always_inline void remember(const struct tuple *tuple, struct conn *conn, u64 position)
{
	const u64 *word = (const u64 *)tuple;
	u64 cells = fresh_cells(), last = word[4] | seal(position);

	if (tuple->family == 4) {
		write_cell(position, cells, FIRST_WORD(word[0], word[2]), last);
		return;
	}
	write_cell(position + 1, cells, word[1], word[2]);
	write_cell(position + 2, cells, word[3], 0);
	write_cell(position, cells, word[0], last);
}

/* The connection that was put at a position, its tuple, and how many cells they take. What it gives may be a later connection of that tuple;
 * conn->fresh tells. Null, and one cell: there is none any more. */
static __always_inline struct conn *recall(u64 position, u64 cells, struct tuple *tuple, u64 *taken, struct per_cpu *cpu)
{
	u64 *word = (u64 *)tuple;
	struct fresh_cell *cell = fresh_at(position, cells);

	*taken = 1;
	if (!cell)
		return 0;
	u64 first = READ_ONCE(cell->first);

	word[4] = READ_ONCE(cell->last) ^ seal(position);
	if (tuple->pad)
		return 0;
	if (tuple->family == 4) {
		word[0] = TUPLE_IPV4(first & 0xffffffff);
		word[1] = 0;
		word[2] = TUPLE_IPV4(first >> 32);
		word[3] = 0;
		*taken = CELLS_IPV4;
		return find(tuple);
	}
	if (tuple->family != 6)
		return 0;
	struct fresh_cell *second = fresh_at(position + 1, cells), *third = fresh_at(position + 2, cells);
	if (!second || !third)
		return 0;
	word[0] = first;
	word[1] = READ_ONCE(second->first);
	word[2] = READ_ONCE(second->last);
	word[3] = READ_ONCE(third->first);
	*taken = CELLS_IPV6;
	return find(tuple);
}

#else

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
#endif

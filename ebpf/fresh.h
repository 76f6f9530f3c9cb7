/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The ring of new connections, in the order they came: where a full table finds its oldest ones (room.h). */
#ifndef CTWEB_FRESH_H
#define CTWEB_FRESH_H

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define FIRST_WORD(lo, hi) ((lo) | (hi) << 32)
#else
#define FIRST_WORD(lo, hi) ((lo) >> 32 | (hi))
#endif

/* 24 bytes for IPv4, two cells in a row for IPv6: the ring has a cell for each connection. When all are IPv6 it remembers the younger
 * half of them. */
struct fresh_cell {
	u64 word[2];		/* IPv4: the two addresses, then ports, protocol and family. IPv6: lo_addr */
	u64 tag;		/* position << 8 | family. In the second cell, of IPv6: ports, protocol and family */
};

/* Written and read by the packet programs when connections are made. */
BPF_TABLE("array", u32, struct fresh_cell, fresh, SIZED_AT_START);

static __always_inline u64 fresh_cells(void)
{
	u32 zero = 0;
	struct size *sized = size.lookup(&zero);

	return sized ? sized->fresh_cells : 0;
}

static __always_inline struct fresh_cell *fresh_at(u64 position, u64 cells)
{
	u32 index = cells ? position % cells : 0;

	return fresh.lookup(&index);
}

/* The place of a new connection, before it is in the table; and its cell, once it is. A cell may be read while it is written: its
 * tag is right only before and after. */
static __always_inline u64 take_place(const struct tuple *tuple)
{
	u32 zero = 0;
	struct shared *all = shared.lookup(&zero);

	return all ? __sync_fetch_and_add(&all->fresh_head, tuple->family == 4 ? 1 : 2) : 0;
}

static __always_inline void remember(const struct tuple *tuple, u64 position)
{
	const u64 *word = (const u64 *)tuple;
	u64 cells = fresh_cells();
	struct fresh_cell *cell = fresh_at(position, cells), *second = fresh_at(position + 1, cells);
	if (!cell || !second)
		return;
	WRITE_ONCE(cell->tag, 0);
	if (tuple->family == 4) {
		WRITE_ONCE(cell->word[0], FIRST_WORD(word[0], word[2]));
		WRITE_ONCE(cell->word[1], word[4]);
	} else {
		WRITE_ONCE(cell->word[0], word[0]);
		WRITE_ONCE(cell->word[1], word[1]);
		WRITE_ONCE(second->word[0], word[2]);
		WRITE_ONCE(second->word[1], word[3]);
		WRITE_ONCE(second->tag, word[4]);
	}
	WRITE_ONCE(cell->tag, position << 8 | tuple->family);
}

/* The tuple at a position: how many cells it takes, 0 if there is none. */
static __always_inline u64 recall(u64 position, u64 cells, u64 *word)
{
	struct fresh_cell *cell = fresh_at(position, cells);
	if (!cell)
		return 0;
	u64 tag = READ_ONCE(cell->tag);

	if (tag == (position << 8 | 4)) {
		u64 both = READ_ONCE(cell->word[0]);

		word[0] = TUPLE_IPV4(both & 0xffffffff);
		word[1] = 0;
		word[2] = TUPLE_IPV4(both >> 32);
		word[3] = 0;
		word[4] = READ_ONCE(cell->word[1]);
		return READ_ONCE(cell->tag) == tag;
	}
	if (tag != (position << 8 | 6))
		return 0;
	word[0] = READ_ONCE(cell->word[0]);
	word[1] = READ_ONCE(cell->word[1]);
	struct fresh_cell *second = fresh_at(position + 1, cells);
	if (!second)
		return 0;
	word[2] = READ_ONCE(second->word[0]);
	word[3] = READ_ONCE(second->word[1]);
	word[4] = READ_ONCE(second->tag);
	return READ_ONCE(cell->tag) == tag ? 2 : 0;
}

#endif

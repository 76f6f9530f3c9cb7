/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* A full table, or one that has no memory for more: the oldest connection that is not assured gives way, at once and without a search.
 *
 * A ring remembers new connections in the order they came. Its oldest end is where a victim is looked for; what is found there and
 * is assured, over or gone is forgotten on the way. While the table is more than half full each new connection does a little of
 * that forgetting, so that the oldest end is a good victim when one is needed.
 *
 * A victim's place rests before it is used again: another CPU may still be counting on it (docs/architecture.md). So the table has room for
 * some more entries than there are connections. */
#ifndef CTWEB_ROOM_H
#define CTWEB_ROOM_H

enum { ROOM_TRIES = 16, TIDY_TRIES = 2 };

enum room { ROOM_NONE, ROOM_FORGOT, ROOM_MADE };

/* Looks at the oldest end of the ring. Unless it is to `drop`, only forgets what is no victim. */
static __always_inline enum room oldest_gives_way(struct shared *all, u64 cells, struct per_cpu *cpu, u64 now, bool drop)
{
	u64 tail = READ_ONCE(all->fresh_tail), head = READ_ONCE(all->fresh_head);

	if (tail >= head)
		return ROOM_NONE;
	if (head - tail > cells) {
		/* Written over: go on with the oldest that is left. Who loses the exchange finds it done. */
		__sync_val_compare_and_swap(&all->fresh_tail, tail, head - cells);
		return ROOM_FORGOT;
	}
	struct conn *conn = recall(tail, cells);
	u64 expires = conn ? READ_ONCE(conn->expires) : EXPIRES_CLAIMED;
	/* Still the connection that was put there: one that was started anew under its tuple has a later place of its own. */
	bool victim = conn && conn->fresh == (u32)tail && expires != EXPIRES_CLAIMED &&
		      !(READ_ONCE(conn->status) & STATUS_ASSURED && expires > now);

	if (victim && !drop)
		return ROOM_NONE;
	if (__sync_val_compare_and_swap(&all->fresh_tail, tail, tail + 1) != tail)
		return ROOM_FORGOT;		/* another CPU was first */
	if (!victim || !claim(conn, expires))
		return ROOM_FORGOT;
	end(conn, cpu, expires > now ? COUNT_EARLY_DROP : COUNT_EXPIRED);
	take_out(conn, now);
	return ROOM_MADE;
}

/* Before a connection is made. False: the table is full, and nobody can give way. */
static __always_inline bool make_room(struct per_cpu *cpu, u64 now)
{
	u32 zero = 0;
	struct shared *all = shared.lookup(&zero);
	struct size *sized = size.lookup(&zero);
	if (!all || !sized)
		return true;		/* cannot be: the arrays have one element */
	s64 live = READ_ONCE(all->live), most = sized->max_entries;
	bool out_of_places = few_places_left(all, sized->places);

	if (live < most >> 1 && !out_of_places)
		return true;
	/* The verifier would walk the loop for each way that they compare. */
	u64 drop = forget(&cpu->scratch, live >= most || out_of_places);

	for (int i = 0; i < ROOM_TRIES; i++) {
		enum room room = oldest_gives_way(all, sized->fresh_cells, cpu, now, drop);

		if (room == ROOM_MADE)
			return true;
		if (room == ROOM_NONE || (!drop && i + 1 >= TIDY_TRIES))
			break;
	}
	return live < most;
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Entries of a table that is made whole, each at a place with a number. A place that is given back rests for REUSE_TICKS, for somebody may still
 * be counting on the entry that was there; then it is used again before one that never was, so that those in use stay few. */
#ifndef CTWEB_PLACES_H
#define CTWEB_PLACES_H

enum { REUSE_TICKS = 2 };	/* longer than any program runs */

/* The first cache line is all that a UDP packet of a connection needs. */
struct place {
	u64 key[2];		/* see struct key (index.h) */
	struct conn conn;	/* expires EXPIRES_CLAIMED: not in the table, or on its way in or out */
	u64 number;		/* of this place */
	u64 hash;		/* of the tuple */
};
_Static_assert(sizeof(struct place) == 192 && __builtin_offsetof(struct conn, window) == 48, "struct place: three cache lines");

/* Both written by the packet programs and the reaper; read by user space in batches, up to shared.places_used. */
BPF_F_TABLE("array", u32, struct place, places, SIZED_AT_START, BPF_F_MMAPABLE);

/* Addresses of IPv6, of which the key is a hash. */
struct addresses {
	__be32 lo[4];
	__be32 hi[4];
};
BPF_F_TABLE("array", u32, struct addresses, addresses, SIZED_AT_START, BPF_F_MMAPABLE);

/* Places that were given back, as a ring; 0: none, otherwise a place's number and one. Written and read by the packet programs and the
 * reaper. It has room for all places, so none is written over. */
BPF_TABLE("array", u32, u64, spare_places, SIZED_AT_START);

static __always_inline struct place *place_at(u32 number)
{
	return places.lookup(&number);
}

static __always_inline struct place *place_of(struct conn *conn)
{
	return (void *)conn - __builtin_offsetof(struct place, conn);
}

/* A place that was given back goes to the end of the ring. */
static __always_inline void give_back(struct place *place, u64 now, struct shared *all, u64 places_there)
{
	place->conn.created = now;
	u32 at = __sync_fetch_and_add(&all->spare_tail, 1) % places_there;
	u64 *spare = spare_places.lookup(&at);

	if (spare)
		__sync_lock_test_and_set(spare, place->number + 1);	/* orders what stands in the place before it */
}

/* How many have an entry, or are on their way to one. */
static __always_inline u64 places_in_use(const struct shared *all)
{
	return READ_ONCE(all->places_used) + READ_ONCE(all->spare_head) - READ_ONCE(all->spare_tail);
}

/* A place's number and one; 0: there is none. The one that was given back first, if that was long enough ago, or else a new one. */
static __always_inline u64 take_place_number(u64 now, struct shared *all, u64 places_there)
{
	u64 head = READ_ONCE(all->spare_head);
	u32 at = head % places_there;
	u64 *spare = head < READ_ONCE(all->spare_tail) ? spare_places.lookup(&at) : 0;
	u64 found = spare ? READ_ONCE(*spare) : 0;	/* 0: who gives it back has not written it yet */
	struct place *place = found ? place_at(found - 1) : 0;

	if (place && place->conn.created + REUSE_TICKS * TICK_NSEC <= now &&
	    __sync_val_compare_and_swap(&all->spare_head, head, head + 1) == head)
		return __sync_lock_test_and_set(spare, 0);
	if (READ_ONCE(all->places_used) >= places_there)
		return 0;
	/* Several CPUs at the end of the table may come too far together: it stays a little beyond the end. */
	found = __sync_fetch_and_add(&all->places_used, 1) + 1;
	return found <= places_there ? found : 0;
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Entries of the table, each at a place with a number. A place that is given back rests for REUSE_TICKS, for somebody may still be counting on
 * the entry that was there; then it is used again before one that never was, so that those in use stay few.
 * The memory of all places is there from the start, or comes in chunks of CHUNK places (TABLE_GROWS): user space makes them ahead of need
 * (ctweb/datapath/growth.py). A chunk stays where it is until the program ends. */
#ifndef CTWEB_PLACES_H
#define CTWEB_PLACES_H

enum { REUSE_TICKS = 2 };	/* longer than any program runs */
enum { FEW_PLACES = 4096 };	/* half a million are taken in a second, if ticks are of 4 ms */

/* The first cache line is all that a UDP packet of a connection needs. */
struct place {
	u64 key[2];		/* see struct key (index.h) */
	struct conn conn;	/* expires EXPIRES_CLAIMED: not in the table, or on its way in or out */
	u64 number;		/* of this place */
	u64 hash;		/* of the tuple */
};
_Static_assert(sizeof(struct place) == 192 && __builtin_offsetof(struct conn, window) == 48, "struct place: three cache lines");

/* Addresses of IPv6, of which the key is a hash. */
struct addresses {
	__be32 lo[4];
	__be32 hi[4];
};

/* Both written by the packet programs and the reaper; read by user space in batches, up to shared.places_used. */
BPF_F_TABLE("array", u32, struct place, places, SIZED_AT_START, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct addresses, addresses, SIZED_AT_START, BPF_F_MMAPABLE);

#ifdef TABLE_GROWS
/* Each chunk of the two above, by its number, where it has been made. Written by user space, addresses first: where places are, they are too. */
BPF_ARRAY_OF_MAPS(place_chunks, "places", SIZED_AT_START);
BPF_ARRAY_OF_MAPS(address_chunks, "addresses", SIZED_AT_START);

/* How many places have been used: a word each time that it has grown by some, to wake user space. Written by the packet programs, which lose
 * what it has no room for: then there is enough to wake it already. */
BPF_RINGBUF_OUTPUT(growth, 1);

#define CHUNK (1u << CHUNK_SHIFT)
#define TELL_EVERY (CHUNK / 16)
/* At most so many programs may each take the place behind the last one that they have seen used, before any of them sees another's. */
#define AT_ONCE (2u << CPU_BITS)
_Static_assert(AT_ONCE <= CHUNK, "the chunk that is looked for is one further at most");

static __always_inline void *element_of(void *chunk, u32 number)
{
	u32 at = number & (CHUNK - 1);

	return chunk ? bpf_map_lookup_elem(chunk, &at) : 0;
}

static __always_inline struct place *place_at(u32 number)
{
	int chunk = number >> CHUNK_SHIFT;

	return element_of(place_chunks.lookup(&chunk), number);
}

static __always_inline struct addresses *addresses_at(u32 number)
{
	int chunk = number >> CHUNK_SHIFT;

	return element_of(address_chunks.lookup(&chunk), number);
}

/* Is there memory for the place that comes after so many? */
static __always_inline bool may_use_after(u64 used, u64 places_there)
{
	u64 last = used + AT_ONCE < places_there ? used + AT_ONCE : places_there - 1;
	int chunk = last >> CHUNK_SHIFT;

	return place_chunks.lookup(&chunk);
}

/* No memory for more, and of the places that were given back so few that they may all be at rest: one is to be given back for each that is
 * taken. */
static __always_inline bool few_places_left(const struct shared *all, u64 places_there)
{
	u64 used = READ_ONCE(all->places_used);

	return unlikely(used < places_there && !may_use_after(used, places_there)) &&
	       READ_ONCE(all->spare_tail) - READ_ONCE(all->spare_head) < FEW_PLACES;
}

static __always_inline void tell_growth(u64 used)
{
	if (unlikely(!(used & (TELL_EVERY - 1))))
		growth.ringbuf_output(&used, sizeof(used), 0);
}

#else

static __always_inline struct place *place_at(u32 number)
{
	return places.lookup(&number);
}

static __always_inline struct addresses *addresses_at(u32 number)
{
	return addresses.lookup(&number);
}

static __always_inline bool may_use_after(u64 used, u64 places_there)
{
	return true;
}

static __always_inline bool few_places_left(const struct shared *all, u64 places_there)
{
	return false;
}

static __always_inline void tell_growth(u64 used)
{
}

#endif

/* Places that were given back, as a ring; 0: none, otherwise a place's number and one. Written and read by the packet programs and the
 * reaper. It has room for all places, so none is written over. */
BPF_TABLE("array", u32, u64, spare_places, SIZED_AT_START);

/* The entry at a place; null: there is no such place. */
static __always_inline struct conn *conn_at(u32 number)
{
	struct place *place = place_at(number);

	if (!place)
		return 0;
	asm volatile("" : "+r"(place));	/* the compiler would add before it asks, which the verifier does not like */
	return &place->conn;
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
	u64 used = READ_ONCE(all->places_used);

	if (used >= places_there || !may_use_after(used, places_there))
		return 0;
	/* Several CPUs at the end of the table may come too far together: it stays a little beyond the end. */
	found = __sync_fetch_and_add(&all->places_used, 1) + 1;
	tell_growth(found);
	return found <= places_there ? found : 0;
}

#endif

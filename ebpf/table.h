/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The table of connections: find() an entry by its tuple, publish() a draft(), take_out(). Entries stand in places (places.h), and an index
 * of our own (index.h) leads to them. A packet touches two cache lines that another connection's has not, one of the index and one of the
 * entry, and calls nothing; with the kernel's hash map they would be four or five, behind a call that hashes and compares by the byte.
 * docs/benchmarks.md says what that saves. */
#ifndef CTWEB_TABLE_H
#define CTWEB_TABLE_H

enum { ENOMEM = 12, EEXIST = 17 };

#include "places.h"
#include "index.h"

enum { RIVAL_SPINS = 128 };

/* An entry may be taken out, and its place used again, while it is looked at. Who has compared the key and then finds the entry alive may count
 * on it: its place is not used again before REUSE_TICKS after its end. */
static __always_inline struct conn *find(const struct tuple *tuple)
{
	struct place *place;
	struct bucket *bucket;
	struct key key;
	u32 number;
	u64 cell;

	if (!make_key(tuple, &key))
		return 0;
	bucket = bucket_of(&key, key.guess);
	if (!bucket)
		return 0;
	cell = READ_ONCE(*first_pair(bucket, &key));
	if ((cell ^ key.tag) & key.tag_mask)
		cell >>= 32;
	if (likely(!((cell ^ key.tag) & key.tag_mask))) {
		number = place_number(cell, &key);
		place = place_at(number);
		if (likely(place && has_key(place, number, &key, tuple)))
			return &place->conn;
	}
	/* In another pair, further on, or it shares the tag with another one. */
	cell = cell_of(tuple, &key, VISITS);
	if (!cell)
		return 0;
	return conn_at(place_number(cell, &key));
}

/* As find(), for programs that look for many: what follows is the same to the verifier, however it was found. */
static __always_inline struct conn *find_each(const struct tuple *tuple, struct per_cpu *cpu)
{
	struct key key;

	if (!make_key(tuple, &key))
		return 0;
	u64 cell = forget(&cpu->scratch, cell_of(tuple, &key, VISITS));

	if (!cell)
		return 0;
	return conn_at(place_number(cell, &key));
}

#ifdef REPLAY
/* What a connection that ends is told by. */
static __always_inline void tuple_of(struct place *place, struct tuple *tuple)
{
	u64 *word = (u64 *)tuple;
	u32 number = place->number;
	const u64 *there = (const u64 *)addresses_at(number);

	word[4] = place->key[1];
	if (tuple->family == 4) {
		word[0] = TUPLE_IPV4(LO_IPV4(place->key[0]));
		word[2] = TUPLE_IPV4(HI_IPV4(place->key[0]));
		word[1] = word[3] = 0;
	} else if (there) {
		word[0] = there[0];
		word[1] = there[1];
		word[2] = there[2];
		word[3] = there[3];
	}
}
#endif

/* Where a new entry is put together, for publish(): its place, of which it leaves `expires` as it is. Null: there is no room. */
static __always_inline struct conn *draft(struct per_cpu *cpu, u64 now)
{
	u32 zero = 0;
	struct shared *all = shared.lookup(&zero);
	struct size *sized = size.lookup(&zero);

	if (!all || !sized || !sized->places)
		return 0;
	guess_where(places_in_use(all), sized);
	u64 number = take_place_number(now, all, sized->places);
	if (!number)
		return 0;
	struct place *place = place_at(number - 1);
	if (!place)
		return 0;
	asm volatile("" : "+r"(place));
	place->number = number - 1;
	return &place->conn;
}

/* Two CPUs may have linked an entry for the same tuple at the same time. Each looks for the other after it has linked its own: who looks
 * later sees the other, or both do. The one that is alive stays; of two that are not yet, the one at the lower place. False: ours is to
 * go. */
static __always_inline bool is_first(const struct key *key, u64 cell, u64 rival)
{
	if (likely(!rival))
		return true;
	struct place *place = place_at(place_number(rival, key));

	if (!place || rival < cell)	/* their tags are the same */
		return false;
	for (u32 i = 0; i < RIVAL_SPINS; i++) {
		if (!READ_ONCE(place->key[1]))
			return true;		/* it has seen ours, and gone */
		if (READ_ONCE(place->conn.expires) != EXPIRES_CLAIMED)
			return false;
		pause();
	}
	return false;
}

/* The draft is in the table from here on. Not 0: it is not, and its place is given back, for there is no room or (-EEXIST) its tuple is there
 * already. */
static __always_inline int publish(const struct tuple *tuple, struct conn *conn, u64 expires, u64 now)
{
	const u64 *word = (const u64 *)tuple;
	struct place *place = place_of(conn);
	u32 number = place->number, zero = 0;
	struct shared *all = shared.lookup(&zero);
	struct size *sized = size.lookup(&zero);
	struct key key;
	int error = 0;

	if (!all || !sized || !sized->places || !make_key(tuple, &key))
		return -ENOMEM;		/* cannot be: the arrays have one element */
	u64 cell = key.tag | (number + 1), rival = 0;

	place->key[0] = key.word[0];
	place->key[1] = key.word[1];
	place->hash = key.hash;
	if (tuple->family != 4) {
		u64 *there = (u64 *)addresses_at(number);

		if (there) {
			there[0] = word[0];
			there[1] = word[1];
			there[2] = word[2];
			there[3] = word[3];
		}
	}
	if (!link_cell(tuple, &key, cell, &rival))
		error = -ENOMEM;
	else if (!is_first(&key, cell, rival))
		error = -EEXIST;
	if (likely(!error)) {
		/* An exchange, for it orders all of the above before the entry is alive. */
		__sync_lock_test_and_set(&conn->expires, expires);
		return 0;
	}
	unlink_cell(&key, cell);
	__sync_lock_test_and_set(&place->key[1], 0);
	give_back(place, now, all, sized->places);
	return error;
}

/* Of an entry that is over, by the owner of its claim. */
static __always_inline void take_out(struct conn *conn, u64 now)
{
	u32 zero = 0;
	struct place *place = place_of(conn);
	struct shared *all = shared.lookup(&zero);
	struct size *sized = size.lookup(&zero);

	if (!all || !sized || !sized->places)
		return;
	struct key key = {
		.hash = place->hash, .tag = tag_of(place->hash, sized), .bucket_mask = sized->bucket_mask,
	};

	unlink_cell(&key, key.tag | (place->number + 1));
	give_back(place, now, all, sized->places);
}

#endif

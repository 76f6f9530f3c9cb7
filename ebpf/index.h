/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The index of the table: open addressing by buckets of a cache line, fourteen cells and how many entries have passed over
 * this bucket because it was full. A tuple's hash gives the order in which its buckets are visited; the visit ends at the first one that none
 * has passed over. A cell is taken and given back by one atomic operation and never moves, so nobody waits for anybody.
 * The first bucket of each tuple is one of the NEAR_BUCKETS, the others are of the rest, the far ones: some ten thousand connections, in a
 * table for a million, so are found in memory that a processor's second cache holds. */
#ifndef CTWEB_INDEX_H
#define CTWEB_INDEX_H

enum { PAIRS = 7 };		/* of cells, in a bucket */
enum { VISITS = 6 };		/* buckets at most: when the table is full, one tuple in twenty millions finds all of them full */
/* More entries than the one, and find() looks among the far buckets first, where most are by then; fewer than the other, and it looks among
 * the near ones again. */
enum { MOSTLY_FAR = 1 << 16, MOSTLY_NEAR = 3 << 14 };

struct bucket {
	u64 passed;		/* entries that are further on, for they found no room here; atomic adds */
	u64 pair[PAIRS];	/* two cells each. A cell: some bits of the tuple's hash (size.tag_mask), and below them a place's number and one;
				 * 0: it is free */
};
_Static_assert(sizeof(struct bucket) == 64, "struct bucket: a cache line");

/* Written and read by the packet programs and the reaper. The values of a map with BPF_F_MMAPABLE begin at a page: so each bucket is a whole
 * cache line, and a place three of them. */
BPF_F_TABLE("array", u32, struct bucket, buckets, SIZED_AT_START, BPF_F_MMAPABLE);

/* What is compared: of IPv4 both addresses as they stand in the tuple, of IPv6 a hash of them; and the tuple's last word. */
struct key {
	u64 word[2];
	u64 hash;		/* its lower half says which buckets are visited, */
	u64 tag;		/* its upper one what stands in the cell */
	u64 tag_mask;
	u64 bucket_mask;
	u64 guess;		/* the visit that most entries are found at */
};

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BOTH_IPV4(lo, hi) ((lo) | (hi) << 32)
#define LO_IPV4(both) ((both) & 0xffffffff)
#define HI_IPV4(both) ((both) >> 32)
#else
#define BOTH_IPV4(lo, hi) ((lo) | (hi) >> 32)
#define LO_IPV4(both) ((both) >> 32)
#define HI_IPV4(both) ((both) & 0xffffffff)
#endif

static __always_inline u64 stir(u64 hash, u64 word, u64 odd)
{
	hash = (hash ^ word) * odd;
	return hash ^ hash >> 32;
}

/* Its lowest bit is set, so that no free cell looks like one with a tag. */
static __always_inline u64 tag_of(u64 hash, const struct size *sized)
{
	return (hash >> 32 | ~sized->tag_mask + 1) & sized->tag_mask;
}

/* The seed is a secret of this table: nobody outside can choose tuples that share buckets. If some do, a packet visits VISITS buckets at most,
 * and a connection that finds all of them full is refused, and counted so. */
static __always_inline bool make_key(const struct tuple *tuple, struct key *key)
{
	const u64 *word = (const u64 *)tuple;
	u32 zero = 0;
	struct size *sized = size.lookup(&zero);
	u64 hash;

	if (!sized)
		return false;		/* cannot be: the array has one element */
	key->word[1] = word[4];
	if (likely(tuple->family == 4)) {
		key->word[0] = BOTH_IPV4(word[0], word[2]);
	} else {
		hash = stir(sized->seed[0], word[0], 0x9e3779b97f4a7c15ULL);
		hash = stir(hash, word[1], 0xff51afd7ed558ccdULL);
		hash = stir(hash, word[2], 0xc4ceb9fe1a85ec53ULL);
		key->word[0] = stir(hash, word[3], 0x9e3779b97f4a7c15ULL);
	}
	hash = stir(sized->seed[0], key->word[0], 0x9e3779b97f4a7c15ULL);
	hash = stir(hash, key->word[1] ^ sized->seed[1], 0xff51afd7ed558ccdULL);
	key->hash = stir(hash, 0, 0xc4ceb9fe1a85ec53ULL);
	key->tag_mask = sized->tag_mask;
	key->bucket_mask = sized->bucket_mask;
	key->guess = READ_ONCE(sized->mostly_far);
	key->tag = tag_of(key->hash, sized);
	return true;
}

/* By whoever puts an entry in. Several CPUs may disagree for a moment: what is looked at first changes no answer. */
static __always_inline void guess_where(u64 entries, struct size *sized)
{
	if (unlikely(entries > MOSTLY_FAR && !sized->mostly_far))
		WRITE_ONCE(sized->mostly_far, 1);
	else if (unlikely(entries < MOSTLY_NEAR && sized->mostly_far))
		WRITE_ONCE(sized->mostly_far, 0);
}

/* The bucket that is visited as the n-th. */
static __always_inline struct bucket *bucket_of(const struct key *key, u32 visit)
{
	u32 near = key->hash >> 32 & (NEAR_BUCKETS - 1);
	u32 far = key->hash + visit * (key->hash >> 40 | 1);
	u32 at = visit ? NEAR_BUCKETS + (far & (u32)key->bucket_mask) : near;

	return buckets.lookup(&at);
}

/* Which pair a tuple's cell is in, if there is room: it is looked at first. */
static __always_inline u64 first_pair_number(const struct key *key)
{
	return (key->hash >> 48) * PAIRS >> 16;
}

static __always_inline u64 *first_pair(struct bucket *bucket, const struct key *key)
{
	u64 at = first_pair_number(key);

	asm volatile("" : "+r"(at));	/* the compiler would fold the shifts, and the verifier lose the bound */
	return &bucket->pair[at < PAIRS ? at : 0];
}

static __always_inline u32 place_number(u64 cell, const struct key *key)
{
	return (cell & 0xffffffff & ~key->tag_mask) - 1;
}

static __always_inline bool has_key(struct place *place, u32 number, const struct key *key, const struct tuple *tuple)
{
	const u64 *word = (const u64 *)tuple;

	if (place->key[0] != key->word[0] || place->key[1] != key->word[1])
		return false;
	if (likely(tuple->family == 4))
		return true;
	const u64 *there = (const u64 *)addresses_at(number);

	return there && there[0] == word[0] && there[1] == word[1] && there[2] == word[2] && there[3] == word[3];
}

/* All ones if these 32 bits are zero, or else 0. Without a branch, as all that follows: the verifier walks each way through a bucket. */
static __always_inline u64 if_zero(u64 value)
{
	value--;
	asm volatile("" : "+r"(value));
	return (s64)value >> 63;
}

static __always_inline void choose(u64 *chosen, u64 candidate, u64 mask)
{
	*chosen ^= (*chosen ^ candidate) & mask;
}

#define EACH_PAIR(look) look(0); look(1); look(2); look(3); look(4); look(5); look(6)

/* A cell with this tag in the bucket that is not `but`; 0: there is none. There are no two, but for rivals (is_first()). */
static __always_inline u64 tagged_cell(struct bucket *bucket, const struct key *key, u64 but)
{
	u64 cell = 0, pair, half;

	/* Pair after pair: newer compilers would fetch all of them first, for which the stack is too short. */
#define LOOK(n) pair = READ_ONCE(bucket->pair[n]);							\
	asm volatile("" : "+r"(cell), "+r"(pair));						\
	half = pair & 0xffffffff;									\
	choose(&cell, half, if_zero((half ^ key->tag) & key->tag_mask) & ~if_zero(half ^ but));	\
	half = pair >> 32;										\
	choose(&cell, half, if_zero((half ^ key->tag) & key->tag_mask) & ~if_zero(half ^ but))
	EACH_PAIR(LOOK);
#undef LOOK
	return cell;
}

/* The cell of an entry under this tuple in another bucket than that of visit `but`; 0: there is none. */
static __always_inline u64 cell_of(const struct tuple *tuple, const struct key *key, u32 but)
{
	for (u32 visit = 0; visit < VISITS; visit++) {
		struct bucket *bucket = bucket_of(key, visit);

		if (!bucket)
			return 0;
		if (visit != but) {
			u64 cell = tagged_cell(bucket, key, 0);
			u32 number = place_number(cell, key);
			struct place *place = cell ? place_at(number) : 0;

			if (place && has_key(place, number, key, tuple))
				return cell;
		}
		if (!READ_ONCE(bucket->passed))
			return 0;
	}
	return 0;
}

/* Puts the cell into a pair that has a half to spare. Not if another CPU is faster. */
static __always_inline bool put_cell(u64 *pair, u64 cell)
{
	u64 seen = READ_ONCE(*pair);

	if (!(seen & 0xffffffff))
		return __sync_val_compare_and_swap(pair, seen, seen | cell) == seen;
	if (!(seen >> 32))
		return __sync_val_compare_and_swap(pair, seen, seen | cell << 32) == seen;
	return false;
}

/* All ones if the pair has a half to spare, or else 0. */
static __always_inline u64 if_room(u64 pair)
{
	return if_zero(pair & 0xffffffff) | if_zero(pair >> 32);
}

/* A pair that has a half to spare, the tuple's first one if that has; PAIRS: there is none. */
static __always_inline u64 spare_pair(struct bucket *bucket, const struct key *key)
{
	u64 found = PAIRS;

#define LOOK(n) choose(&found, n, if_room(READ_ONCE(bucket->pair[n])))
	EACH_PAIR(LOOK);
#undef LOOK
	choose(&found, first_pair_number(key), if_room(READ_ONCE(*first_pair(bucket, key))));
	return found;
}

/* Which half of the bucket holds this cell: twice the number of its pair, and one for the upper half; 2 * PAIRS: none. */
static __always_inline u64 half_with(struct bucket *bucket, u64 cell)
{
	u64 found = 2 * PAIRS, pair;

#define LOOK(n) pair = READ_ONCE(bucket->pair[n]);			\
	choose(&found, 2 * n, if_zero((pair & 0xffffffff) ^ cell));	\
	choose(&found, 2 * n + 1, if_zero(pair >> 32 ^ cell))
	EACH_PAIR(LOOK);
#undef LOOK
	return found;
}

/* Takes this half out. Nobody else changes it, whatever becomes of the other. */
static __always_inline void clear_half(struct bucket *bucket, u64 half)
{
	__sync_fetch_and_and(&bucket->pair[half >> 1], half & 1 ? 0xffffffffULL : ~0xffffffffULL);
}

/* Puts the cell into the first bucket that has room, and no other tuple's with the same tag: of two with the same tag, find() sees one. Gives
 * the cell of a rival, if another CPU has just linked an entry for the same tuple. */
static __always_inline bool link_cell(const struct tuple *tuple, const struct key *key, u64 cell, u64 *rival)
{
	for (u32 visit = 0; visit < VISITS; visit++) {
		struct bucket *bucket = bucket_of(key, visit);

		if (!bucket)
			return false;
		u64 at = spare_pair(bucket, key);

		if (at < PAIRS && likely(!tagged_cell(bucket, key, 0))) {
			/* Another CPU may take the half first: then this bucket counts as full. */
			if (likely(put_cell(&bucket->pair[at], cell))) {
				/* Both look after they have put theirs: at least one sees the other. */
				u64 same = tagged_cell(bucket, key, cell);

				if (likely(!same)) {
					*rival = visit || READ_ONCE(bucket->passed) ? cell_of(tuple, key, visit) : 0;
					return true;
				}
				u32 number = place_number(same, key);
				struct place *place = place_at(number);

				if (place && has_key(place, number, key, tuple)) {
					*rival = same;
					return true;
				}
				at = half_with(bucket, cell);
				if (at < 2 * PAIRS)
					clear_half(bucket, at);
			}
		}
		__sync_fetch_and_add(&bucket->passed, 1);
	}
	return false;
}

/* Takes the cell out, and back what link_cell() has noted on its way to it, which was all the way if it found no room. Who looks for the
 * tuple meanwhile may not get as far as the cell: what it leads to is over. */
static __always_inline void unlink_cell(const struct key *key, u64 cell)
{
	for (u32 visit = 0; visit < VISITS; visit++) {
		struct bucket *bucket = bucket_of(key, visit);

		if (!bucket)
			return;
		u64 half = half_with(bucket, cell);

		if (half < 2 * PAIRS) {
			clear_half(bucket, half);
			return;
		}
		__sync_fetch_and_add(&bucket->passed, -1);
	}
}

#endif

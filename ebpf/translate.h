/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What nf_conntrack knows, put into the table: run by user space through PROG_TEST_RUN with a request as packet data. It writes into
 * each item the id of the item's connection, 0: none is there. Only one such run at a time. */
#ifndef CTWEB_TRANSLATE_H
#define CTWEB_TRANSLATE_H

enum nat_operation {
	NAT_LEARN,		/* nf_conntrack has this entry */
	NAT_FORGET,		/* it has it no more; what is learned stays with the connection that there is */
	NAT_TIDY,		/* no connection was seen for the translation at item.reply: delete it, or lead it to a later one */
};

enum { NAT_ITEMS = 3 };		/* the verifier walks the loop turn by turn */
enum { NAT_HAS_MARK = 1 << 30 };	/* in nat_item.bits: take the mark, which may be 0 */

struct nat_item {
	struct tuple original;	/* of the original direction */
	struct tuple reply;	/* of the other one; the same without NAT */
	u64 id;			/* written here */
	u32 bits;		/* status bits, NAT_HAS_MARK */
	u32 mark;
	u32 standing;		/* see struct translation */
	u16 type;		/* connection-type, 0: leave it */
	u8 from_hi;		/* 1: the original direction goes from original.hi */
	u8 flip;		/* see struct translation */
};
_Static_assert(sizeof(struct nat_item) == 104, "struct nat_item");

struct nat_request {
	u64 now;		/* datapath time */
	u32 operation;
	u32 items;
	struct nat_item item[NAT_ITEMS];
};

/* Swaps the directions of a connection. */
static __always_inline void turn(struct conn *conn)
{
	struct tcp_window window = conn->window[0];
	u64 packets = conn->packets[0], bytes = conn->bytes[0];
	u8 flags = conn->tcp_flags[0];

	conn->window[0] = conn->window[1];
	conn->window[1] = window;
	conn->tcp_flags[0] = conn->tcp_flags[1];
	conn->tcp_flags[1] = flags;
	conn->packets[0] = conn->packets[1];
	conn->packets[1] = packets;
	conn->bytes[0] = conn->bytes[1];
	conn->bytes[1] = bytes;
	conn->tcp_last ^= 1 << 7;
	conn->tcp_scales = conn->tcp_scales >> 4 | conn->tcp_scales << 4;
}

static __always_inline void add_counts(struct conn *to, struct conn *from, u64 direction)
{
	__sync_fetch_and_add(&to->packets[0], from->packets[direction & 1]);
	__sync_fetch_and_add(&to->packets[1], from->packets[~direction & 1]);
	__sync_fetch_and_add(&to->bytes[0], from->bytes[direction & 1]);
	__sync_fetch_and_add(&to->bytes[1], from->bytes[~direction & 1]);
}

/* A connection that stands under the tuple behind the translation: it began before the translation was known. It is moved to where it
 * belongs, or merged into what is there already (`conn`, alive). Packets that come meanwhile find either, or wait for the claim. */
static __always_inline void bring_home(const struct nat_item *item, struct conn *stray, struct conn *conn, u64 now, struct per_cpu *cpu)
{
	u64 expires = READ_ONCE(stray->expires), swapped;
	struct conn *moved = &cpu->moved;	/* not on the stack, which is short */

	if (expires <= now || !claim(stray, expires))
		return;
	*moved = *stray;
	/* Late packets may still be adding: as ever, each count is exchanged out once. What they add from here on, they move to
	 * the totals themselves. */
	for (int i = 0; i < 2; i++) {
		moved->packets[i] = __sync_lock_test_and_set(&stray->packets[i], 0) +
				   __sync_lock_test_and_set(&stray->fasttrack_packets[i], 0);
		moved->bytes[i] = __sync_lock_test_and_set(&stray->bytes[i], 0) +
				 __sync_lock_test_and_set(&stray->fasttrack_bytes[i], 0);
		moved->fasttrack_packets[i] = moved->fasttrack_bytes[i] = 0;
	}
	swapped = conn ? conn->status & STATUS_SWAPPED : item->from_hi & 1;
	if ((moved->status ^ item->flip ^ swapped) & STATUS_SWAPPED)
		turn(moved);
	moved->status = (moved->status & ~(STATUS_SWAPPED | STATUS_FASTTRACK) & (STATUS_STAMP - 1)) | swapped;
	if (moved->packets[REPLY])
		moved->status |= STATUS_SEEN_REPLY;
	if (conn) {
		add_counts(conn, moved, 0);
		/* Its packets may be reading these now. They see a side that has sent nothing, or what it has sent. */
		for (int side = 0; side < 2; side++) {
			if (conn->window[side].max_win)
				continue;
			conn->window[side] = moved->window[side];
			conn->tcp_flags[side] |= moved->tcp_flags[side];
		}
		__sync_fetch_and_or(conn_word(conn), STATUS_BIT(moved->status));
		if (READ_ONCE(conn->expires) == EXPIRES_CLAIMED)
			move_counters(conn, cpu);
		count(cpu, COUNT_MERGED, 1);
	} else {
		struct conn *home = draft(cpu, now);

		moved->expires = EXPIRES_CLAIMED;
		if (home)
			*home = *moved;
		if (!home || publish(&item->original, home, expires, now)) {
			/* No room, or somebody was first. It stays where it is for now. */
			if ((moved->status ^ stray->status ^ item->flip) & STATUS_SWAPPED)
				add_counts(stray, moved, 1);
			else
				add_counts(stray, moved, 0);
			__sync_lock_test_and_set(&stray->expires, expires);
			return;
		}
	}
	take_out(stray, now);
}

static __always_inline struct conn *living(const struct tuple *tuple, u64 now, struct per_cpu *cpu)
{
	struct conn *conn = find_each(tuple, cpu);

	if (conn && READ_ONCE(conn->expires) <= now)
		conn = 0;
	asm volatile("" : "+r"(conn));	/* the compiler would ask for `expires` again, where the verifier asks for the pointer */
	return conn;
}

static __always_inline bool same(const struct tuple *a, const struct tuple *b)
{
	const u64 *x = (const u64 *)a, *y = (const u64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4]));
}

/* Which two call ids make one connection, for packets either way between these ends: nf_conntrack knows calls that began before we did. */
static __always_inline void learn_call(const struct tuple *ends)
{
	for (u64 from_hi = 0; from_hi < 2; from_hi++) {
		struct tuple key;
		u64 sender;

		directed(&key, ends, from_hi);
		sender = key.lo_port;
		key.lo_port = 0;
		calls.update(&key, &sender);
	}
}

/* Is this translation there already? It may be told again, by a later dump or of a later connection. */
static __always_inline bool is_known_translation(const struct tuple *reply, const struct translation *new)
{
	struct translation *old = translation_of(reply);

	return old && same(&old->tuple, &new->tuple) && old->flip == new->flip;
}

static __always_inline void learn(struct nat_item *item, u64 now, struct per_cpu *cpu)
{
	struct conn *conn = living(&item->original, now, cpu);
	u64 bits;

	if (item->original.variant == GRE_CALL) {
		learn_call(&item->original);
		learn_call(&item->reply);
	}
	if (item->bits & (STATUS_SRCNAT | STATUS_DSTNAT)) {
		struct translation new = {
			.tuple = item->original, .id = conn ? conn->id : 0, .standing = item->standing, .flip = item->flip,
		};
		struct conn *stray;

		/* First the way, then who stands in it: packets in between still find the stray, later ones its new place. */
		bool known = is_known_translation(&item->reply, &new);

		if (put_translation(&item->reply, &new))
			count(cpu, COUNT_NAT_REFUSED, 1);
		else if (!known)
			count(cpu, COUNT_NAT_LEARNED, 1);
		stray = living(&item->reply, now, cpu);
		if (stray) {
			bring_home(item, stray, conn, now, cpu);
			conn = living(&item->original, now, cpu);
		}
	}
	item->id = 0;
	if (!conn)
		return;
	bits = item->bits & ~NAT_HAS_MARK;
	if ((conn->status & bits) != bits)
		__sync_fetch_and_or(conn_word(conn), STATUS_BIT(bits));
	/* No mark there is no word about what a rule of ours has given. */
	if (item->bits & NAT_HAS_MARK && (item->mark || conn->status & STATUS_MARK_TOLD))
		conn->mark = item->mark;
	if (item->type)
		conn->type = item->type;
	item->id = conn->id;
}

static __always_inline void delete_translation(const struct tuple *tuple)
{
	void *all = all_translations();

	if (all)
		bpf_map_delete_elem(all, (void *)tuple);
}

/* In the copy of a deleted translation another one may come to stand at once: track.h says why that is harmless. */
static __always_inline void release(struct nat_item *item, u32 operation, u64 now, struct per_cpu *cpu)
{
	struct translation *translation = translation_of(&item->reply);
	struct conn *conn;

	item->id = 0;
	if (!translation)
		return;
	if (operation == NAT_FORGET) {
		if (!same(&translation->tuple, &item->original))
			return;		/* the next one's already */
		translation->standing = 0;
		/* Its port may be another's at any moment: from here on the stack must see every packet. */
		conn = living(&translation->tuple, now, cpu);
		if (conn)
			undecide_fasttrack(conn);
	}
	conn = living(&translation->tuple, now, cpu);
	if (!conn) {
		if (!translation->standing)
			delete_translation(&item->reply);
	} else if (translation->standing || operation == NAT_FORGET) {
		translation->id = item->id = conn->id;
	} else if (translation->id != conn->id) {
		delete_translation(&item->reply);
	}
}

int translate(struct __sk_buff *skb)
{
	struct nat_request *request = (void *)(long)skb->data;
	u32 zero = 0;
	struct per_cpu *cpu = per_cpu.lookup(&zero);

	if (!cpu || (void *)(request + 1) > (void *)(long)skb->data_end)
		return 0;
	for (u32 i = 0; i < NAT_ITEMS; i++) {
		if (i >= request->items)
			break;
		if (request->operation == NAT_LEARN)
			learn(&request->item[i], request->now, cpu);
		else
			release(&request->item[i], request->operation, request->now, cpu);
	}
	return 0;
}

#endif

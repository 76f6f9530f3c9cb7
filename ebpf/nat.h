/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* NAT: the two directions of a translated connection carry different tuples on the wire. The connection stands under the tuple of its
 * original direction; `translations` leads from the other one, which replies carry, to it.
 * It is learned from the connection's first packets, before there can be a reply: at ingress such a packet is offered under a
 * key that stays with it through the machine, and at egress it is met again under that key, with another tuple. What does not
 * pass both hooks is told by user space, from nf_conntrack (translate.h). */
#ifndef CTWEB_NAT_H
#define CTWEB_NAT_H

enum { OFFERS = 1024 };		/* connections on their first way through the machine at a time; a power of two */
enum { OFFER_PACKETS = 16 };	/* of a connection, as long as none has left */
enum { OFFER_CLAIMED = 1 };	/* in offer.key: being written */
#define KEY_HASH (1ULL << 32)	/* a flow hash, in skb->hash */
#define KEY_META (0xc7ebULL << 48) /* a connection's id, in XDP metadata */

struct offer {
	u64 key;
	u64 id;			/* of the connection */
	u64 bytes;		/* what NAT leaves alone; a GSO packet's are counted otherwise here and there, and it is passed over */
	u64 seq;
	u64 from_hi;
	struct tuple tuple;
};

/* What XDP leaves before the frame. */
struct key_meta {
	u64 key;
	u64 overwritten;	/* the kernel copies a link header of 14 bytes as 16, from two bytes before it */
};

/* A slot for each key, the last writer's. Written at ingress, read at egress. */
BPF_TABLE("array", u32, struct offer, offers, OFFERS);

/* A tuple as it is behind the translation -> the connection. Written at egress and by user space's runs of translate(), which also
 * deletes; read by the packet programs for tuples that are not in the table, and by user space in batches. Its buckets alone take
 * 16 bytes for each connection that the table holds, so it is made when translations are first expected (settings.nat). */
BPF_F_TABLE("hash", struct tuple, struct translation, translations, SIZED_AT_START, BPF_F_NO_PREALLOC);

/* One element: `translations`, once it is made. Written by user space, once; read by all programs that look into that one. */
BPF_ARRAY_OF_MAPS(translations_in_use, "translations", 1);

/* NULL: none are expected. */
static __always_inline void *all_translations(void)
{
	int zero = 0;

	return translations_in_use.lookup(&zero);
}

static __always_inline struct translation *translation_of(const struct tuple *tuple)
{
	void *all = all_translations();

	return all ? bpf_map_lookup_elem(all, (void *)tuple) : 0;
}

/* Not 0: there is no room for it. */
static __always_inline long put_translation(const struct tuple *tuple, const struct translation *translation)
{
	void *all = all_translations();

	return all ? bpf_map_update_elem(all, (void *)tuple, (void *)translation, BPF_ANY) : -1;
}

/* The packet as it is on the connection's side of the translation. */
static __always_inline void untranslate(struct packet *packet, const struct translation *translation)
{
	packet->tuple = translation->tuple;
	packet->from_hi ^= translation->flip & 1;
}

/* At ingress, of a connection of which nothing has left yet. Whoever finds the slot claimed leaves it: a later packet or user space
 * makes up for it. */
static __always_inline void offer(const struct packet *packet, u64 id, u64 key)
{
	u32 index = key & (OFFERS - 1);
	struct offer *slot = offers.lookup(&index);
	u64 before;

	if (!slot)
		return;
	before = READ_ONCE(slot->key);
	if (before == OFFER_CLAIMED || __sync_val_compare_and_swap(&slot->key, before, OFFER_CLAIMED) != before)
		return;
	slot->id = id;
	slot->bytes = packet->bytes;
	slot->seq = packet->seq;
	slot->from_hi = packet->from_hi;
	slot->tuple = packet->tuple;
	__sync_lock_test_and_set(&slot->key, key);
}

/* Whether to offer the packet for a translation. */
static __always_inline bool may_offer(const struct per_cpu *cpu)
{
	u32 zero = 0;
	struct settings *in_force;

	if (likely(!cpu->offered))
		return false;
	in_force = settings.lookup(&zero);
	return in_force && in_force->nat;
}

/* XDP has no flow hash to rely on: the key goes before the frame, where it stays until egress. */
static __always_inline void offer_xdp(struct xdp_md *xdp, const struct packet *packet, u64 id)
{
	struct key_meta *meta = (void *)(long)xdp->data_meta;
	u64 key = KEY_META | (id & ((1ULL << 48) - 1));

	if ((void *)meta + 1 <= (void *)(long)xdp->data)
		return;			/* another program's metadata */
	if (bpf_xdp_adjust_meta(xdp, -(int)sizeof(*meta)))
		return;			/* the driver has no room for it */
	meta = (void *)(long)xdp->data_meta;
	if ((void *)(meta + 1) > (void *)(long)xdp->data)
		return;
	meta->key = key;
	meta->overwritten = 0;
	offer(packet, id, key);
}

/* The key under which ingress may have offered the packet: what XDP left before the frame, or its flow hash, which neither routing nor
 * NAT changes. */
static __always_inline u64 offered_key(struct __sk_buff *skb)
{
	struct key_meta *meta = (void *)(long)skb->data_meta;

	if ((void *)(meta + 1) <= (void *)(long)skb->data && meta->key >> 48 == KEY_META >> 48)
		return meta->key;
	return KEY_HASH | skb->hash;
}

/* Not zero if two ends differ. */
static __always_inline u64 differ(const __be32 *a, u64 a_port, const __be32 *b, u64 b_port)
{
	const u64 *x = (const u64 *)a, *y = (const u64 *)b;

	return (x[0] ^ y[0]) | (x[1] ^ y[1]) | (a_port ^ b_port);
}

/* Which ends of a packet are translated: STATUS_SRCNAT, STATUS_DSTNAT, both or 0. It came as `a`, from a's hi if `from_hi`, and is `b` now. */
static __always_inline u64 nat_bits(const struct tuple *a, u64 from_hi, const struct tuple *b, u64 flip)
{
	u64 lo, hi;

	if (flip) {
		lo = differ(a->lo_addr, a->lo_port, b->hi_addr, b->hi_port);
		hi = differ(a->hi_addr, a->hi_port, b->lo_addr, b->lo_port);
	} else {
		lo = differ(a->lo_addr, a->lo_port, b->lo_addr, b->lo_port);
		hi = differ(a->hi_addr, a->hi_port, b->hi_addr, b->hi_port);
	}
	return ((from_hi ? hi : lo) ? STATUS_SRCNAT : 0) | ((from_hi ? lo : hi) ? STATUS_DSTNAT : 0);
}

/* At egress: a packet that was counted at ingress, and is not in the table as it is now. */
static __always_inline void accept_offer(const struct packet *packet, u64 key, struct per_cpu *cpu)
{
	u32 index = key & (OFFERS - 1);
	struct offer *slot = offers.lookup(&index);
	struct translation *found = &cpu->translation;
	struct translation *old;
	struct conn *conn;
	u64 bits;

	if (!slot || READ_ONCE(slot->key) != key)
		return;
	found->tuple = slot->tuple;
	found->id = slot->id;
	found->flip = slot->from_hi ^ packet->from_hi;
	found->standing = 0;
	if (slot->bytes != packet->bytes || slot->seq != packet->seq || found->tuple.protocol != packet->tuple.protocol ||
	    found->tuple.family != packet->tuple.family)
		return;
	bits = forget(&cpu->scratch, nat_bits(&found->tuple, slot->from_hi, &packet->tuple, found->flip));
	/* Written anew while it was read: part of it may be of another packet. */
	if (READ_ONCE(slot->key) != key || !bits)
		return;
	conn = find(&found->tuple);
	if (!conn || READ_ONCE(conn->id) != READ_ONCE(found->id))
		return;
	old = translation_of(&packet->tuple);
	if (old)
		found->standing = old->standing;
	__sync_fetch_and_or(conn_word(conn), STATUS_BIT(bits | STATUS_CONFIRMED));
	count(cpu, put_translation(&packet->tuple, found) ? COUNT_NAT_REFUSED : COUNT_NAT_LEARNED, 1);
}

#endif

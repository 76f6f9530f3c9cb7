/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* GRE. Version 0: by addresses, and by the key if there is one; both directions of a tunnel must use the same. Version 1 (PPTP): by
 * the call ids of both ends, of which a packet carries its receiver's alone; the sender's was learned from the control connection
 * (pptp.h). As in nf_conntrack a call whose control connection was not seen is two connections, one each way. */
#ifndef CTWEB_GRE_H
#define CTWEB_GRE_H

enum { CALLS = 4096 };

/* From `lo` to `hi`, not normalised, hi_port the receiver's call id -> the sender's. Written by the PPTP helper and from nf_conntrack's
 * entries (translate.h), read when a packet is parsed. Bounded: when it is full, the one that was not used for longest gives way. */
BPF_TABLE("lru_hash", struct tuple, u64, calls, CALLS);

/* What stands in the place of ports: source_port, destination_port, variant. */
static __always_inline int parse_gre_ends(struct cursor *cursor, struct layers *layers, struct packet *packet)
{
	struct gre_header *gre = cursor->pos;
	struct gre_key *key;
	u64 flags, length = sizeof(*gre) + sizeof(*key);

	packet->gre_protocol = 0;
	packet->gre_variant = GRE_PLAIN;
	if (layers->payload < sizeof(*gre))
		return 0;		/* addresses alone: as nf_conntrack has it */
	if (!take(cursor, sizeof(*gre)))
		return COUNT_CUT_TRANSPORT;
	flags = ntoh16(gre->flags);
	packet->gre_protocol = ntoh16(gre->protocol);
	if ((flags & GRE_VERSION) > 1 || !(flags & (GRE_VERSION | GRE_KEY)))
		return 0;
	if (!(flags & GRE_VERSION) && flags & (GRE_CHECKSUM | GRE_ROUTING)) {
		length += 4;
		if (!take(cursor, 4))
			return COUNT_CUT_TRANSPORT;
	}
	key = take(cursor, sizeof(*key));
	if (!key || layers->payload < length)
		return COUNT_CUT_TRANSPORT;
	layers->source_port = key->upper;
	layers->destination_port = key->lower;
	packet->gre_variant = GRE_KEYED;
	if (!(flags & GRE_VERSION))
		return 0;
	packet->gre_variant = GRE_CALL;
	return packet->gre_protocol == GRE_PPP ? 0 : COUNT_MALFORMED_TRANSPORT;
}

static __always_inline int parse_gre(struct cursor *cursor, const struct frame *frame, struct layers *layers, struct packet *packet)
{
	int error = parse_gre_ends(cursor, layers, packet);
	if (error)
		return error;
	u64 variant = packet->gre_variant, lo_port, hi_port, from_hi, *sender;

	layers->destination_port = forget(frame->scratch, layers->destination_port);
	layers->source_port = forget(frame->scratch, layers->source_port);
	if (variant == GRE_CALL) {
		write_tuple(packet, layers, 0, 0, layers->destination_port);
		packet->tuple.variant = variant;
		sender = calls.lookup(&packet->tuple);
		layers->source_port = forget(frame->scratch, sender ? *sender : 0) & 0xffff;
	}
	from_hi = forget(frame->scratch, sent_by_hi(packet, layers)) & 1;
	lo_port = layers->source_port;
	hi_port = layers->destination_port;
	if (from_hi && variant == GRE_CALL) {
		lo_port = layers->destination_port;
		hi_port = layers->source_port;
	}
	write_tuple(packet, layers, from_hi, forget(frame->scratch, lo_port), forget(frame->scratch, hi_port));
	packet->tuple.variant = variant;
	return 0;
}

#endif

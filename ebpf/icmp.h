/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* ICMP and ICMPv6. A connection is one asker's id, type and code; the answer is normalised to what asked for it. Errors start
 * none. The asker is the tuple's `lo`; lo_port is the id, hi_port type << 8 | code of the asking packet. */
#ifndef CTWEB_ICMP_H
#define CTWEB_ICMP_H

/* `asks`: the type of the question, if this is the answer. */
static __always_inline int icmp_tuple(struct packet *packet, const struct layers *layers, const struct icmp_header *icmp, u32 asks)
{
	u32 type_code = *(__be16 *)&icmp->type;

	if (asks)
		type_code = hton16(asks << 8) | (type_code & hton16(0xff));
	packet->start = !asks;
	write_tuple(packet, layers, !!asks, icmp->id, type_code);
	return 0;
}

static __always_inline int parse_icmp(struct cursor *cursor, const struct layers *layers, struct packet *packet)
{
	struct icmp_header *icmp = cursor->pos;

	if (layers->payload < sizeof(*icmp) || !take(cursor, sizeof(*icmp)))
		return COUNT_CUT_TRANSPORT;
	switch (icmp->type) {
	case 8:		/* echo */
	case 13:	/* timestamp */
	case 15:	/* information */
	case 17:	/* address mask */
		return icmp_tuple(packet, layers, icmp, 0);
	case 0:
		return icmp_tuple(packet, layers, icmp, 8);
	case 14:
		return icmp_tuple(packet, layers, icmp, 13);
	case 16:
		return icmp_tuple(packet, layers, icmp, 15);
	case 18:
		return icmp_tuple(packet, layers, icmp, 17);
	case 3:		/* destination unreachable */
	case 4:		/* source quench */
	case 5:		/* redirect */
	case 11:	/* time exceeded */
	case 12:	/* parameter problem */
		return COUNT_ICMP_ERROR;
	}
	return COUNT_INVALID_ICMP;
}

static __always_inline int parse_icmpv6(struct cursor *cursor, const struct layers *layers, struct packet *packet)
{
	struct icmp_header *icmp = cursor->pos;

	if (layers->payload < sizeof(*icmp) || !take(cursor, sizeof(*icmp)))
		return COUNT_CUT_TRANSPORT;
	switch (icmp->type) {
	case 128:	/* echo */
	case 139:	/* node information */
		return icmp_tuple(packet, layers, icmp, 0);
	case 129:
		return icmp_tuple(packet, layers, icmp, 128);
	case 140:
		return icmp_tuple(packet, layers, icmp, 139);
	case 130:	/* MLD query, report, done */
	case 131:
	case 132:
	case 133:	/* router solicitation and advertisement, neighbour the same, redirect */
	case 134:
	case 135:
	case 136:
	case 137:
	case 143:	/* MLDv2 report */
		return COUNT_NEIGHBOUR;
	}
	return icmp->type < 128 ? COUNT_ICMP_ERROR : COUNT_INVALID_ICMP;
}

#endif

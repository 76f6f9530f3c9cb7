/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* ICMP errors, v4 and v6. One quotes the beginning of the packet that it is about, and belongs to that packet's connection if there is
 * one, on which it is not counted. As in nf_conntrack it must go to whom the quoted packet came from, and an error about an error is
 * invalid. */
#ifndef CTWEB_ICMP_ERROR_H
#define CTWEB_ICMP_ERROR_H

enum { QUOTED_TRANSPORT = 8 };	/* bytes of it that every error quotes */

static __always_inline int parse_quoted_transport(struct cursor *cursor, const struct frame *frame, struct layers *layers,
						  struct packet *packet)
{
	int error = 0;

	switch (layers->protocol) {
	case PROTOCOL_TCP:
	case PROTOCOL_UDP:
	case PROTOCOL_UDPLITE:
	case PROTOCOL_SCTP:
	case PROTOCOL_DCCP:
		error = parse_ports(cursor, layers, QUOTED_TRANSPORT);
		break;
	case PROTOCOL_ICMP:
		return layers->family == 4 ? parse_icmp(cursor, layers, packet) : COUNT_INVALID_ICMP;
	case PROTOCOL_ICMPV6:
		return layers->family == 6 ? parse_icmpv6(cursor, layers, packet) : COUNT_INVALID_ICMP;
	case PROTOCOL_GRE:
		return parse_gre(cursor, frame, layers, packet);
	}
	if (error)
		return error;
	if (sent_by_hi(packet, layers))
		write_tuple(packet, layers, 1, layers->destination_port, layers->source_port);
	else
		write_tuple(packet, layers, 0, layers->source_port, layers->destination_port);
	return 0;
}

/* The quoted packet's tuple, in place of the error's own. Not 0: it has none. */
static __always_inline int parse_quoted(struct frame *frame, struct layers *layers, struct packet *packet)
{
	u64 start = packet->quoted, length = packet->quoted_length;
	u64 family = packet->tuple.family;
	struct cursor cursor = { .pos = frame->data, .end = frame->end };
	int error;

	if (start > HEADERS_MAX)
		return COUNT_INVALID_ICMP;
	cursor.pos += start;
	frame->length = start + IP_LENGTH_MAX;	/* it is cut: what it announces need not be there */
	*layers = (struct layers){};
	packet->fragment = 0;
	if (family == 4)
		error = parse_ipv4(&cursor, frame, layers, packet);
	else
		error = parse_ipv6(&cursor, frame, layers, packet);
	if (error)
		return error;
	layers->protocol = forget(frame->scratch, layers->protocol);
	layers->payload = forget(frame->scratch, layers->payload);
	if (!forget_way(&cursor, frame))
		return COUNT_INVALID_ICMP;
	error = parse_quoted_transport(&cursor, frame, layers, packet);
	if (error)
		return error;
	/* What follows the error in the frame is padding. */
	return forget(frame->scratch, cursor.pos - frame->data) - start > length ? COUNT_INVALID_ICMP : 0;
}

/* Is there a live connection under the tuple, or where NAT leads from it? As in track(). */
static __always_inline bool is_known(struct packet *packet, u64 now)
{
	struct conn *conn = find(&packet->tuple);
	struct translation *translation;

	if (conn && READ_ONCE(conn->expires) > now)
		return true;
	translation = translation_of(&packet->tuple);
	conn = translation ? find(&translation->tuple) : 0;
	return conn && READ_ONCE(conn->expires) > now && (translation->standing || translation->id == conn->id);
}

static __always_inline void see_icmp_error(struct frame *frame, struct layers *layers, u64 now, struct per_cpu *cpu)
{
	struct packet *packet = &cpu->packet;
	u64 bytes = packet->bytes;
	const u64 *word = (const u64 *)&packet->tuple;
	u64 to = word[2], to2 = word[3];
	int error = parse_quoted(frame, layers, packet);

	packet->bytes = bytes;
	if (!error) {
		u64 from = packet->from_hi ? word[2] : word[0], from2 = packet->from_hi ? word[3] : word[1];

		if (from == to && from2 == to2 && is_known(packet, now)) {
			count_untracked(cpu, COUNT_ICMP_ERROR, packet);
			return;
		}
	}
	count_untracked(cpu, COUNT_INVALID_ICMP, packet);
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* From a frame to a struct packet, header by header. Every function here returns 0 or why the packet cannot be tracked: a
 * counter of enum counter, or NOT_IP. */
#ifndef CTWEB_PARSE_H
#define CTWEB_PARSE_H

enum { VLAN_TAGS = 3, IPV6_EXTENSIONS = 8 };	/* more than these: not followed */

/* What may stand between the Ethernet header and IP: VLAN tags, a PPPoE session. */
static __always_inline int parse_tags(struct cursor *cursor, u32 *ethertype)
{
	u32 type = *ethertype;

	for (int i = 0; i < VLAN_TAGS; i++) {
		if (type != hton16(ETHERTYPE_VLAN) && type != hton16(ETHERTYPE_QINQ))
			break;
		struct vlan_header *vlan = take(cursor, sizeof(*vlan));
		if (!vlan)
			return COUNT_CUT_LINK;
		type = vlan->type;
	}
	if (type == hton16(ETHERTYPE_PPPOE)) {
		struct pppoe_header *pppoe = take(cursor, sizeof(*pppoe));
		if (!pppoe)
			return COUNT_CUT_LINK;
		if (pppoe->version_type != 0x11 || pppoe->code)
			return NOT_IP;
		if (pppoe->protocol == hton16(PPP_IPV4))
			type = hton16(ETHERTYPE_IPV4);
		else if (pppoe->protocol == hton16(PPP_IPV6))
			type = hton16(ETHERTYPE_IPV6);
		else
			return NOT_IP;
	}
	*ethertype = type;
	return 0;
}

/* The link header. Gives the ethertype of what follows. */
static __always_inline int parse_link(struct cursor *cursor, u32 *ethertype)
{
	struct ethernet_header *ethernet = take(cursor, sizeof(*ethernet));
	if (!ethernet)
		return NOT_IP;
	*ethertype = ethernet->type;
	if (likely(*ethertype == hton16(ETHERTYPE_IPV4) || *ethertype == hton16(ETHERTYPE_IPV6)))
		return 0;
	return parse_tags(cursor, ethertype);
}

static __always_inline int parse_ipv4(struct cursor *cursor, const struct frame *frame, struct layers *layers, struct packet *packet)
{
	void *start = cursor->pos;
	struct ipv4_header *ip = take(cursor, sizeof(*ip));
	if (!ip)
		return COUNT_CUT_IP;
	u64 header = (u64)(ip->version_words & 0x0f) * 4;
	u64 length = ntoh16(ip->length);
	u64 room = frame->length - (u64)(start - frame->data);

	if (ip->version_words >> 4 != 4 || header < sizeof(*ip))
		return COUNT_MALFORMED_IP;
	if (unlikely(!length) && room > IP_LENGTH_MAX)
		length = room;
	packet->bytes = length;
	if (length < header)
		return COUNT_MALFORMED_IP;
	if (length > room)
		return COUNT_CUT_IP;
	if (unlikely(header > sizeof(*ip)) && !take(cursor, header - sizeof(*ip)))
		return COUNT_CUT_IP;
	layers->family = 4;
	layers->headers = header;
	layers->payload = length - header;
	layers->source = ip->source;
	layers->destination = ip->destination;
	layers->protocol = ip->protocol;
	if (unlikely(ip->fragment & hton16(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))) {
		packet->fragment = 1;
		packet->fragment_id = ip->id;
		if (ip->fragment & hton16(IPV4_FRAGMENT_OFFSET))
			return COUNT_FRAGMENT;
	}
	return 0;
}

/* Walks the extension headers up to the transport header. `start`: the first one's offset in the frame. */
static __always_inline int parse_extensions(struct cursor *cursor, const struct frame *frame, u64 start, u32 next,
					    struct layers *layers, struct packet *packet)
{
	for (int i = 0; i <= IPV6_EXTENSIONS; i++) {
		u64 length = 8;
		struct ipv6_extension *extension;

		if (!forget_way(cursor, frame))
			return COUNT_MALFORMED_EXTENSION;
		if (next != PROTOCOL_HOPOPTS && next != PROTOCOL_ROUTING && next != PROTOCOL_DSTOPTS && next != PROTOCOL_AH &&
		    next != PROTOCOL_FRAGMENT) {
			u64 walked = forget(frame->scratch, cursor->pos - frame->data) - start;

			if (walked > layers->payload)
				return COUNT_MALFORMED_EXTENSION;
			layers->headers += walked;
			layers->payload -= walked;
			layers->protocol = next;
			return 0;
		}
		extension = take(cursor, length);
		if (!extension)
			return COUNT_MALFORMED_EXTENSION;
		if (next == PROTOCOL_FRAGMENT) {
			struct ipv6_fragment *fragment = (void *)extension;

			/* At offset 0 and with no more to come it is a packet as any other. */
			if (fragment->offset & hton16(IPV6_FRAGMENT_OFFSET | IPV6_MORE_FRAGMENTS)) {
				packet->fragment = 1;
				packet->fragment_id = fragment->id;
			}
			if (fragment->offset & hton16(IPV6_FRAGMENT_OFFSET))
				return COUNT_FRAGMENT;
		} else if (!take(cursor, (u64)extension->length * (next == PROTOCOL_AH ? 4 : 8))) {
			return COUNT_MALFORMED_EXTENSION;
		}
		next = extension->next;
	}
	return COUNT_MALFORMED_EXTENSION;
}

static __always_inline int parse_ipv6(struct cursor *cursor, const struct frame *frame, struct layers *layers, struct packet *packet)
{
	void *start = cursor->pos;
	struct ipv6_header *ip = take(cursor, sizeof(*ip));
	if (!ip)
		return COUNT_CUT_IP;
	u64 room = frame->length - (u64)(start - frame->data);
	u64 length = sizeof(*ip) + ntoh16(ip->payload);
	u64 *address = (u64 *)&packet->tuple;

	if ((*(u8 *)ip >> 4) != 6)
		return COUNT_MALFORMED_IP;
	if (unlikely(!ip->payload) && room > IP_LENGTH_MAX)
		length = room;
	packet->bytes = length;
	if (length > room)
		return COUNT_CUT_IP;
#pragma unroll
	for (int i = 0; i < 4; i++)
		address[i] = two_words(&ip->source[i * 2]);
	layers->family = 6;
	layers->headers = sizeof(*ip);
	layers->payload = length - sizeof(*ip);
	layers->protocol = ip->next;
	if (likely(ip->next == PROTOCOL_TCP || ip->next == PROTOCOL_UDP))
		return 0;
	layers->payload = forget(frame->scratch, layers->payload);
	return parse_extensions(cursor, frame, forget(frame->scratch, cursor->pos - frame->data), ip->next, layers, packet);
}

static __always_inline int parse_ports(struct cursor *cursor, struct layers *layers, u64 minimum)
{
	struct ports *ports = cursor->pos;

	if (layers->payload < minimum || !take(cursor, minimum))
		return COUNT_CUT_TRANSPORT;
	layers->source_port = ports->source;
	layers->destination_port = ports->destination;
	layers->transport = minimum;
	return 0;
}

/* The combinations that nf_conntrack lets through, PSH, ECE and CWR aside. */
#define FLAGS(f) (1ULL << (f))
#define TCP_FLAGS_VALID (FLAGS(TCP_SYN) | FLAGS(TCP_SYN | TCP_URG) | FLAGS(TCP_SYN | TCP_ACK) | FLAGS(TCP_RST) | \
	FLAGS(TCP_RST | TCP_ACK) | FLAGS(TCP_FIN | TCP_ACK) | FLAGS(TCP_FIN | TCP_ACK | TCP_URG) | FLAGS(TCP_ACK) | \
	FLAGS(TCP_ACK | TCP_URG))

static __always_inline int parse_tcp(struct cursor *cursor, const struct frame *frame, struct layers *layers, struct packet *packet)
{
	struct tcp_header *tcp = take(cursor, sizeof(*tcp));
	if (layers->payload < sizeof(*tcp) || !tcp)
		return COUNT_CUT_TRANSPORT;
	u64 length = (u64)(tcp->words >> 4) * 4;
	u64 flags = tcp->flags;
	u64 seq = ntoh32(tcp->seq), ack = ntoh32(tcp->ack);

	if (length < sizeof(*tcp))
		return COUNT_MALFORMED_TRANSPORT;
	if (length > layers->payload)
		return COUNT_CUT_TRANSPORT;
	if (unlikely(!(TCP_FLAGS_VALID >> (flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK | TCP_URG)) & 1)))
		return COUNT_MALFORMED_TRANSPORT;
	layers->source_port = tcp->source;
	layers->destination_port = tcp->destination;
	layers->transport = length;
	packet->tcp_flags = flags;
	packet->seq = seq;
	packet->ack = ack;
	packet->sack = ack;
	packet->window = ntoh16(tcp->window);
	packet->end = seq + layers->payload - length + (flags & TCP_FIN) + (flags >> 1 & 1);
	packet->options = 0;
	packet->scale = 0;
	packet->has_options = 0;
	if (length == sizeof(*tcp))
		return 0;
	return parse_tcp_options(cursor, length - sizeof(*tcp), packet, frame->options);
}

static __always_inline int parse_udp(struct cursor *cursor, struct layers *layers, const struct packet *packet)
{
	struct udp_header *udp = cursor->pos;
	int error = parse_ports(cursor, layers, sizeof(*udp));
	if (error)
		return error;
	u64 length = ntoh16(udp->length);

	if (packet->fragment)
		return 0;
	if (layers->protocol == PROTOCOL_UDPLITE) {
		/* the checksum's coverage: all, or at least the header */
		return (length && length < sizeof(*udp)) || length > layers->payload ? COUNT_MALFORMED_TRANSPORT : 0;
	}
	return length < sizeof(*udp) || length > layers->payload ? COUNT_MALFORMED_TRANSPORT : 0;
}

static __always_inline int parse_transport(struct cursor *cursor, const struct frame *frame, struct layers *layers,
					   struct packet *packet)
{
	int error = 0;

	packet->transport_at = forget(frame->scratch, cursor->pos - frame->data);
	packet->headers = layers->headers;
	packet->payload = layers->payload;

	switch (layers->protocol) {
	case PROTOCOL_TCP:
		error = parse_tcp(cursor, frame, layers, packet);
		break;
	case PROTOCOL_UDP:
	case PROTOCOL_UDPLITE:
		error = parse_udp(cursor, layers, packet);
		break;
	case PROTOCOL_ICMP:
		return layers->family == 4 ? parse_icmp(cursor, layers, packet) : COUNT_INVALID_ICMP;
	case PROTOCOL_ICMPV6:
		return layers->family == 6 ? parse_icmpv6(cursor, layers, packet) : COUNT_INVALID_ICMP;
	case PROTOCOL_GRE:
		return parse_gre(cursor, frame, layers, packet);
	case PROTOCOL_SCTP:
	case PROTOCOL_DCCP:
		error = parse_ports(cursor, layers, 12);
		break;
	}
	if (error)
		return error;
	packet->transport = layers->transport;
	if (sent_by_hi(packet, layers))
		write_tuple(packet, layers, 1, layers->destination_port, layers->source_port);
	else
		write_tuple(packet, layers, 0, layers->source_port, layers->destination_port);
	return 0;
}

/* Layer-3 bytes on the wire, where each packet that a GSO frame becomes has the headers again. A tunnel's inner headers are not
 * seen here. */
static __always_inline void count_segments(const struct frame *frame, const struct layers *layers, struct packet *packet)
{
	u64 headers = layers->headers + layers->transport;
	u64 segments = frame->gso_segs;

	if (!segments && packet->bytes > headers)
		segments = (packet->bytes - headers + frame->gso_size - 1) / frame->gso_size;
	if (segments <= 1)
		return;
	packet->packets = segments;
	packet->bytes += (segments - 1) * headers;
}

/* What the fragments of one packet have in common, as a tuple from source to destination whose ports are the two halves of the id.
 * In IPv6 the protocol is not part of it: only the first fragment's is good. */
static __always_inline void name_datagram(const struct layers *layers, struct packet *packet)
{
	u64 id = packet->fragment_id;

	write_tuple(packet, layers, 0, id & 0xffff, id >> 16);
	packet->datagram = packet->tuple;
	if (layers->family == 6)
		packet->datagram.protocol = PROTOCOL_FRAGMENT;
}

/* `ethertype`: of a frame without a link header; 0: it has one. */
static __always_inline int parse(const struct frame *frame, u32 ethertype, struct layers *layers, struct packet *packet)
{
	struct cursor cursor = { .pos = frame->data, .end = frame->end };
	int error;

	*layers = (struct layers){};
	packet->bytes = 0;
	packet->packets = 1;
	packet->fragment = 0;
	if (!ethertype) {
		error = parse_link(&cursor, &ethertype);
		if (error)
			return error;
	}
	ethertype = forget(frame->scratch, ethertype);
	if (!forget_way(&cursor, frame))
		return COUNT_CUT_LINK;
	if (ethertype == hton16(ETHERTYPE_IPV4))
		error = parse_ipv4(&cursor, frame, layers, packet);
	else if (ethertype == hton16(ETHERTYPE_IPV6))
		error = parse_ipv6(&cursor, frame, layers, packet);
	else
		return NOT_IP;
	if (unlikely(packet->fragment))
		name_datagram(layers, packet);
	if (error)
		return error;
	layers->protocol = forget(frame->scratch, layers->protocol);
	layers->payload = forget(frame->scratch, layers->payload);
	layers->headers = forget(frame->scratch, layers->headers);
	if (!forget_way(&cursor, frame))
		return COUNT_CUT_TRANSPORT;
	error = parse_transport(&cursor, frame, layers, packet);
	if (unlikely(error == COUNT_ICMP_ERROR)) {
		write_tuple(packet, layers, 0, 0, 0);
		packet->quoted = cursor.pos - frame->data;
		packet->quoted_length = layers->payload - sizeof(struct icmp_header);
	}
	return error;
}

#endif

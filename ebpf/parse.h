/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* From a frame to a struct packet, header by header. Every function here returns 0 or why the packet cannot be tracked: a
 * counter of enum counter, or NOT_IP. */
#ifndef CTWEB_PARSE_H
#define CTWEB_PARSE_H

enum { VLAN_TAGS = 3, IPV6_EXTENSIONS = 8 };	/* more than these: not followed */

/* What may stand between the Ethernet header and IP: VLAN tags, a PPPoE session. */
static __always_inline int parse_tags(struct cursor *cursor, const struct frame *frame, u32 *ethertype)
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
	return forget_way(cursor, frame) ? 0 : COUNT_CUT_LINK;
}

/* The link header. Gives the ethertype of what follows. */
static __always_inline int parse_link(struct cursor *cursor, const struct frame *frame, u32 *ethertype)
{
	struct ethernet_header *ethernet = take(cursor, sizeof(*ethernet));
	if (!ethernet)
		return NOT_IP;
	*ethertype = ethernet->type;
	if (likely(*ethertype == hton16(ETHERTYPE_IPV4) || *ethertype == hton16(ETHERTYPE_IPV6)))
		return 0;
	return parse_tags(cursor, frame, ethertype);
}

static __always_inline int parse_ipv4(struct cursor *cursor, const struct frame *frame, struct packet *packet)
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
	packet->headers = header;
	packet->l4_length = length - header;
	packet->tuple.lo_addr[0] = ip->source;
	packet->tuple.hi_addr[0] = ip->destination;
	packet->tuple.protocol = ip->protocol;
	packet->tuple.family = 4;
	if (unlikely(ip->fragment & hton16(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))) {
		if (ip->fragment & hton16(IPV4_FRAGMENT_OFFSET))
			return COUNT_FRAGMENT;
		packet->fragment = 1;
	}
	return 0;
}

/* Walks the extension headers up to the transport header. `start`: the first one's offset in the frame. */
static __always_inline int parse_extensions(struct cursor *cursor, const struct frame *frame, u64 start, u32 next,
					    struct packet *packet)
{
	for (int i = 0; i <= IPV6_EXTENSIONS; i++) {
		u64 length = 8;
		struct ipv6_extension *extension;

		if (!forget_way(cursor, frame))
			return COUNT_MALFORMED_EXTENSION;
		if (next != PROTOCOL_HOPOPTS && next != PROTOCOL_ROUTING && next != PROTOCOL_DSTOPTS && next != PROTOCOL_AH &&
		    next != PROTOCOL_FRAGMENT) {
			u64 walked = (u64)(cursor->pos - frame->data) - start;

			if (walked > packet->l4_length)
				return COUNT_MALFORMED_EXTENSION;
			packet->headers += walked;
			packet->l4_length -= walked;
			packet->tuple.protocol = next;
			return 0;
		}
		extension = take(cursor, length);
		if (!extension)
			return COUNT_MALFORMED_EXTENSION;
		if (next == PROTOCOL_FRAGMENT) {
			struct ipv6_fragment *fragment = (void *)extension;

			if (fragment->offset & hton16(IPV6_FRAGMENT_OFFSET))
				return COUNT_FRAGMENT;
			if (fragment->offset & hton16(IPV6_MORE_FRAGMENTS))
				packet->fragment = 1;
		} else if (!take(cursor, (u64)extension->length * (next == PROTOCOL_AH ? 4 : 8))) {
			return COUNT_MALFORMED_EXTENSION;
		}
		next = extension->next;
	}
	return COUNT_MALFORMED_EXTENSION;
}

static __always_inline int parse_ipv6(struct cursor *cursor, const struct frame *frame, struct packet *packet)
{
	void *start = cursor->pos;
	struct ipv6_header *ip = take(cursor, sizeof(*ip));
	if (!ip)
		return COUNT_CUT_IP;
	u64 room = frame->length - (u64)(start - frame->data);
	u64 length = sizeof(*ip) + ntoh16(ip->payload);

	if ((*(u8 *)ip >> 4) != 6)
		return COUNT_MALFORMED_IP;
	if (unlikely(!ip->payload) && room > IP_LENGTH_MAX)
		length = room;
	packet->bytes = length;
	if (length > room)
		return COUNT_CUT_IP;
	packet->headers = sizeof(*ip);
	packet->l4_length = length - sizeof(*ip);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		packet->tuple.lo_addr[i] = ip->source[i];
		packet->tuple.hi_addr[i] = ip->destination[i];
	}
	packet->tuple.family = 6;
	if (likely(ip->next == PROTOCOL_TCP || ip->next == PROTOCOL_UDP)) {
		packet->tuple.protocol = ip->next;
		return 0;
	}
	return parse_extensions(cursor, frame, cursor->pos - frame->data, ip->next, packet);
}

static __always_inline int parse_ports(struct cursor *cursor, struct packet *packet, u64 minimum)
{
	struct ports *ports = cursor->pos;

	if (packet->l4_length < minimum || !take(cursor, minimum))
		return COUNT_CUT_TRANSPORT;
	packet->tuple.lo_port = ports->source;
	packet->tuple.hi_port = ports->destination;
	packet->l4_header = minimum;
	return 0;
}

/* The combinations that nf_conntrack lets through, PSH, ECE and CWR aside. */
#define FLAGS(f) (1ULL << (f))
#define TCP_FLAGS_VALID (FLAGS(TCP_SYN) | FLAGS(TCP_SYN | TCP_URG) | FLAGS(TCP_SYN | TCP_ACK) | FLAGS(TCP_RST) | \
	FLAGS(TCP_RST | TCP_ACK) | FLAGS(TCP_FIN | TCP_ACK) | FLAGS(TCP_FIN | TCP_ACK | TCP_URG) | FLAGS(TCP_ACK) | \
	FLAGS(TCP_ACK | TCP_URG))

static __always_inline int parse_tcp(struct cursor *cursor, const struct frame *frame, struct packet *packet)
{
	struct tcp_header *tcp = take(cursor, sizeof(*tcp));
	if (packet->l4_length < sizeof(*tcp) || !tcp)
		return COUNT_CUT_TRANSPORT;
	u64 length = (u64)(tcp->words >> 4) * 4;
	u64 flags = tcp->flags;

	if (length < sizeof(*tcp))
		return COUNT_MALFORMED_TRANSPORT;
	if (length > packet->l4_length)
		return COUNT_CUT_TRANSPORT;
	if (unlikely(!(TCP_FLAGS_VALID >> (flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK | TCP_URG)) & 1)))
		return COUNT_MALFORMED_TRANSPORT;
	packet->tuple.lo_port = tcp->source;
	packet->tuple.hi_port = tcp->destination;
	packet->tcp_flags = flags;
	packet->seq = ntoh32(tcp->seq);
	packet->ack = packet->sack = ntoh32(tcp->ack);
	packet->window = ntoh16(tcp->window);
	packet->l4_header = length;
	packet->end = packet->seq + packet->l4_length - length + (flags & TCP_FIN) + (flags >> 1 & 1);
	if (length == sizeof(*tcp))
		return 0;
	return parse_tcp_options(cursor, length - sizeof(*tcp), packet, frame->options);
}

static __always_inline int parse_udp(struct cursor *cursor, struct packet *packet)
{
	struct udp_header *udp = cursor->pos;
	int error = parse_ports(cursor, packet, sizeof(*udp));
	if (error)
		return error;
	u64 length = ntoh16(udp->length);

	if (packet->fragment)
		return 0;
	if (packet->tuple.protocol == PROTOCOL_UDPLITE) {
		/* the checksum's coverage: all, or at least the header */
		return (length && length < sizeof(*udp)) || length > packet->l4_length ? COUNT_MALFORMED_TRANSPORT : 0;
	}
	return length < sizeof(*udp) || length > packet->l4_length ? COUNT_MALFORMED_TRANSPORT : 0;
}

/* Puts the smaller end first. ICMP has its own order (icmp.h). */
static __always_inline void normalise(struct packet *packet)
{
	struct tuple *tuple = &packet->tuple;
	u64 swap;

	if (likely(tuple->family == 4)) {
		u64 lo = (u64)ntoh32(tuple->lo_addr[0]) << 16 | ntoh16(tuple->lo_port);
		u64 hi = (u64)ntoh32(tuple->hi_addr[0]) << 16 | ntoh16(tuple->hi_port);

		swap = lo > hi;
		if (swap) {
			u32 address = tuple->lo_addr[0];

			tuple->lo_addr[0] = tuple->hi_addr[0];
			tuple->hi_addr[0] = address;
		}
	} else {
		u64 *lo = (u64 *)tuple->lo_addr, *hi = (u64 *)tuple->hi_addr;

		if (lo[0] != hi[0])
			swap = ntoh64(lo[0]) > ntoh64(hi[0]);
		else if (lo[1] != hi[1])
			swap = ntoh64(lo[1]) > ntoh64(hi[1]);
		else
			swap = ntoh16(tuple->lo_port) > ntoh16(tuple->hi_port);
		if (swap) {
			u64 first = lo[0], second = lo[1];

			lo[0] = hi[0];
			lo[1] = hi[1];
			hi[0] = first;
			hi[1] = second;
		}
	}
	if (swap) {
		u32 port = tuple->lo_port;

		tuple->lo_port = tuple->hi_port;
		tuple->hi_port = port;
	}
	packet->from_hi = swap;
}

static __always_inline int parse_transport(struct cursor *cursor, const struct frame *frame, struct packet *packet)
{
	int error = 0;

	switch (packet->tuple.protocol) {
	case PROTOCOL_TCP:
		error = parse_tcp(cursor, frame, packet);
		break;
	case PROTOCOL_UDP:
	case PROTOCOL_UDPLITE:
		error = parse_udp(cursor, packet);
		break;
	case PROTOCOL_ICMP:
		return packet->tuple.family == 4 ? parse_icmp(cursor, packet) : COUNT_INVALID_ICMP;
	case PROTOCOL_ICMPV6:
		return packet->tuple.family == 6 ? parse_icmpv6(cursor, packet) : COUNT_INVALID_ICMP;
	case PROTOCOL_SCTP:
	case PROTOCOL_DCCP:
		error = parse_ports(cursor, packet, 12);
		break;
	}
	if (!error)
		normalise(packet);
	return error;
}

/* Layer-3 bytes on the wire, where each packet that a GSO frame becomes has the headers again. A tunnel's inner headers are not
 * seen here. */
static __always_inline void count_segments(const struct frame *frame, struct packet *packet)
{
	u64 headers = packet->headers + packet->l4_header;
	u64 segments = frame->gso_segs;

	if (!segments && packet->bytes > headers)
		segments = (packet->bytes - headers + frame->gso_size - 1) / frame->gso_size;
	if (segments <= 1)
		return;
	packet->packets = forget(frame->scratch, segments);
	packet->bytes += (segments - 1) * headers;
}

/* `ethertype`: of a frame without a link header; 0: it has one. */
static __always_inline int parse(const struct frame *frame, u32 ethertype, struct packet *packet)
{
	struct cursor cursor = { .pos = frame->data, .end = frame->end };
	int error;

	if (!ethertype) {
		error = parse_link(&cursor, frame, &ethertype);
		if (error)
			return error;
	}
	if (likely(ethertype == hton16(ETHERTYPE_IPV4)))
		error = parse_ipv4(&cursor, frame, packet);
	else if (ethertype == hton16(ETHERTYPE_IPV6))
		error = parse_ipv6(&cursor, frame, packet);
	else
		return NOT_IP;
	return error ? error : parse_transport(&cursor, frame, packet);
}

#endif

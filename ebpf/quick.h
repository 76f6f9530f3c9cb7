/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The short way for what most packets are: IPv4 or IPv6 without options, fragments or tags, and of a live connection
 *   TCP: an ACK, in window, of an assured and established connection that both sides have sent on;
 *   UDP: that sets no new status bit.
 * It decides and counts just as parse() and track() would, with all left out that cannot be. Whatever does not fit is left
 * untouched for them; they come to the same by the long way. */
#ifndef CTWEB_QUICK_H
#define CTWEB_QUICK_H

#define QUICK_FLAGS (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK | TCP_URG)

/* Ports and numbers. `room`: transport header and payload, by the IP length. */
static __always_inline bool quick_transport(void *header, void *frame_end, u64 room, struct quick *quick)
{
	struct tcp_header *tcp = header;
	u64 length = sizeof(*tcp);

	if (quick->protocol == PROTOCOL_UDP) {
		struct udp_header *udp = header;

		quick->headers += sizeof(*udp);
		return ntoh16(udp->length) >= sizeof(*udp) && ntoh16(udp->length) <= room;
	}
	if ((void *)(tcp + 1) > frame_end || (tcp->flags & QUICK_FLAGS) != TCP_ACK)
		return false;
	if (tcp->words >> 4 != 5) {
		/* With a timestamp alone, as nearly all have it; anything else may be a SACK. */
		__be32 *options = (void *)(tcp + 1);

		if (tcp->words >> 4 != 8 || (void *)(options + 3) > frame_end || *options != hton32(0x0101080a))
			return false;
		length += 12;
	}
	if (length > room)
		return false;
	quick->headers += length;
	quick->seq = ntoh32(tcp->seq);
	quick->ack = ntoh32(tcp->ack);
	quick->end = quick->seq + room - length;
	quick->window = ntoh16(tcp->window);
	return true;
}

/* Reads the headers. `link`: length of the link header. */
static __always_inline bool quick_parse(const struct frame *frame, u64 link, u32 ethertype, struct quick *quick)
{
	struct ipv4_header *ip4 = frame->data + link;
	struct ipv6_header *ip6 = frame->data + link;
	u64 *word = (u64 *)&quick->tuple;
	struct ports *ports;

	if (link) {
		struct ethernet_header *ethernet = frame->data;

		if ((void *)(ethernet + 1) > frame->end)
			return false;
		ethertype = ethernet->type;
	}
	if (ethertype == hton16(ETHERTYPE_IPV4)) {
		ports = (void *)(ip4 + 1);
		if ((void *)ports + sizeof(struct udp_header) > frame->end || ip4->version_words != 0x45 ||
		    ip4->fragment & hton16(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))
			return false;
		u64 source = ip4->source, destination = ip4->destination;

		quick->bytes = ntoh16(ip4->length);
		quick->headers = sizeof(*ip4);
		quick->protocol = ip4->protocol;
		if (source == destination)
			return false;
		quick->from_hi = ntoh32(ip4->source) > ntoh32(ip4->destination);
		word[0] = TUPLE_IPV4(quick->from_hi ? destination : source);
		word[1] = 0;
		word[2] = TUPLE_IPV4(quick->from_hi ? source : destination);
		word[3] = 0;
	} else if (ethertype == hton16(ETHERTYPE_IPV6)) {
		ports = (void *)(ip6 + 1);
		if ((void *)ports + sizeof(struct udp_header) > frame->end || *(u8 *)ip6 >> 4 != 6)
			return false;
		u64 source = two_words(ip6->source), source2 = two_words(ip6->source + 2);
		u64 destination = two_words(ip6->destination), destination2 = two_words(ip6->destination + 2);

		quick->bytes = sizeof(*ip6) + ntoh16(ip6->payload);
		quick->headers = sizeof(*ip6);
		quick->protocol = ip6->next;
		if (source != destination)
			quick->from_hi = ntoh64(source) > ntoh64(destination);
		else if (source2 != destination2)
			quick->from_hi = ntoh64(source2) > ntoh64(destination2);
		else
			return false;
		word[0] = quick->from_hi ? destination : source;
		word[1] = quick->from_hi ? destination2 : source2;
		word[2] = quick->from_hi ? source : destination;
		word[3] = quick->from_hi ? source2 : destination2;
	} else {
		return false;
	}
	if ((quick->protocol != PROTOCOL_TCP && quick->protocol != PROTOCOL_UDP) || quick->bytes < quick->headers ||
	    quick->bytes > frame->length - link)
		return false;
	u64 sport = ports->source, dport = ports->destination, family = ethertype == hton16(ETHERTYPE_IPV4) ? 4 : 6;

	word[4] = quick->from_hi ? TUPLE_REST(dport, sport, quick->protocol, family) :
		TUPLE_REST(sport, dport, quick->protocol, family);
	return quick_transport(ports, frame->end, quick->bytes - quick->headers, quick);
}

/* tcp_packet() and window_check() for an ACK in window. Gives the timeout; 0: it is not that. */
static __always_inline u64 quick_tcp(struct conn *conn, u64 word, const struct quick *quick, u64 direction,
				     const struct settings *settings)
{
	struct tcp_window *sender = &conn->window[direction], *receiver = &conn->window[direction ^ 1];
	u64 mine = conn->tcp_flags[direction], theirs = conn->tcp_flags[direction ^ 1];
	u64 seq = quick->seq, end = quick->end, ack = quick->ack, window = quick->window;
	u64 sender_end = sender->end, max_end = sender->max_end, max_win = sender->max_win;
	u64 receiver_end = receiver->end, receiver_win = receiver->max_win;
	u64 reach, last, retrans, timeout, cap;

	if (!max_win || !receiver_win || !(mine & SIDE_ACKED) || before(max_end, seq) || before(receiver_end, ack) ||
	    !before(sender_end - receiver_win - 1, end) || !before(receiver_end - ack_window(max_win) - 1, ack))
		return 0;

	window <<= word >> SCALES_SHIFT >> (direction * 4) & 15;
	if (unlikely(max_win < window))
		sender->max_win = window;
	if (unlikely(before(max_end, end)))
		receiver->max_win = receiver_win + end - max_end;
	if (before(sender->max_ack, ack))
		sender->max_ack = ack;
	reach = ack + window;
	if (before((u64)receiver->max_end - 1, reach))
		receiver->max_end = reach + !window;
	if (ack == receiver_end && theirs & SIDE_UNACKED)
		conn->tcp_flags[direction ^ 1] = theirs &= ~SIDE_UNACKED;
	if (before(sender_end, end)) {
		sender->end = end;
		if (!(mine & SIDE_UNACKED))
			conn->tcp_flags[direction] = mine |= SIDE_UNACKED;
	}

	last = word >> LAST_SHIFT & 0xff;
	retrans = word >> RETRANS_SHIFT & 0xff;
	if (unlikely(last >> 7 == direction && conn->tcp_last_end == end && conn->tcp_last_seq == seq &&
		     conn->tcp_last_ack == ack && conn->tcp_last_win == quick->window)) {
		retrans = (retrans + 1) & 0xff;
		conn->tcp_retrans = retrans;
	} else {
		conn->tcp_last_seq = seq;
		conn->tcp_last_ack = ack;
		conn->tcp_last_end = end;
		conn->tcp_last_win = quick->window;
		if (unlikely(retrans))
			conn->tcp_retrans = retrans = 0;
	}
	if ((last & 0x87) != (direction << 7 | CLASS_ACK))
		conn->tcp_last = (last & 0x78) | direction << 7 | CLASS_ACK;

	timeout = settings->timeout[TCP_ESTABLISHED];
	cap = settings->timeout[TIMEOUT_TCP_RETRANS];
	if (unlikely(retrans >= MAX_RETRANS) && timeout > cap)
		return cap;
	if ((mine | theirs) & SIDE_UNACKED && timeout > settings->timeout[TIMEOUT_TCP_UNACKED])
		return settings->timeout[TIMEOUT_TCP_UNACKED];
	return unlikely(!quick->window) && timeout > cap ? cap : timeout;
}

/* One that a helper watches goes the long way. */
#define QUICK_TCP_MASK (0xffULL << STATE_SHIFT | STATUS_BIT(STATUS_SEEN_REPLY | STATUS_ASSURED | STATUS_HELPER))
#define QUICK_TCP_WORD ((u64)TCP_ESTABLISHED << STATE_SHIFT | STATUS_BIT(STATUS_SEEN_REPLY | STATUS_ASSURED))

/* The timeout that the packet earns; 0: it goes the long way, and nothing is changed. `bits`: status bits that this hook sets. */
static __always_inline u64 quick_timeout(struct conn *conn, const struct quick *quick, u64 now, u64 bits, u64 expires, u64 word,
					 u64 direction)
{
	u32 zero = 0;
	struct settings *in_force = settings.lookup(&zero);

	if (!in_force || expires <= now || STATUS_BIT(bits) & ~word)
		return 0;
	if (quick->protocol == PROTOCOL_TCP) {
		if ((word & QUICK_TCP_MASK) != QUICK_TCP_WORD)
			return 0;
		return quick_tcp(conn, word, quick, direction, in_force);
	}
	/* Unanswered from the one who asked, or answered and assured. */
	if (unlikely(word & STATUS_BIT(STATUS_HELPER)))
		return 0;
	if (!(word & STATUS_BIT(STATUS_SEEN_REPLY)) ? direction == REPLY :
	    !(word & STATUS_BIT(STATUS_ASSURED)) && now > conn->created + UDP_ASSURED_AFTER)
		return 0;
	return in_force->timeout[word & STATUS_BIT(STATUS_SEEN_REPLY) ? TIMEOUT_UDP_STREAM : TIMEOUT_UDP];
}

/* True: the packet is counted. */
static __always_inline bool quick(struct conn *conn, const struct frame *frame, const struct quick *quick, u64 now, u64 bits,
				  struct per_cpu *cpu)
{
	u64 expires = READ_ONCE(conn->expires), word = READ_ONCE(*conn_word(conn));
	u64 direction = (quick->from_hi ^ word >> STATUS_SHIFT) & STATUS_SWAPPED;
	u64 timeout, packets = 1, bytes = quick->bytes;

	if (frame->gso_size) {
		packets = frame->gso_segs;
		if (!packets)
			return false;
		bytes += (packets - 1) * quick->headers;
	}
	timeout = quick_timeout(conn, quick, now, bits, expires, word, direction);
	if (!timeout)
		return false;
	cpu->counter[COUNT_OFFERED_PACKETS] += packets;
	cpu->counter[COUNT_OFFERED_BYTES] += bytes;
	add(conn, direction, packets, bytes, expires, now + timeout, cpu);
	return true;
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* UDP and UDP-Lite: two timeouts. Packets seen both ways make a stream (RouterOS); one that still goes on two seconds after it began is
 * assured (nf_conntrack, which would wait those two seconds for the longer timeout too: docs/differences.md), UDP-Lite at once. */
#ifndef CTWEB_UDP_H
#define CTWEB_UDP_H

#define UDP_ASSURED_AFTER (2 * 1000000000ULL)

/* `direction` of this packet, which may be the first reply. */
static __always_inline void udp_packet(const struct conn *conn, u8 protocol, u64 word, u64 direction, u64 now,
				       const struct settings *settings, struct change *change)
{
	bool replied = word & STATUS_BIT(STATUS_SEEN_REPLY);

	change->timeout = settings->timeout[replied || direction == REPLY ? TIMEOUT_UDP_STREAM : TIMEOUT_UDP];
	if (replied && (protocol == PROTOCOL_UDPLITE || now > conn->created + UDP_ASSURED_AFTER))
		change->bits |= STATUS_ASSURED;
}

#endif

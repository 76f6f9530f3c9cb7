/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* UDP and UDP-Lite: two timeouts. A stream is one that has been answered and goes on two seconds after it began; it is assured. */
#ifndef CTWEB_UDP_H
#define CTWEB_UDP_H

#define UDP_STREAM_AFTER (2 * 1000000000ULL)

static __always_inline void udp_packet(const struct conn *conn, u64 word, u64 now, const struct settings *settings,
				       struct change *change)
{
	change->timeout = settings->timeout[TIMEOUT_UDP];
	if (word & STATUS_BIT(STATUS_SEEN_REPLY) && now > conn->created + UDP_STREAM_AFTER) {
		change->timeout = settings->timeout[TIMEOUT_UDP_STREAM];
		change->bits |= STATUS_ASSURED;
	}
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* One packet: find its connection or start one, let the protocol decide, count. */
#ifndef CTWEB_TRACK_H
#define CTWEB_TRACK_H

/* May this packet start a connection, and how? 0 or the counter of the reason. */
static __always_inline int start_of(const struct packet *packet, const struct settings *settings, struct start *start)
{
	*start = (struct start){};
	switch (packet->tuple.protocol) {
	case PROTOCOL_TCP:
		return tcp_start(packet, settings, start);
	case PROTOCOL_UDP:
	case PROTOCOL_UDPLITE:
		start->timeout = settings->timeout[TIMEOUT_UDP];
		return 0;
	case PROTOCOL_ICMP:
	case PROTOCOL_ICMPV6:
		start->timeout = settings->timeout[TIMEOUT_ICMP];
		return packet->start ? 0 : COUNT_INVALID_ICMP;
	default:
		start->timeout = settings->timeout[TIMEOUT_GENERIC];
		return 0;
	}
}

static __always_inline int decide(struct conn *conn, u64 word, u64 expires, u64 now, const struct packet *packet, u64 direction,
				  const struct settings *settings, u64 *scratch, struct change *change)
{
	switch (packet->tuple.protocol) {
	case PROTOCOL_TCP:
		return tcp_packet(conn, word, expires, now, packet, direction, settings, scratch, change);
	case PROTOCOL_UDP:
	case PROTOCOL_UDPLITE:
		udp_packet(conn, packet->tuple.protocol, word, direction, now, settings, change);
		break;
	case PROTOCOL_ICMP:
	case PROTOCOL_ICMPV6:
		change->timeout = settings->timeout[TIMEOUT_ICMP];
		break;
	case PROTOCOL_GRE:
		if (word & STATUS_BIT(STATUS_SEEN_REPLY))
			change->bits |= STATUS_ASSURED;
		change->timeout = settings->timeout[TIMEOUT_GENERIC];
		break;
	default:
		change->timeout = settings->timeout[TIMEOUT_GENERIC];
	}
	return VERDICT_COUNT;
}

/* A packet of a live connection. */
static __always_inline int go_on(struct conn *conn, u64 expires, const struct packet *packet, u64 now, u64 bits,
				 const struct settings *settings, struct per_cpu *cpu)
{
	u64 word = READ_ONCE(*conn_word(conn));
	u64 direction = (packet->from_hi ^ word >> STATUS_SHIFT) & STATUS_SWAPPED;
	struct change change = { .bits = bits };
	int verdict = decide(conn, word, expires, now, packet, direction, settings, &cpu->scratch, &change);

	if (unlikely(!(word & STATUS_BIT(STATUS_CONFIRMED))) && conn->packets[ORIGINAL] < OFFER_PACKETS && direction == ORIGINAL)
		cpu->offered = conn->id;

	if (unlikely(verdict == VERDICT_REOPEN))
		return verdict;
	if (unlikely(verdict == VERDICT_INVALID)) {
		count_untracked(cpu, COUNT_INVALID_TCP, packet);
		if (change.timeout)
			__sync_val_compare_and_swap(&conn->expires, expires, now + change.timeout);
		return verdict;
	}
	if (direction == REPLY)
		change.bits |= STATUS_SEEN_REPLY;
	if (unlikely(STATUS_BIT(change.bits) & ~word))
		__sync_fetch_and_or(conn_word(conn), STATUS_BIT(change.bits));
	if (unlikely(verdict == VERDICT_IGNORED)) {
		count_untracked(cpu, COUNT_IGNORED_TCP, packet);
		return verdict;
	}
	if (unlikely(word & STATUS_BIT(STATUS_HELPER)))
		cpu->watched = 1;
	/* A reset's end is not stamped: it ends now. */
	add(conn, direction, packet->packets, packet->bytes, expires, verdict == VERDICT_RESET ? expires : now + change.timeout, cpu);
	if (unlikely(verdict == VERDICT_RESET) && claim(conn, expires)) {
		end(conn, cpu, COUNT_RESET);
		take_out(conn, now);
	}
	return verdict;
}

/* `bits`: status bits that this hook sets. */
static __always_inline void track(struct packet *packet, u64 now, u64 bits, struct per_cpu *cpu, u32 ifindex)
{
	u32 zero = 0;
	struct settings *in_force = settings.lookup(&zero);
	struct conn *conn = cpu->absent ? 0 : find(&packet->tuple);
	struct start *start = &cpu->start;
	u32 cause = COUNT_EXPIRED;
	u64 expires = EXPIRES_CLAIMED;
	int reason;

	if (!in_force)
		return;		/* cannot be: the array has one element */
	if (likely(conn))
		expires = settled(conn);
	if (unlikely(expires <= now) && in_force->nat) {
		struct translation *translation = translation_of(&packet->tuple);
		struct conn *other = translation ? find(&translation->tuple) : 0;

		/* Deleted and used again while it is read: then tuple and id are of another translation that is good, or do not
		 * fit one another. The former takes a packet that came within nanoseconds of its translation's end; it is counted once. */
		if (translation && (translation->standing || (other && other->id == translation->id && other->expires > now))) {
			untranslate(packet, translation);
			conn = other;
			expires = conn ? settled(conn) : EXPIRES_CLAIMED;
		}
	}
	/* One more connection. Still claimed is about to be deleted, most likely is already. */
	if (unlikely(expires == EXPIRES_CLAIMED)) {
		reason = start_of(packet, in_force, start);
		if (!reason && !make_room(cpu, now))
			reason = COUNT_REFUSED;
		if (!reason) {
			reason = insert(packet, start, now, bits, cpu, ifindex);
			if (!reason)
				return;
		}
		if (reason && reason != -EEXIST) {
			count_untracked(cpu, reason < 0 ? COUNT_REFUSED : reason, packet);
			return;
		}
		if (reason) {
			/* Another CPU was first. */
			conn = find(&packet->tuple);
			expires = conn ? settled(conn) : EXPIRES_CLAIMED;
		}
	}
	if (likely(conn && expires > now)) {
		if (go_on(conn, expires, packet, now, bits, in_force, cpu) != VERDICT_REOPEN)
			return;
		cause = COUNT_REOPENED;
	}
	reason = start_of(packet, in_force, start);
	if (!reason) {
		if (conn && expires != EXPIRES_CLAIMED && claim(conn, expires)) {
			end(conn, cpu, cause);
			restart(conn, packet, start, now, bits, cpu, ifindex);
			return;
		}
		reason = COUNT_BUSY;
	}
	count_untracked(cpu, reason, packet);
}

/* Should the entry be restarted meanwhile, its new connection is of the same two ends and a packet of it is leaving. */
static __always_inline void set_confirmed(struct conn *conn)
{
	if (unlikely(!(READ_ONCE(conn->status) & STATUS_CONFIRMED)))
		__sync_fetch_and_or(conn_word(conn), STATUS_BIT(STATUS_CONFIRMED));
}

/* A packet that was counted at another hook, on its way out. */
static __always_inline void confirm(const struct packet *packet, u64 now, u64 key, struct per_cpu *cpu)
{
	struct conn *conn = find(&packet->tuple);

	if (likely(conn && READ_ONCE(conn->expires) > now))
		set_confirmed(conn);
	else
		accept_offer(packet, key, cpu);
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* TCP: nf_conntrack's state machine. */
#ifndef CTWEB_TCP_H
#define CTWEB_TCP_H

/* What a packet says, by the flag that counts most: RST, SYN, FIN, ACK. */
enum tcp_class { CLASS_SYN, CLASS_SYNACK, CLASS_FIN, CLASS_ACK, CLASS_RST, CLASS_NONE };

/* One row of the transition table: the next state (a nibble) for each state, in the order of enum tcp_state. */
enum { NO, SS, SR, ES, FW, CW, LA, TW, CL, S2, IG = 14, IV = 15 };	/* ignored, invalid */
#define ROW(no, ss, sr, es, fw, cw, la, tw, cl, s2)								\
	((u64)(no) | (u64)(ss) << 4 | (u64)(sr) << 8 | (u64)(es) << 12 | (u64)(fw) << 16 | (u64)(cw) << 20 |	\
	 (u64)(la) << 24 | (u64)(tw) << 28 | (u64)(cl) << 32 | (u64)(s2) << 36)

static __always_inline u64 tcp_next(u64 direction, u64 class, u64 state)
{
	u64 row;

	if (direction == ORIGINAL) {
		switch (class) {		/* NO  SS  SR  ES  FW  CW  LA  TW  CL  S2 */
		case CLASS_SYN:		row = ROW(SS, SS, IG, IG, IG, IG, IG, SS, SS, S2); break;
		case CLASS_SYNACK:	row = ROW(IV, IV, SR, IV, IV, IV, IV, IV, IV, SR); break;
		case CLASS_FIN:		row = ROW(IV, IV, FW, FW, LA, LA, LA, TW, CL, IV); break;
		case CLASS_ACK:		row = ROW(ES, IV, ES, ES, CW, CW, TW, TW, CL, IV); break;
		case CLASS_RST:		row = ROW(IV, CL, CL, CL, CL, CL, CL, CL, CL, CL); break;
		default:		return IV;
		}
	} else {
		switch (class) {
		case CLASS_SYN:		row = ROW(IV, S2, IV, IV, IV, IV, IV, SS, IV, S2); break;
		case CLASS_SYNACK:	row = ROW(IV, SR, IG, IG, IG, IG, IG, IG, IG, SR); break;
		case CLASS_FIN:		row = ROW(IV, IV, FW, FW, LA, LA, LA, TW, CL, IV); break;
		case CLASS_ACK:		row = ROW(IV, IG, SR, ES, CW, CW, TW, TW, CL, IG); break;
		case CLASS_RST:		row = ROW(IV, CL, CL, CL, CL, CL, CL, CL, CL, CL); break;
		default:		return IV;
		}
	}
	return row >> (state * 4) & 15;
}

static __always_inline u64 tcp_class(u64 flags)
{
	if (likely(!(flags & (TCP_RST | TCP_SYN | TCP_FIN))))
		return flags & TCP_ACK ? CLASS_ACK : CLASS_NONE;
	if (flags & TCP_RST)
		return CLASS_RST;
	if (flags & TCP_SYN)
		return flags & TCP_ACK ? CLASS_SYNACK : CLASS_SYN;
	return CLASS_FIN;
}

/* conn->tcp_flags, for each direction. */
enum { TCP_CLOSE_INIT = 1 << 0 };	/* sent the first FIN */

/* A connection's first packet. */
static __always_inline u64 tcp_start(const struct packet *packet, const struct settings *settings, struct start *start)
{
	u64 class = tcp_class(packet->tcp_flags);

	start->last = ORIGINAL << 7 | class;
	if (class == CLASS_SYN) {
		start->state = TCP_SYN_SENT;
		start->timeout = settings->timeout[TCP_SYN_SENT];
		return 0;
	}
	if (class != CLASS_ACK || !settings->tcp_loose)
		return COUNT_INVALID_TCP;
	/* In the middle of a connection that is older than the table. Until the other side answers, not for long. */
	start->state = TCP_ESTABLISHED;
	start->timeout = settings->timeout[TCP_ESTABLISHED];
	if (start->timeout > settings->timeout[TIMEOUT_TCP_UNACKED])
		start->timeout = settings->timeout[TIMEOUT_TCP_UNACKED];
	return 0;
}

/* Moves the state on from `word`'s; gives the old one. Whoever loses a race decides again from the state that the winner left. */
static __always_inline int tcp_packet(struct conn *conn, u64 word, const struct packet *packet, u64 direction,
				      const struct settings *settings, struct change *change)
{
	u64 class = tcp_class(packet->tcp_flags);
	u64 state = word >> STATE_SHIFT & 15, next = TCP_ESTABLISHED;

	if (unlikely(class != CLASS_ACK || state != TCP_ESTABLISHED)) {
		next = tcp_next(direction, class, state);
		if (next == IV)
			return VERDICT_INVALID;
		if (next == TCP_SYN_SENT && state >= TCP_TIME_WAIT) {
			/* A new connection between the old one's ends, if that closed in order or was reset by who calls now. */
			if ((conn->tcp_flags[ORIGINAL] | conn->tcp_flags[REPLY]) & TCP_CLOSE_INIT ||
			    conn->tcp_last == (direction << 7 | CLASS_RST))
				return VERDICT_REOPEN;
			next = IG;
		}
		if (next == TCP_SYN_RECEIVED && direction == REPLY && class == CLASS_ACK)
			next = TCP_ESTABLISHED;		/* the table alone cannot tell a simultaneous open */
	}
	/* A plain byte: of packets at the same time the last one's stays. */
	if (conn->tcp_last != (direction << 7 | class))
		conn->tcp_last = direction << 7 | class;
	if (next == IG)
		return VERDICT_IGNORED;

	if (unlikely(next != state)) {
		if (next == TCP_FIN_WAIT)
			conn->tcp_flags[direction] |= TCP_CLOSE_INIT;	/* only packets of this direction write it */
		for (int i = 0; i < 4; i++) {
			u64 seen = __sync_val_compare_and_swap(conn_word(conn), word,
							       (word & ~(0xffULL << STATE_SHIFT)) | next << STATE_SHIFT);
			if (seen == word)
				break;
			word = seen;
			if ((word >> STATE_SHIFT & 15) != state) {
				state = word >> STATE_SHIFT & 15;
				next = tcp_next(direction, class, state);
				if (next >= IG)
					return VERDICT_IGNORED;
			}
		}
	}

	change->timeout = settings->timeout[class == CLASS_RST ? TCP_CLOSE : next & 15];
	if (unlikely(!(word & STATUS_BIT(STATUS_SEEN_REPLY)))) {
		if (class == CLASS_RST)
			return VERDICT_RESET;
		if (class == CLASS_SYN && state == TCP_SYN_SENT)
			return VERDICT_IGNORED;
		if (next == TCP_ESTABLISHED && change->timeout > settings->timeout[TIMEOUT_TCP_UNACKED])
			change->timeout = settings->timeout[TIMEOUT_TCP_UNACKED];
	} else if (unlikely(!(word & STATUS_BIT(STATUS_ASSURED)))) {
		if (next == TCP_ESTABLISHED && (state == TCP_SYN_RECEIVED || state == TCP_ESTABLISHED))
			change->bits |= STATUS_ASSURED;
	}
	return VERDICT_COUNT;
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* TCP: nf_conntrack's state machine. */
#ifndef CTWEB_TCP_H
#define CTWEB_TCP_H

enum { MAX_RETRANS = 3, STATE_TRIES = 4 };
#define TCP_LONG (120 * 1000000000ULL)

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

/* The smaller of two timeouts. */
static __always_inline u64 capped(const struct settings *settings, u64 timeout, u64 cap)
{
	return settings->timeout[timeout] > settings->timeout[cap] ? settings->timeout[cap] : settings->timeout[timeout];
}

/* A connection's first packet. No window was acknowledged yet, which counts as one of zero: so the cap for that. */
static __always_inline int tcp_start(const struct packet *packet, const struct settings *settings, struct start *start)
{
	u64 class = tcp_class(packet->tcp_flags);

	start->last = ORIGINAL << 7 | class;
	start->window.end = start->window.max_end = packet->end;
	start->window.max_win = packet->window ? packet->window : 1;
	if (class == CLASS_SYN) {
		start->state = TCP_SYN_SENT;
		start->timeout = capped(settings, TCP_SYN_SENT, TIMEOUT_TCP_RETRANS);
		start->flags = packet->options;
		start->scale = packet->scale;
		start->other_max_end = start->window.max_win;
		return 0;
	}
	if (class != CLASS_ACK || !settings->tcp_loose)
		return COUNT_INVALID_TCP;
	/* In the middle of a connection that is older than the table: its window is not known. Until the other side answers, it
	 * does not stay for long. */
	start->state = TCP_ESTABLISHED;
	start->timeout = capped(settings, TCP_ESTABLISHED, TIMEOUT_TCP_UNACKED);
	start->window.max_end += start->window.max_win;
	start->flags = start->other_flags = SIDE_SACK | SIDE_LIBERAL;
	/* The kernel checks it against a window at 0 all the same. Out of it is let through; if it happens to be in, it leaves traces. */
	if (unlikely(before(packet->sack, 1) && before(-ack_window(start->window.max_win) - 1, packet->sack))) {
		u32 reach = packet->window + (packet->sack - packet->ack);

		if (start->window.max_win < reach)
			start->window.max_win = reach;
		start->window.max_ack = packet->ack;
		start->flags |= SIDE_ACKED;
		start->other_max_end = packet->sack + packet->window + !packet->window;
		if (before(start->other_max_end, 0))
			start->other_max_end = 0;
		start->in_window = 1;
	}
	if ((!start->in_window || !packet->window) && start->timeout > settings->timeout[TIMEOUT_TCP_RETRANS])
		start->timeout = settings->timeout[TIMEOUT_TCP_RETRANS];
	return 0;
}

/* What the packet does apart from moving the state on. */
enum tcp_step {
	STEP_WINDOW,		/* if it is in window: all else is settled by the window */
	STEP_ACCEPT,		/* whatever the window says */
	STEP_IGNORE,
	STEP_INVALID,
	STEP_REOPEN,
};

/* A SYN that is let through though the connection is thought alive: what we know of it may be wrong. Its numbers are kept, should
 * the other side answer it. */
static __always_inline int tcp_ignore(struct conn *conn, const struct packet *packet, u64 direction, u64 class, u64 state)
{
	u64 scale = conn->tcp_last >> 3 & 15;

	conn->tcp_last_seq = packet->seq;
	conn->tcp_last_end = packet->end;
	conn->tcp_last_win = packet->window;
	if (class == CLASS_SYN && direction == ORIGINAL) {
		scale = packet->scale;
		conn->tcp_flags[ORIGINAL] = (conn->tcp_flags[ORIGINAL] & ~(SIDE_LAST_1 | SIDE_LAST_2)) | packet->options << 6;
		conn->tcp_flags[REPLY] &= ~(SIDE_CHALLENGE | SIDE_SIMULTANEOUS);
		if (state == TCP_LAST_ACK)
			conn->tcp_flags[REPLY] |= SIDE_CHALLENGE;
	}
	if (state == TCP_SYN_SENT && class == CLASS_ACK && direction == REPLY)
		conn->tcp_last_ack = packet->ack;
	conn->tcp_last = direction << 7 | scale << 3 | class;
	return STEP_IGNORE;
}

/* A SYN-ACK for a SYN that was ignored: both sides are in step and we were not. Take over what was kept of that SYN. */
static __always_inline void tcp_resync(struct conn *conn, u64 direction)
{
	struct tcp_window *asker = &conn->window[direction ^ 1], nothing = {};
	u8 last = conn->tcp_flags[ORIGINAL] >> 6;

	asker->end = asker->max_end = conn->tcp_last_end;
	asker->max_win = conn->tcp_last_win ? conn->tcp_last_win : 1;
	conn->window[direction] = nothing;
	conn->tcp_scales = (conn->tcp_last >> 3 & 15) << ((direction ^ 1) * 4);
	conn->tcp_flags[direction ^ 1] = (conn->tcp_flags[direction ^ 1] & (SIDE_LAST_1 | SIDE_LAST_2)) | last;
	conn->tcp_flags[direction] &= SIDE_LIBERAL | SIDE_LAST_1 | SIDE_LAST_2;
	conn->tcp_flags[REPLY] &= ~SIDE_CHALLENGE;
}

/* A reset of a connection in `state`. */
static __always_inline int tcp_reset(const struct conn *conn, u64 word, const struct packet *packet, u64 direction, u64 state,
				     u64 *next)
{
	u64 last = conn->tcp_last & 7;
	bool assured = word & STATUS_BIT(STATUS_ASSURED);
	bool established = state == TCP_ESTABLISHED && assured;

	if (state >= TCP_FIN_WAIT && state <= TCP_CLOSE)
		return STEP_ACCEPT;	/* closing: the ends may be in use again already */
	if (conn->tcp_flags[direction ^ 1] & SIDE_ACKED && last != CLASS_SYN) {
		u32 expected = conn->window[direction ^ 1].max_ack;

		/* A zero is most likely the answer to a SYN that was let through. */
		if (!packet->seq && !established)
			return STEP_WINDOW;
		if (before(packet->seq, expected))
			return STEP_INVALID;
		if (!established || packet->seq == expected)
			return STEP_WINDOW;
		if (conn->tcp_last == (direction << 7 | (conn->tcp_last & 0x78) | CLASS_ACK) && packet->seq == conn->tcp_last_end)
			return STEP_WINDOW;	/* follows right on data of the same side */
		*next = state;			/* not quite right: the other side may challenge it */
	}
	if (packet->ack == conn->tcp_last_end &&
	    ((word & STATUS_BIT(STATUS_SEEN_REPLY) && last == CLASS_SYN && conn->tcp_last >> 7 != direction) ||
	     (!assured && last == CLASS_ACK)))
		return STEP_ACCEPT;	/* answers what was ignored */
	if (state == TCP_SYN_SENT && last == CLASS_ACK && conn->tcp_last >> 7 == REPLY && packet->seq == conn->tcp_last_ack)
		return STEP_ACCEPT;	/* answers a challenge */
	return STEP_WINDOW;
}

/* Everything but an ACK of an established connection. */
static __always_inline int tcp_step(struct conn *conn, u64 word, const struct packet *packet, u64 direction, u64 class, u64 state,
				    u64 *next)
{
	u64 last = conn->tcp_last & 7, last_direction = conn->tcp_last >> 7;

	*next = tcp_next(direction, class, state);
	switch (*next) {
	case IV:
		return STEP_INVALID;
	case TCP_SYN_SENT:
		if (state < TCP_TIME_WAIT)
			return STEP_WINDOW;
		/* A new connection between the ends of one that closed in order, or was reset by who calls now. */
		if ((conn->tcp_flags[ORIGINAL] | conn->tcp_flags[REPLY]) & SIDE_CLOSED ||
		    (last == CLASS_RST && last_direction == direction))
			return STEP_REOPEN;
		return tcp_ignore(conn, packet, direction, class, state);
	case IG:
		if (class == CLASS_SYNACK && last == CLASS_SYN && last_direction != direction &&
		    packet->ack == conn->tcp_last_end) {
			tcp_resync(conn, direction);
			*next = TCP_SYN_RECEIVED;
			return STEP_WINDOW;
		}
		return tcp_ignore(conn, packet, direction, class, state);
	case TCP_TIME_WAIT:
		if (state == TCP_LAST_ACK && class == CLASS_ACK && last_direction != direction && last == CLASS_SYN &&
		    conn->tcp_flags[REPLY] & SIDE_CHALLENGE) {
			conn->tcp_flags[REPLY] &= ~SIDE_CHALLENGE;
			return STEP_IGNORE;	/* challenges a SYN, and does not acknowledge the FIN */
		}
		return STEP_WINDOW;
	case TCP_LISTEN:
		conn->tcp_flags[REPLY] |= SIDE_SIMULTANEOUS;
		return STEP_WINDOW;
	case TCP_SYN_RECEIVED:
		if (direction == REPLY && class == CLASS_ACK && conn->tcp_flags[REPLY] & SIDE_SIMULTANEOUS)
			*next = TCP_ESTABLISHED;
		return STEP_WINDOW;
	case TCP_CLOSE:
		if (class == CLASS_RST)
			return tcp_reset(conn, word, packet, direction, state, next);
	}
	return STEP_WINDOW;
}

/* An end of an assured connection that is out of window: if both sides seem to end it, it need not stay for a day. */
static __always_inline void tcp_out_of_window(struct conn *conn, u64 word, u64 expires, u64 now, u64 direction, u64 class,
					      const struct settings *settings, struct change *change)
{
	u64 last = conn->tcp_last & 7;

	if (!(word & STATUS_BIT(STATUS_ASSURED)) || (class != CLASS_RST && class != CLASS_FIN))
		return;
	if (conn->tcp_last >> 7 != direction && (last == CLASS_FIN || last == CLASS_RST)) {
		if (expires - now >= TCP_LONG && expires - now > settings->timeout[TIMEOUT_TCP_UNACKED])
			change->timeout = settings->timeout[TIMEOUT_TCP_UNACKED];
	} else {
		conn->tcp_last = direction << 7 | (conn->tcp_last & 0x78) | class;
	}
}

/* Does NAT write addresses of another length into the payload (FTP's PORT)? Then each end acknowledges numbers that the other has not
 * sent: both are seen as they come in, before nf_conntrack sets that right. */
static __always_inline bool is_rewritten(u64 word)
{
	return word & STATUS_BIT(STATUS_HELPER) && word & STATUS_BIT(STATUS_SRCNAT | STATUS_DSTNAT);
}

/* `word`: the entry's, as it was when the packet came. */
static __always_inline int tcp_packet(struct conn *conn, u64 word, u64 expires, u64 now, const struct packet *packet,
				      u64 direction, const struct settings *settings, u64 *scratch, struct change *change)
{
	u64 class = tcp_class(packet->tcp_flags);
	u64 state = word >> STATE_SHIFT & 15, next = TCP_ESTABLISHED;
	int step = STEP_WINDOW;

	if (class != CLASS_ACK || state != TCP_ESTABLISHED) {
		step = tcp_step(conn, word, packet, direction, class, state, &next);
		if (step == STEP_INVALID)
			return VERDICT_INVALID;
		if (step == STEP_IGNORE)
			return VERDICT_IGNORED;
		if (step == STEP_REOPEN)
			return VERDICT_REOPEN;
		u64 all = forget(scratch, class | state << 8 | next << 16 | (u64)step << 24);

		class = all & 7;
		state = all >> 8 & 15;
		next = all >> 16 & 15;
		step = all >> 24;
	}
	if (step == STEP_WINDOW) {
		int window = window_check(conn, packet, direction, class, state);

		if (unlikely(window != WINDOW_IN) && !settings->tcp_liberal && !(conn->tcp_flags[direction] & SIDE_LIBERAL) &&
		    !is_rewritten(word)) {
			if (window == WINDOW_IGNORE)
				return VERDICT_IGNORED;
			tcp_out_of_window(conn, word, expires, now, direction, class, settings, change);
			return VERDICT_INVALID;
		}
	}

	u64 last = direction << 7 | (conn->tcp_last & 0x78) | class;
	if (conn->tcp_last != last)
		conn->tcp_last = last;
	if (unlikely(next != state)) {
		if (next == TCP_FIN_WAIT)
			conn->tcp_flags[direction] |= SIDE_CLOSED;
		/* The bytes beside the state may change meanwhile; if the state itself does, decide again from what it is now. */
		for (int i = 0; i < STATE_TRIES; i++) {
			u64 seen = __sync_val_compare_and_swap(conn_word(conn), word,
							       (word & ~(0xffULL << STATE_SHIFT)) | next << STATE_SHIFT);
			if (seen == word)
				break;
			word = READ_ONCE(*conn_word(conn));
			if ((word >> STATE_SHIFT & 15) != state) {
				state = word >> STATE_SHIFT & 15;
				next = tcp_next(direction, class, state);
				if (next >= IG)
					return VERDICT_IGNORED;
			}
		}
	}

	u64 timeout = settings->timeout[next & 15];
	u64 cap = settings->timeout[TIMEOUT_TCP_RETRANS];

	if (unlikely(conn->tcp_retrans >= MAX_RETRANS) && timeout > cap)
		timeout = cap;
	else if (unlikely(class == CLASS_RST))
		timeout = settings->timeout[TCP_CLOSE];
	else if ((conn->tcp_flags[ORIGINAL] | conn->tcp_flags[REPLY]) & SIDE_UNACKED &&
		 timeout > settings->timeout[TIMEOUT_TCP_UNACKED])
		timeout = settings->timeout[TIMEOUT_TCP_UNACKED];
	else if (unlikely(!conn->tcp_last_win) && timeout > cap)
		timeout = cap;

	if (unlikely(!(word & STATUS_BIT(STATUS_SEEN_REPLY)))) {
		if (class == CLASS_RST)
			return VERDICT_RESET;
		if (class == CLASS_SYN && state == TCP_SYN_SENT)
			return VERDICT_IGNORED;		/* a retransmitted SYN does not keep its entry alive */
		if (next == TCP_ESTABLISHED && timeout > settings->timeout[TIMEOUT_TCP_UNACKED])
			timeout = settings->timeout[TIMEOUT_TCP_UNACKED];
	} else if (unlikely(!(word & STATUS_BIT(STATUS_ASSURED)))) {
		if (next == TCP_ESTABLISHED && (state == TCP_SYN_RECEIVED || state == TCP_ESTABLISHED))
			change->bits |= STATUS_ASSURED;
	}
	change->timeout = timeout;
	return VERDICT_COUNT;
}

#endif

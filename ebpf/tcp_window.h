/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Window tracking, as nf_conntrack's tcp_in_window() does it: the man in the middle guesses what the receiver would take.
 * With S the sender's numbers and R the receiver's, a packet is in window if
 *   I    seq <= S.max_end                      not beyond what the receiver allows
 *   II   end >= S.end - R.max_win              not older than a window
 *   III  sack <= R.end                         acknowledges only what was sent
 *   IV   sack >= R.end - max(S.max_win, 66000) not an acknowledgement older than a window
 * The numbers are written plainly, by packets of both directions. Two CPUs at once may lose an update of one; the next packet
 * makes up for it, for each number only follows the highest seen. */
#ifndef CTWEB_TCP_WINDOW_H
#define CTWEB_TCP_WINDOW_H

enum window { WINDOW_IN, WINDOW_IGNORE, WINDOW_OUT };
enum { ACK_WINDOW = 66000 };

static __always_inline u32 ack_window(u32 max_win)
{
	return max_win > ACK_WINDOW ? max_win : ACK_WINDOW;
}

static __always_inline u64 scale_of(const struct conn *conn, u64 direction)
{
	return conn->tcp_scales >> (direction * 4) & 15;
}

static __always_inline void set_scale(struct conn *conn, u64 direction, u64 scale)
{
	conn->tcp_scales = (conn->tcp_scales & 0xf0 >> (direction * 4)) | scale << (direction * 4);
}

/* The first SYN or SYN-ACK of a side, or one that starts it anew. */
static __always_inline void window_first(struct conn *conn, const struct packet *packet, u64 direction)
{
	struct tcp_window *sender = &conn->window[direction];

	sender->end = sender->max_end = packet->end;
	sender->max_win = packet->window ? packet->window : 1;
	if (packet->has_options) {
		set_scale(conn, direction, packet->scale);
		conn->tcp_flags[direction] = (conn->tcp_flags[direction] & ~(SIDE_SCALE | SIDE_SACK | SIDE_CLOSED | SIDE_UNACKED |
								    SIDE_ACKED)) | packet->options;
	}
	/* Scaling is used if both sides offer it. */
	if (direction == REPLY && !(conn->tcp_flags[ORIGINAL] & conn->tcp_flags[REPLY] & SIDE_SCALE))
		conn->tcp_scales = 0;
}

static __always_inline int window_check(struct conn *conn, const struct packet *packet, u64 direction, u64 class, u64 state)
{
	struct tcp_window *sender = &conn->window[direction], *receiver = &conn->window[direction ^ 1];
	u8 *sender_flags = &conn->tcp_flags[direction], *receiver_flags = &conn->tcp_flags[direction ^ 1];
	u32 seq = packet->seq, end = packet->end, ack = packet->ack, sack = ack, window = packet->window;
	u64 flags = packet->tcp_flags;

	if (*receiver_flags & SIDE_SACK)
		sack = packet->sack;
	if (unlikely(!sender->max_win)) {
		if (flags & TCP_SYN) {
			window_first(conn, packet, direction);
			if (!(flags & TCP_ACK))
				return WINDOW_IN;	/* simultaneous open */
		} else {
			/* In the middle of a connection: begin with what this packet says. */
			u32 scaled = window << scale_of(conn, direction);

			sender->end = end;
			sender->max_win = scaled ? scaled : 1;
			sender->max_end = end + sender->max_win;
			if (!receiver->max_win)
				receiver->end = receiver->max_end = sack;
			else if (sack == receiver->end + 1)
				receiver->end++;	/* likely the answer to a keepalive */
		}
	} else if (unlikely(flags & TCP_SYN) && before(sender->end, end) &&
		   (state == TCP_SYN_SENT || state == TCP_SYN_RECEIVED)) {
		window_first(conn, packet, direction);
		if (direction == REPLY && !(flags & TCP_ACK))
			return WINDOW_IN;
	}
	/* Without an acknowledgement, or with the zero that some stacks put in a reset: as if it were the right one. */
	if (unlikely(!(flags & TCP_ACK) || (flags & TCP_RST && !ack)))
		ack = sack = receiver->end;
	if (unlikely(flags & TCP_RST) && !seq && state == TCP_SYN_SENT)
		seq = end = sender->end;	/* answers a SYN */

	u32 old_ack = receiver->end - ack_window(sender->max_win) - 1;
	bool recent = !receiver->max_win || before(sender->end - receiver->max_win - 1, end);

	if (unlikely(!before(seq, sender->max_end + 1))) {
		u32 overshot = end - sender->max_end + 1;

		if (receiver->max_win && recent && before(old_ack, sack) &&
		    overshot <= receiver->max_win && before(sack, receiver->end + 1)) {
			/* Sends a little more than allowed: should the other side acknowledge it, that must be in window. */
			sender->end = end;
			*sender_flags |= SIDE_UNACKED;
			return WINDOW_IGNORE;
		}
		return WINDOW_OUT;
	}
	if (unlikely(!before(sack, receiver->end + 1)))
		return WINDOW_OUT;
	if (unlikely(!recent || !before(old_ack, sack)))
		return WINDOW_IGNORE;

	if (!(flags & TCP_SYN))
		window <<= scale_of(conn, direction);
	u32 reach = window + (sack - ack);
	u64 mine = *sender_flags, theirs = *receiver_flags;

	if (sender->max_win < reach)
		sender->max_win = reach;
	if (before(sender->end, end)) {
		sender->end = end;
		mine |= SIDE_UNACKED;
	}
	if (flags & TCP_ACK && (!(mine & SIDE_ACKED) || before(sender->max_ack, ack))) {
		sender->max_ack = ack;
		mine |= SIDE_ACKED;
	}
	if (receiver->max_win && before(sender->max_end, end))
		receiver->max_win += end - sender->max_end;
	if (before(receiver->max_end - 1, sack + window))
		receiver->max_end = sack + window + !window;
	if (ack == receiver->end)
		theirs &= ~SIDE_UNACKED;
	if (mine != *sender_flags)
		*sender_flags = mine;
	if (theirs != *receiver_flags)
		*receiver_flags = theirs;

	if (likely(class == CLASS_ACK)) {
		if (conn->tcp_last >> 7 == direction && conn->tcp_last_seq == seq && conn->tcp_last_ack == ack &&
		    conn->tcp_last_end == end && conn->tcp_last_win == packet->window) {
			conn->tcp_retrans++;
		} else {
			conn->tcp_last_seq = seq;
			conn->tcp_last_ack = ack;
			conn->tcp_last_end = end;
			conn->tcp_last_win = packet->window;
			if (conn->tcp_retrans)
				conn->tcp_retrans = 0;
		}
	}
	return WINDOW_IN;
}

#endif

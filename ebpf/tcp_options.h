/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The TCP options that window tracking needs: window scale and SACK permitted (in a SYN), SACK blocks. */
#ifndef CTWEB_TCP_OPTIONS_H
#define CTWEB_TCP_OPTIONS_H

enum tcp_option { OPTION_END, OPTION_NOP, OPTION_SCALE = 3, OPTION_SACK_PERMITTED = 4, OPTION_SACK = 5 };
enum { OPTIONS_MAX = 40, SACK_BLOCKS = 4, SCALE_MAX = 14 };

/* conn->tcp_flags, for each direction: what that side has offered or done. */
enum tcp_side {
	SIDE_SCALE = 1 << 0,		/* offered window scaling */
	SIDE_SACK = 1 << 1,		/* permits SACK */
	SIDE_CLOSED = 1 << 2,		/* sent the first FIN */
	SIDE_LIBERAL = 1 << 3,		/* picked up in the middle: its window is not known */
	SIDE_UNACKED = 1 << 4,		/* sent data that was not acknowledged yet */
	SIDE_ACKED = 1 << 5,		/* max_ack is known */
	SIDE_LAST_1 = 1 << 6,		/* of an ignored SYN, stored with the original direction: SIDE_SCALE */
	SIDE_LAST_2 = 1 << 7,		/* the same: SIDE_SACK */
	SIDE_CHALLENGE = SIDE_LAST_1,	/* with the reply direction: an ACK may come that challenges an ignored SYN */
	SIDE_SIMULTANEOUS = SIDE_LAST_2, /* the same: both sides sent a SYN */
};

static __always_inline u64 option_byte(const volatile struct tcp_options *options, u64 offset)
{
	return ((const volatile u8 *)options->words)[offset & 63];
}

/* Volatile, lest the compiler keep a value where the verifier follows it.
 * One option; false: the list ends here. One that stops short ends it, as in the kernel: what came before it counts. */
static __always_inline bool tcp_option(volatile struct tcp_options *options)
{
	u64 offset = options->offset, length = options->length;
	u64 kind = option_byte(options, offset), size = option_byte(options, offset + 1);

	if (offset >= length || kind == OPTION_END)
		return false;
	if (kind == OPTION_NOP) {
		options->offset = offset + 1;
		return true;
	}
	if (offset + 2 > length || size < 2 || offset + size > length)
		return false;
	options->offset = offset + size;
	if (kind == OPTION_SACK_PERMITTED && size == 2) {
		options->found |= SIDE_SACK;
	} else if (kind == OPTION_SCALE && size == 3) {
		u64 scale = option_byte(options, offset + 2);

		options->scale = scale > SCALE_MAX ? SCALE_MAX : scale;
		options->found |= SIDE_SCALE;
	} else if (kind == OPTION_SACK && size >= 10 && (size & 7) == 2 && !options->sack_size) {
		options->sack_at = offset;
		options->sack_size = size;
	}
	return true;
}

/* The highest end of the first SACK option's blocks; read once, after the list that the verifier walks option by option. */
static __always_inline void tcp_sack(volatile struct tcp_options *options)
{
	u64 size = options->sack_size;

	for (u64 block = 0; block < SACK_BLOCKS; block++) {
		u64 edge = options->sack_at + 6 + block * 8;
		u32 right = option_byte(options, edge) << 24 | option_byte(options, edge + 1) << 16 |
			    option_byte(options, edge + 2) << 8 | option_byte(options, edge + 3);

		if (2 + block * 8 < size && before(options->sack, right))
			options->sack = right;
	}
}

static __always_inline int parse_tcp_options(struct cursor *cursor, u64 length, struct packet *packet,
					     volatile struct tcp_options *options)
{
	u32 *word = cursor->pos;

	packet->has_options = 1;

	if (length == 12) {
		/* What nearly every packet has: two NOPs and a timestamp. */
		u32 *last = take(cursor, 12);
		if (last && *last == hton32(0x0101080a))
			return 0;
		cursor->pos = word;
	}
	options->length = 0;
	options->offset = 0;
	options->found = 0;
	options->scale = 0;
	options->sack_size = 0;
	options->sack = packet->ack;
#pragma unroll
	for (int i = 0; i < OPTIONS_MAX / 4; i++) {
		if (i * 4 < length) {
			word = take(cursor, 4);
			if (!word)
				break;
			options->words[i] = *word;
			options->length = (i + 1) * 4;
		}
	}
#ifndef REPLAY
	if (options->length < length)
		return COUNT_CUT_TRANSPORT;
#endif
	for (int i = 0; i < OPTIONS_MAX; i++)
		if (!tcp_option(options))
			break;
	if (options->sack_size)
		tcp_sack(options);
	packet->options = options->found & (SIDE_SCALE | SIDE_SACK);
	packet->scale = options->scale;
	packet->sack = options->sack;
	return 0;
}

#endif

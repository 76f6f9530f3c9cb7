/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* FTP's control connection, as nf_conntrack_ftp reads it: a packet that begins a line, and there PORT and EPRT from the client, 227 and
 * 229 from the server. The address must be the sender's own. Where nf_conntrack lets odd numbers pass (256 and more, port 0 in
 * PORT and 227, ports that wrap around 65536, empty numbers), nothing is expected. */
#ifndef CTWEB_FTP_H
#define CTWEB_FTP_H

enum ftp_step {
	FTP_SKIP,
	FTP_NUMBERS,		/* h1,h2,h3,h4,p1,p2 */
	FTP_EPRT,		/* |1|address|port|, from its first delimiter */
	FTP_EPRT_FAMILY,
	FTP_EPRT_SECOND,
	FTP_ADDRESS4,
	FTP_ADDRESS6,
	FTP_EPSV,		/* |||port|, from its first delimiter */
	FTP_EPSV_SECOND,
	FTP_EPSV_THIRD,
	FTP_PORT,
	FTP_DONE,
	FTP_BAD,
};

enum { NO_GAP = 99 };

static __always_inline bool is_digit(u64 c)
{
	return c - '0' < 10;
}

static __always_inline bool is_delimiter(u64 c)
{
	return c >= 33 && c <= 126 && !is_digit(c);
}

/* Takes a number of up to 255 over. */
static __always_inline void ftp_number(volatile struct ftp_scan *scan)
{
	scan->byte[scan->count & 15] = scan->value;
	scan->count++;
	scan->value = scan->digits = 0;
}

static __always_inline void ftp_digit(volatile struct ftp_scan *scan, u64 c, u64 largest)
{
	u64 value = scan->value * 10 + c - '0';

	scan->value = value;
	scan->digits++;
	if (value > largest)
		scan->step = FTP_BAD;
}

static __always_inline void ftp_group(volatile struct ftp_scan *scan)
{
	u64 at = (scan->count & 7) * 2;

	scan->byte[at] = scan->value >> 8;
	scan->byte[at + 1] = scan->value;
	scan->count++;
	scan->value = scan->digits = scan->colons = 0;
}

static __always_inline void ftp_address6(volatile struct ftp_scan *scan, u64 c)
{
	u64 letter = (c | 0x20) - 'a';

	if (c == scan->delimiter) {
		if (scan->digits && scan->count < 8)
			ftp_group(scan);
		else if (scan->digits || scan->colons == 1)
			scan->step = FTP_BAD;
		if (scan->gap == NO_GAP ? scan->count != 8 : scan->count == 8)
			scan->step = FTP_BAD;
		if (scan->step == FTP_ADDRESS6)
			scan->step = FTP_PORT;
		scan->digits = 0;
	} else if (is_digit(c) || letter < 6) {
		/* One colon alone may not lead. */
		if (++scan->digits > 4 || scan->count > 7 || (scan->colons == 1 && !scan->count && scan->gap == NO_GAP))
			scan->step = FTP_BAD;
		scan->value = scan->value << 4 | (is_digit(c) ? c - '0' : letter + 10);
	} else if (c != ':') {
		scan->step = FTP_BAD;
	} else if (scan->digits) {
		ftp_group(scan);
		scan->colons = 1;
	} else if (scan->colons == 1 && scan->gap == NO_GAP) {
		scan->gap = scan->count;
		scan->colons = 2;
	} else if (!scan->colons && !scan->count) {
		scan->colons = 1;
	} else {
		scan->step = FTP_BAD;
	}
}

/* One more character. All state is in per-CPU memory, so that the verifier walks each step once for each character. */
static __always_inline void ftp_character(volatile struct ftp_scan *scan, u64 c)
{
	switch (scan->step) {
	case FTP_SKIP:
		if (scan->skip ? c != scan->skip : !is_digit(c))
			break;
		scan->step = scan->next;
		if (!scan->skip)
			ftp_digit(scan, c, 255);
		break;
	case FTP_NUMBERS:
		if (is_digit(c)) {
			ftp_digit(scan, c, 255);
		} else if (!scan->digits) {
			scan->step = FTP_BAD;
		} else if (scan->count == 5) {
			if (c == ',' || (scan->end && c != scan->end)) {
				scan->step = FTP_BAD;
			} else {
				ftp_number(scan);
				scan->port = scan->byte[4] << 8 | scan->byte[5];
				scan->step = scan->port ? FTP_DONE : FTP_BAD;
			}
		} else if (c == ',') {
			ftp_number(scan);
		} else {
			scan->step = FTP_BAD;
		}
		break;
	case FTP_EPRT:
	case FTP_EPSV:
		scan->delimiter = c;
		scan->step = !is_delimiter(c) ? FTP_BAD : scan->step + 1;
		break;
	case FTP_EPRT_FAMILY:
		scan->step = c == (scan->family == 4 ? '1' : '2') ? FTP_EPRT_SECOND : FTP_BAD;
		break;
	case FTP_EPRT_SECOND:
		scan->step = c != scan->delimiter ? FTP_BAD : scan->family == 4 ? FTP_ADDRESS4 : FTP_ADDRESS6;
		break;
	case FTP_EPSV_SECOND:
	case FTP_EPSV_THIRD:
		scan->step = c != scan->delimiter ? FTP_BAD : scan->step == FTP_EPSV_SECOND ? FTP_EPSV_THIRD : FTP_PORT;
		break;
	case FTP_ADDRESS4:
		if (is_digit(c)) {
			ftp_digit(scan, c, 255);
		} else if (!scan->digits || c != (scan->count == 3 ? scan->delimiter : '.')) {
			scan->step = FTP_BAD;
		} else {
			if (scan->count == 3)
				scan->step = c == '.' ? FTP_BAD : FTP_PORT;
			ftp_number(scan);
		}
		break;
	case FTP_ADDRESS6:
		ftp_address6(scan, c);
		break;
	case FTP_PORT:
		if (is_digit(c)) {
			if (!scan->digits)
				scan->value = 0;
			ftp_digit(scan, c, 65535);
		} else {
			scan->port = scan->value;
			scan->step = c == scan->delimiter && scan->value && scan->digits ? FTP_DONE : FTP_BAD;
		}
		break;
	}
}

/* Byte `i` of the address that was read, written out. */
static __always_inline u64 ftp_address_byte(volatile struct ftp_scan *scan, u64 i)
{
	u64 missing = 16 - scan->count * 2, gap = scan->gap * 2;

	if (scan->family == 4 || scan->gap == NO_GAP || i < gap)
		return scan->byte[i & 15];
	return i < gap + missing ? 0 : scan->byte[(i - missing) & 15];
}

/* What the payload begins with; the scan is set up for what follows. FTP_BAD: nothing that is looked for; FTP_DONE: it ends within. */
static __always_inline u64 ftp_begin(struct work *work)
{
	volatile struct ftp_scan *scan = &work->ftp;
	u8 *c = work->payload;
	u32 word = (u32)c[0] << 24 | (u32)c[1] << 16 | (u32)c[2] << 8 | c[3];
	u32 mask = work->read < 4 ? ~0u << (32 - 8 * (work->read & 3)) : ~0u;

	scan->step = FTP_SKIP;
	scan->count = scan->value = scan->digits = scan->colons = scan->port = scan->delimiter = 0;
	scan->gap = NO_GAP;
	scan->end = 0;
	scan->skip = 0;
	if (work->direction == ORIGINAL) {
		word &= 0xdfdfdfdf;	/* capitals */
		scan->skip = ' ';
		if (!((word ^ 0x504f5254) & mask)) {		/* PORT */
			scan->next = FTP_NUMBERS;
			scan->end = '\r';
		} else if (!((word ^ 0x45505254) & mask)) {	/* EPRT */
			scan->next = FTP_EPRT;
		} else {
			return FTP_BAD;
		}
	} else if (!((word ^ 0x32323720) & mask)) {		/* "227 " */
		scan->next = FTP_NUMBERS;
	} else if (!((word ^ 0x32323920) & mask)) {		/* "229 " */
		scan->next = FTP_EPSV;
		scan->skip = '(';
	} else {
		return FTP_BAD;
	}
	return work->read <= 4 ? FTP_DONE : FTP_SKIP;
}

/* True: the payload has a command or reply, and its port is in scan->port. */
static __always_inline bool ftp_read(struct work *work, const u8 *own_address)
{
	volatile struct ftp_scan *scan = &work->ftp;
	u64 different = 0;

	for (u32 i = 4; i < PAYLOAD_MAX; i++) {
		if (i >= *(volatile u64 *)&work->read || scan->step >= FTP_DONE)
			break;
		ftp_character(scan, *(volatile u8 *)&work->payload[i]);
	}
	if (scan->step != FTP_DONE)
		return false;
	if (scan->next == FTP_EPSV)
		return true;
	/* PORT and 227 speak of IPv4 alone: on an IPv6 connection they are somebody else's. */
	if (scan->next == FTP_NUMBERS && scan->family != 4)
		return false;
	for (u32 i = 0; i < 16; i++) {
		if (i < 4 || scan->family == 6)
			different |= ftp_address_byte(scan, i) ^ own_address[i];
	}
	return !different;
}

static __always_inline bool ftp_begins_line(const struct watch *watch, u64 direction, u32 seq)
{
	const u32 *start = watch->line_start[direction & 1];
	u32 known = watch->line_starts[direction & 1];

	return (known > 0 && start[0] == seq) || (known > 1 && start[1] == seq);
}

static __always_inline void ftp_line_ended(struct watch *watch, u64 direction, u32 seq)
{
	u32 *start = watch->line_start[direction & 1];
	u32 known = watch->line_starts[direction & 1];

	if (ftp_begins_line(watch, direction, seq))
		return;
	if (known < 2) {
		start[known & 1] = seq;
		watch->line_starts[direction & 1] = known + 1;
	} else {
		start[!before(start[0], start[1])] = seq;
	}
}

/* `own_address`: the sender's, as in the packet. */
static __always_inline void ftp_packet(struct per_cpu *cpu, struct work *work, struct watch *watch, const u8 *own_address, u64 now)
{
	u32 seq = cpu->packet.seq;

	if (ftp_begins_line(watch, work->direction, seq)) {
		u64 begins = ftp_begin(work);

		if (begins == FTP_DONE)
			return;
		if (begins != FTP_BAD) {
			work->ftp.family = cpu->packet.tuple.family;
			/* As in nf_conntrack what follows a refused one does not begin a line. */
			if (!ftp_read(work, own_address))
				return;
			/* From the one who was told to the one who told it. */
			directed(&work->key, &cpu->packet.tuple, !cpu->packet.from_hi);
			work->key.lo_port = 0;
			work->key.hi_port = hton16(work->ftp.port);
			expect(work, watch, &cpu->packet.tuple, 0, TYPE_FTP, now);
		}
	}
	if (work->last == '\n')
		ftp_line_ended(watch, work->direction, seq + work->length);
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* TFTP, as nf_conntrack_tftp reads it: the server answers a request from another port. */
#ifndef CTWEB_TFTP_H
#define CTWEB_TFTP_H

enum { TFTP_READ = 1, TFTP_WRITE = 2 };

static __always_inline void tftp_packet(struct per_cpu *cpu, struct work *work, struct watch *watch, u64 now)
{
	u64 opcode = (u64)work->payload[0] << 8 | work->payload[1];

	if (work->read < 2 || (opcode != TFTP_READ && opcode != TFTP_WRITE))
		return;
	/* From the server to the port that the client asked from, whoever of them sent this. */
	directed(&work->key, &cpu->packet.tuple, !(cpu->packet.from_hi ^ work->direction));
	work->key.lo_port = 0;
	expect(work, watch, &cpu->packet.tuple, 0, TYPE_TFTP, now);
}

#endif

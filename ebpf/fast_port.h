/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The interfaces that the fast path (forward.h) may take packets from and send them to. */
#ifndef CTWEB_FAST_PORT_H
#define CTWEB_FAST_PORT_H

enum { FAST_PORTS = 4096 };	/* the first interface index that cannot take part */

enum fast_port_flags {
	PORT_TAKES_PART = 1 << 0,
	PORT_VIRTUAL = 1 << 1,	/* checksums may be left to hardware that is not there */
};

struct fast_port {
	u8 mac[6];
	u16 flags;
};
_Static_assert(sizeof(struct fast_port) == 8, "struct fast_port");

/* Interfaces by index. Both written by user space, read by xdp_fasttrack. */
BPF_TABLE("array", u32, struct fast_port, fast_ports, FAST_PORTS);
BPF_DEVMAP(fast_devices, FAST_PORTS);

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The maps that all of it shares: who writes each, who reads it. The table of connections is in table.h. */
#ifndef CTWEB_MAPS_H
#define CTWEB_MAPS_H

/* One element. Written by user space before anything runs, but for one field; read by the packet programs. */
BPF_TABLE("array", u32, struct size, size, 1);

/* One element, each field in a cache line of its own. Written by the packet programs; `live` also by the reaper. */
struct shared {
	u64 live;		/* connections; signed, for entries that user space puts there itself are not counted */
	u64 pad[7];
	u64 fresh_head;		/* positions in the ring of new connections (room.h), ever growing: the next one to write, */
	u64 pad2[7];
	u64 fresh_tail;		/* and the oldest one */
	u64 pad3[7];
	u64 seed[2];		/* of the index, as in struct size; here a later run finds it again. Written and read by user space alone */
	u64 pad4[6];
	u64 places_used;	/* how many have ever been (places.h), and of those that were given back the ring's positions: */
	u64 pad5[7];
	u64 spare_head;		/* the oldest one, */
	u64 pad6[7];
	u64 spare_tail;		/* and the next one to write */
	u64 pad7[7];
};
BPF_TABLE("array", u32, struct shared, shared, 1);

/* One element. Written by user space, read by the packet programs. */
BPF_TABLE("array", u32, struct settings, settings, 1);

struct per_cpu {
	/* Working space for one packet; two packet programs on a CPU do not interrupt one another. */
	struct quick quick;	/* most packets touch this and the first two counters, and nothing else here: */
	u64 counter[64];	/* by enum counter; a power of two, so that an index can be masked */
	u64 last_id;		/* sequence of connection ids made on this CPU */
	u64 scratch;
	struct packet packet;
	struct tcp_options options;
	struct start start;
	struct conn moved;	/* on its way to another place (translate.h) */
	struct translation translation;
	u64 egress;		/* for the long way (hooks.h): 1: the hook is egress, */
	u64 counted;		/* 1: the packet was counted at another hook, */
	u64 ethertype;		/* of a device without a link header; 0: it has one */
	u64 absent;		/* 1: the short way has looked for the packet's connection, and there is none */
	u64 watched;		/* 1: a helper watches the packet's connection */
	struct datagram datagram;
	u64 aside;		/* enum aside: what another program is to do for the packet (aside.h) */
	u64 started;		/* the packet has started a connection, or tried to */
	u64 offered;		/* id of the packet's connection, if nothing of it has left yet (nat.h) */
};
_Static_assert(__builtin_offsetof(struct per_cpu, counter) + 2 * sizeof(u64) <= 128, "struct per_cpu: two cache lines for most packets");

/* One element per CPU. Written by the packet programs; the counters also by the reaper. User space reads the counters. */
BPF_TABLE("percpu_array", u32, struct per_cpu, per_cpu, 1);

/* ifindex of a tracked interface -> its hooks. Written by user space, read at tc egress. */
BPF_TABLE("hash", u32, u32, interfaces, 4096);

#ifdef REPLAY
/* Connections as they end. Written by the packet programs and the reaper, emptied by user space before it can be full. */
BPF_RINGBUF_OUTPUT(ended, ENDED_PAGES);
#endif

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Every map: who writes it, who reads it. */
#ifndef CTWEB_MAPS_H
#define CTWEB_MAPS_H

/* The table. Written by the packet programs and the reaper; read by user space in batches. Memory as needed, or all of it at the start
 * (`preallocate`): the rules are the same, for an entry that was deleted may be used again at once either way. It has room for more than
 * max_entries: connections that are over and not deleted yet. */
BPF_F_TABLE("hash", struct tuple, struct conn, connections, SIZED_AT_START, BPF_F_NO_PREALLOC);

/* One element. Written by user space, read by the packet programs when connections are made. */
BPF_TABLE("array", u32, struct size, size, 1);

/* One element, each field in a cache line of its own. Written by the packet programs; `live` also by the reaper. */
struct shared {
	u64 live;		/* connections; signed, for entries that user space puts there itself are not counted */
	u64 pad[7];
	u64 fresh_head;		/* positions in the ring of new connections (room.h), ever growing: the next one to write, */
	u64 pad2[7];
	u64 fresh_tail;		/* and the oldest one */
	u64 pad3[7];
	u64 grave;
	u64 pad4[7];
};
BPF_TABLE("array", u32, struct shared, shared, 1);

/* One element. Written by user space, read by the packet programs. */
BPF_TABLE("array", u32, struct settings, settings, 1);

struct per_cpu {
	u64 counter[64];	/* by enum counter; a power of two, so that an index can be masked */
	u64 last_id;		/* sequence of connection ids made on this CPU */
	/* Working space for one packet; two packet programs on a CPU do not interrupt one another. */
	u64 scratch;
	struct packet packet;
	struct quick quick;
	struct tcp_options options;
	struct start start;
	struct conn fresh;	/* where a new entry is put together */
	struct tuple victim;
	struct tuple buried;
	struct translation translation;
	u64 egress;		/* for the long way (hooks.h): 1: the hook is egress, */
	u64 counted;		/* 1: the packet was counted at another hook, */
	u64 ethertype;		/* of a device without a link header; 0: it has one */
	u64 watched;		/* 1: a helper watches the packet's connection */
	struct datagram datagram;
	u64 aside;		/* enum aside: what another program is to do for the packet (aside.h) */
	u64 started;		/* the packet has started a connection, or tried to */
	u64 offered;		/* id of the packet's connection, if nothing of it has left yet (nat.h) */
};

/* One element per CPU. Written by the packet programs; the counters also by the reaper. User space reads the counters. */
BPF_TABLE("percpu_array", u32, struct per_cpu, per_cpu, 1);

/* ifindex of a tracked interface -> its hooks. Written by user space, read at tc egress. */
BPF_TABLE("hash", u32, u32, interfaces, 4096);

#ifdef REPLAY
/* Connections as they end. Written by the packet programs and the reaper, emptied by user space before it can be full. */
BPF_RINGBUF_OUTPUT(ended, ENDED_PAGES);
#endif

#endif

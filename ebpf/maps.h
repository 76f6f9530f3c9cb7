/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Every map: who writes it, who reads it. */
#ifndef CTWEB_MAPS_H
#define CTWEB_MAPS_H

/* The table. Written by the packet programs and the reaper; read by user space in batches. Memory as needed. */
BPF_F_TABLE("hash", struct tuple, struct conn, connections, MAX_ENTRIES, BPF_F_NO_PREALLOC);

/* One element. Written by user space, read by the packet programs. */
BPF_TABLE("array", u32, struct settings, settings, 1);

/* One element per CPU. Written by the packet programs and the reaper, read by user space. */
BPF_TABLE("percpu_array", u32, struct counters, counters, 1);

/* One element per CPU: where a packet program puts a new entry together, for the stack is too small. Nobody else reads it. */
BPF_TABLE("percpu_array", u32, struct conn, fresh, 1);

/* ifindex of a tracked interface -> its hooks. Written by user space, read at tc egress. */
BPF_TABLE("hash", u32, u32, interfaces, 4096);

#ifdef REPLAY
/* Connections as they end. Written by the packet programs and the reaper, emptied by user space before it can be full. */
BPF_RINGBUF_OUTPUT(ended, ENDED_PAGES);
#endif

#endif

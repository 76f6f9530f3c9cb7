/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The table that grows, see table.h. What the functions do is the same in both. */
#ifndef CTWEB_TABLE_GROWS_H
#define CTWEB_TABLE_GROWS_H

/* Written by the packet programs and the reaper; read by user space in batches. An entry that was deleted may be used again at once. It has
 * room for more than max_entries: connections that are over and not deleted yet. */
BPF_F_TABLE("hash", struct tuple, struct conn, connections, SIZED_AT_START, BPF_F_NO_PREALLOC);

/* Up to this `expires`, a tuple has no connection: not in the table, or over and not deleted yet. */
#define LAST_ABSENT EXPIRES_ENDED

static __always_inline struct conn *find(const struct tuple *tuple)
{
	return connections.lookup((struct tuple *)tuple);
}

/* As find(), for programs that look for many: what follows is the same to the verifier, however it was found. */
static __always_inline struct conn *find_each(const struct tuple *tuple, struct per_cpu *cpu)
{
	return find(tuple);
}

/* Where a new entry is put together, for publish(). Null: there is no room. Its `expires` stays as it is. */
static __always_inline struct conn *draft(struct per_cpu *cpu, u64 now)
{
	return &cpu->fresh;
}

/* The draft is in the table from here on. Not 0: it is not, for no memory is left or (-EEXIST) its tuple is there already. */
static __always_inline int publish(const struct tuple *tuple, struct conn *conn, u64 expires, u64 now)
{
	conn->expires = expires;
	return connections.insert((struct tuple *)tuple, conn);
}

/* Of an entry that is over, by the owner of its claim. */
static __always_inline void take_out(const struct tuple *tuple, struct conn *conn, u64 now)
{
	connections.delete((struct tuple *)tuple);
}

#endif

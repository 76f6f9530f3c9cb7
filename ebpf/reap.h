/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The reaper: run by user space through PROG_TEST_RUN, with the keys it has chosen as packet data. Entry by entry the program
 * decides for itself. Returns how many entries it deleted or ended. */
#ifndef CTWEB_REAP_H
#define CTWEB_REAP_H

enum reap_mode {
	REAP_EXPIRED,		/* end what has been expired since before `when` */
	REAP_REMOVE,		/* end the connections with these ids */
	REAP_REMEMBER,		/* entries that user space has put there, before any packet: they are connections now, in this order */
};

enum { REAP_KEYS = 8 };	/* the verifier walks the loop turn by turn */

struct reap_key {
	struct tuple tuple;
	u64 id;			/* REAP_REMOVE */
};

struct reap_request {
	u64 when;		/* datapath time */
	u64 now;
	u32 mode;
	u32 keys;
	struct reap_key key[REAP_KEYS];
};

static __always_inline int reap_one(struct reap_request *request, const struct reap_key *key, struct per_cpu *cpu)
{
	struct tuple tuple = key->tuple;
	struct conn *conn = find_each(&tuple, cpu);
	if (!conn)
		return 0;
	u64 expires = READ_ONCE(conn->expires);

	if (expires == EXPIRES_CLAIMED)
		return 0;
	if (request->mode == REAP_REMEMBER) {
		u64 position = take_position();

		conn->fresh = position;
		count_live(1);
		remember(conn, position);
		return 1;
	}
	if (request->mode == REAP_REMOVE) {
		if (conn->id != key->id || !claim(conn, expires))
			return 0;
		end(conn, cpu, COUNT_REMOVED);
		take_out(conn, request->now);
		return 1;
	}
	if (expires > request->when || !claim(conn, expires))
		return 0;
	end(conn, cpu, COUNT_EXPIRED);
	take_out(conn, request->now);
	return 1;
}

/* Run by user space as well: entries from elsewhere, written as they are, over those under the same tuples. Returns how many found a place. */
enum { PUT_ENTRIES = 3 };	/* the verifier walks the loop turn by turn */

struct put_entry {
	struct tuple tuple;
	struct conn conn;
};

struct put_request {
	u64 now;		/* datapath time */
	u64 entries;
	struct put_entry entry[PUT_ENTRIES];
};

static __always_inline int put_one(const struct put_entry *entry, u64 now, struct per_cpu *cpu)
{
	struct tuple tuple = entry->tuple;
	u64 expires = entry->conn.expires;
	struct conn *conn = find_each(&tuple, cpu);

	if (conn) {
		*conn = entry->conn;
		return 1;
	}
	conn = draft(cpu, now);
	if (!conn)
		return 0;
	*conn = entry->conn;
	conn->expires = EXPIRES_CLAIMED;
	return !publish(&tuple, conn, expires, now);
}

int put(struct __sk_buff *skb)
{
	struct put_request *request = (void *)(long)skb->data;
	u32 zero = 0, done = 0;
	struct per_cpu *cpu = per_cpu.lookup(&zero);

	if (!cpu || (void *)(request + 1) > (void *)(long)skb->data_end)
		return 0;
	for (u32 i = 0; i < PUT_ENTRIES; i++) {
		if (i >= request->entries)
			break;
		done = forget(&cpu->scratch, done + put_one(&request->entry[i], request->now, cpu));
	}
	return done;
}

int reap(struct __sk_buff *skb)
{
	struct reap_request *request = (void *)(long)skb->data;
	u32 zero = 0, done = 0;
	struct per_cpu *cpu = per_cpu.lookup(&zero);

	if (!cpu || (void *)(request + 1) > (void *)(long)skb->data_end)
		return 0;
	for (u32 i = 0; i < REAP_KEYS; i++) {
		if (i >= request->keys)
			break;
		done = forget(&cpu->scratch, done + reap_one(request, &request->key[i], cpu));
	}
	return done;
}

#endif

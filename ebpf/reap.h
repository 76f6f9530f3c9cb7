/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The reaper: run by user space through PROG_TEST_RUN, with the keys it has chosen as packet data. Entry by entry the program
 * decides for itself. Returns how many entries it deleted or ended. */
#ifndef CTWEB_REAP_H
#define CTWEB_REAP_H

enum reap_mode {
	REAP_EXPIRED,		/* end and delete what has been expired, or has been ended, since before `when` */
	REAP_REMOVE,		/* end the connections with these ids; a later REAP_EXPIRED deletes their entries */
	REAP_REMEMBER,		/* entries that user space has put there, before any packet: they are connections now, in this order */
};

enum { REAP_KEYS = 64 };

struct reap_key {
	struct tuple tuple;
	u64 id;			/* REAP_REMOVE */
};

struct reap_request {
	u64 when;		/* datapath time, at least a grace period ago: no program that saw the entry alive runs any more */
	u64 now;
	u32 mode;
	u32 keys;
	struct reap_key key[REAP_KEYS];
};

static __always_inline int reap_one(struct reap_request *request, const struct reap_key *key, struct per_cpu *cpu)
{
	struct tuple tuple = key->tuple;
	struct conn *conn = connections.lookup(&tuple);
	if (!conn)
		return 0;
	u64 expires = READ_ONCE(conn->expires);

	if (expires == EXPIRES_CLAIMED)
		return 0;
	if (request->mode == REAP_REMEMBER) {
		u64 place = take_place(&tuple);

		conn->fresh = place;
		count_live(1);
		remember(&tuple, place);
		return 1;
	}
	if (request->mode == REAP_REMOVE) {
		if (expires == EXPIRES_ENDED || conn->id != key->id || !claim(conn, expires))
			return 0;
		end(&tuple, conn, expires, request->now, cpu, COUNT_REMOVED);
		__sync_lock_test_and_set(&conn->expires, EXPIRES_ENDED);
		return 1;
	}
	if (expires > request->when || (expires == EXPIRES_ENDED && conn->created > request->when) || !claim(conn, expires))
		return 0;
	end(&tuple, conn, expires, request->now, cpu, COUNT_EXPIRED);
	connections.delete(&tuple);
	return 1;
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
		done += reap_one(request, &request->key[i], cpu);
	}
	return done;
}

#endif

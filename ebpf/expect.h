/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Expectations: connections that a control connection has announced (FTP, TFTP, PPTP), as nf_conntrack's helpers make them. One is
 * used up by the connection that it expects, which then is `expected` and of the control connection's connection-type. */
#ifndef CTWEB_EXPECT_H
#define CTWEB_EXPECT_H

enum { EXPECTATIONS = 4096 };

struct expectation {
	struct tuple master;	/* the control connection: an expectation does not outlive it */
	u64 master_id;
	u64 expires;
	u32 type;		/* enum conn_type */
	u32 pad;
};
_Static_assert(sizeof(struct expectation) == 64, "struct expectation");

/* From `lo` to `hi`, not normalised; lo_port 0: any. Written by the helper programs, which also take away what is used up. Bounded:
 * when it is full, the one that was not asked for longest gives way. */
BPF_TABLE("lru_hash", struct tuple, struct expectation, expectations, EXPECTATIONS);

/* One element: when the last expectation expires. Written by the helper programs; read when a connection starts, so that none is
 * looked for where there can be none. */
BPF_TABLE("array", u32, u64, expecting, 1);

#endif

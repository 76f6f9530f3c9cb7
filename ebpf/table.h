/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The table of connections: find() an entry by its tuple, publish() a draft(), take_out(). There are two, which are the same to all that use
 * them:
 *   table_grows.h: the kernel's hash map. It takes an entry's memory when it comes, and gives it back.
 *   table_whole.h: made whole at the start (`preallocate`): entries in places (places.h), and an index of our own (index.h). A packet then
 *   touches two cache lines that another connection's has not, one of the index and one of the entry, and calls nothing; the hash map's
 *   are four or five, behind a call that hashes and compares by the byte. docs/benchmarks.md says what that saves. */
#ifndef CTWEB_TABLE_H
#define CTWEB_TABLE_H

enum { ENOMEM = 12, EEXIST = 17 };

#ifdef TABLE_GROWS
#include "table_grows.h"
#else
#include "places.h"
#include "index.h"
#include "table_whole.h"
#endif

#endif

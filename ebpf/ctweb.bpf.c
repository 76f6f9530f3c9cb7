/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The datapath of ctweb, as the story of one packet:
 *   1. A hook hands its frame to parse(), which makes a tuple and a direction of it, or says why it cannot.
 *   2. track() finds the tuple's connection or starts one, lets the protocol decide, and counts.
 *   3. The frame goes on its way: no program here ever drops or changes one.
 * Compiled by BCC at start (ctweb/datapath/build.py), which sets what config.h names. */
#include "wire.h"
#include "types.h"
#include "config.h"
#include "packet.h"
#include "state.h"
#include "maps.h"
#include "icmp.h"
#include "tcp_options.h"
#include "gre.h"
#include "parse.h"
#include "tcp_window.h"
#include "tcp.h"
#include "udp.h"
#include "services.h"
#include "table.h"
#include "fresh.h"
#include "conn.h"
#include "room.h"
#include "nat.h"
#include "quick.h"
#include "track.h"
#include "reap.h"
#include "fasttrack.h"
#include "translate.h"
#include "programs.h"
#include "rules.h"
#include "expect.h"
#include "ftp.h"
#include "tftp.h"
#include "pptp.h"
#include "helpers.h"
#include "fragments.h"
#include "icmp_error.h"
#include "aside.h"
#include "hooks.h"
#ifndef REPLAY
#include "forward.h"
#endif

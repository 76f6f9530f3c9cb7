"""A datapath that grows, in a process of its own whose memory somebody else limits.

Reads numbers from standard input, a line each: begins so many connections, all of them new, and answers with the
kernel's counters as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import closing

from entries import packet

from ctweb.datapath.build import BuildOptions, compile_datapath
from ctweb.datapath.growth import growing
from ctweb.settings import Tracking

MOST = 300_000


def main() -> None:
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    with closing(compile_datapath(BuildOptions(MOST))) as datapath, growing(datapath.memory):
        datapath.apply(Tracking(udp_timeout=3_600_000))
        begun = 0
        for line in sys.stdin:
            number = int(line)
            for host in range(begun, begun + number):
                packet(datapath, host)
            begun += number
            print(json.dumps(datapath.read_counters()), flush=True)


if __name__ == "__main__":
    main()

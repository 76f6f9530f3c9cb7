"""Large sends with offloads on: nf_conntrack counts what the stack hands on in one piece, the table what it becomes."""

from __future__ import annotations

import pytest
from lab.network import IPV4, IPV6, client_router_server, network
from lab.tracked import CONFIG, Count, Tracked
from lab.traffic import agree, bulk, conntrack, conntrack_count, watch_with_conntrack

SIZE = 3_000_000  # bytes each way
TCP_HEADER = 32  # with the timestamp option


@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_tcp(tmp_path, hook):
    with network("par-") as net:
        client, router, server = client_router_server(net)
        for machine in (client, router, server):
            machine.offloads("on")
        watch_with_conntrack(router)
        ctweb = Tracked(router, tmp_path, "--hook", hook, config=CONFIG)
        for ends in (IPV4, IPV6):
            with bulk(ends, client, server, SIZE) as (near, far):
                agree(ctweb, ends, near, far)  # with what the two ends have sent
                ours = Count.of(ctweb.row(src_address=ends.shown(ends.client, near.getsockname()[1])))
                (line,) = conntrack(router, ends, near.getsockname()[1])
            kernel = conntrack_count(line)
            each = ends.header + TCP_HEADER
            # The same data; for each packet more that it is on the wire, a header more.
            assert ours.orig_bytes - kernel.orig_bytes == each * (ours.orig_packets - kernel.orig_packets)
            assert ours.repl_bytes - kernel.repl_bytes == each * (ours.repl_packets - kernel.repl_packets)
            if hook == "tc":  # XDP at the router's end has its peer send packet by packet
                assert ours.orig_packets > 2 * kernel.orig_packets
        assert ctweb.end() == 0

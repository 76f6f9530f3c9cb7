"""What the numbers in the columns are called: status bits, flag letters, TCP states, IP protocols.

The values of Status and the order of TCP_STATES are those of ebpf/types.h; a test holds them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag


class Status(IntFlag):
    """Bits of the `status` column (enum status in ebpf/types.h)."""

    NONE = 0
    SWAPPED = 1 << 0
    SEEN_REPLY = 1 << 1
    ASSURED = 1 << 2
    CONFIRMED = 1 << 3
    EXPECTED = 1 << 4
    FASTTRACK = 1 << 5
    SRCNAT = 1 << 6
    DSTNAT = 1 << 7
    HELPER = 1 << 8
    MARK_TOLD = 1 << 9


@dataclass(frozen=True)
class Flag:
    """A yes/no property and the letter that stands for it. `status` NONE: no status bit says so."""

    letter: str
    name: str
    status: Status = Status.NONE


# In RouterOS's print order.
FLAGS = (
    Flag("E", "expected", Status.EXPECTED),
    Flag("S", "seen-reply", Status.SEEN_REPLY),
    Flag("A", "assured", Status.ASSURED),
    Flag("C", "confirmed", Status.CONFIRMED),
    Flag("D", "dying"),
    Flag("F", "fasttrack", Status.FASTTRACK),
    Flag("H", "hw-offload"),
    Flag("s", "srcnat", Status.SRCNAT),
    Flag("d", "dstnat", Status.DSTNAT),
    Flag("h", "uses-helper", Status.HELPER),
)
FLAG_BIT = {flag.name: 1 << i for i, flag in enumerate(FLAGS)}
"""Bits of `Facts.flags`, by property name."""

# By enum tcp_state. `listen` is RouterOS's name for a simultaneous open.
TCP_STATES = (
    "none",
    "syn-sent",
    "syn-received",
    "established",
    "fin-wait",
    "close-wait",
    "last-ack",
    "time-wait",
    "close",
    "listen",
)
TCP_STATE_NUMBERS = {name: number for number, name in enumerate(TCP_STATES)} | {"syn-recv": 2}

# By enum conn_type. 0: none.
CONNECTION_TYPES = ("", "pptp", "ftp", "h323", "sip", "irc", "tftp", "quake3")
CONNECTION_TYPE_NUMBERS = {name: number for number, name in enumerate(CONNECTION_TYPES) if name}

# What GRE carries, by number in Facts.gre_protocol; the ethertypes of all but the first.
GRE_PROTOCOLS = ("other", "ip", "ipv6", "ethernet", "mpls", "ppp", "erspan")
GRE_ETHERTYPES = (0x0800, 0x86DD, 0x6558, 0x8847, 0x880B, 0x88BE)
GRE_PROTOCOL_NUMBERS = {name: number for number, name in enumerate(GRE_PROTOCOLS)}
GRE_KEYED, GRE_CALL = 1, 2  # enum gre_variant

ICMP, TCP, UDP, DCCP, GRE, ICMPV6, SCTP, UDP_LITE = 1, 6, 17, 33, 47, 58, 132, 136

WITH_PORTS = (TCP, UDP, DCCP, SCTP, UDP_LITE)
WITH_ICMP_TYPE = (ICMP, ICMPV6)

# As RouterOS spells them; a protocol without a name is written as its number.
_PROTOCOLS = {
    ICMP: "icmp",
    2: "igmp",
    3: "ggp",
    4: "ipencap",
    5: "st",
    TCP: "tcp",
    8: "egp",
    12: "pup",
    UDP: "udp",
    20: "hmp",
    22: "xns-idp",
    27: "rdp",
    29: "iso-tp4",
    DCCP: "dccp",
    36: "xtp",
    37: "ddp",
    38: "idpr-cmtp",
    41: "ipv6-encap",
    43: "ipv6-route",
    44: "ipv6-frag",
    46: "rsvp",
    GRE: "gre",
    50: "ipsec-esp",
    51: "ipsec-ah",
    ICMPV6: "icmpv6",
    59: "ipv6-nonxt",
    60: "ipv6-opts",
    73: "rspf",
    81: "vmtp",
    89: "ospf",
    94: "ipip",
    97: "etherip",
    98: "encap",
    103: "pim",
    112: "vrrp",
    115: "l2tp",
    SCTP: "sctp",
    UDP_LITE: "udp-lite",
}
PROTOCOLS = tuple(_PROTOCOLS.get(number, str(number)) for number in range(256))
"""The name of each of the 256 IP protocols."""

PROTOCOL_NUMBERS = (
    {str(number): number for number in range(256)}
    | {name: number for number, name in _PROTOCOLS.items()}
    | {"udplite": UDP_LITE, "ipv6-icmp": ICMPV6, "icmp6": ICMPV6, "esp": 50, "ah": 51}
)

# By enum counter (ebpf/types.h), as Snapshot.counters names them.
END_CAUSES = ("expired", "early-drop", "reset", "reopened", "removed", "merged")
"""Counters of connections that are over, by cause."""

UNTRACKED_REASONS = (
    "cut-link",
    "cut-ip",
    "malformed-ip",
    "malformed-extension",
    "cut-transport",
    "malformed-transport",
    "fragment",
    "invalid-tcp",
    "ignored-tcp",
    "invalid-icmp",
    "icmp-error",
    "neighbour",
    "refused",
    "busy",
)
"""Counters of packets that belong to no connection, by reason."""

"""Link types: every packet becomes the Ethernet frame that the datapath's program reads.

Numbers and layouts: the tcpdump group's registry of LINKTYPE_ values. An IP packet without an Ethernet
header gets one with zero addresses; what is no IP packet gets the EtherType 0 and is left alone by the program.
"""

from __future__ import annotations

from collections.abc import Callable

from ctweb.capture.source import CaptureError

ETHERNET = 1

_ADDRESSES = bytes(12)
_IPV4 = _ADDRESSES + b"\x08\x00"
_IPV6 = _ADDRESSES + b"\x86\xdd"
_OTHER = _ADDRESSES + b"\x00\x00"

# The address families that a null or loopback header may name: AF_INET is 2 everywhere,
# AF_INET6 is 10 on Linux, 23 on Windows, 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on macOS.
_BY_FAMILY = {2: _IPV4, 10: _IPV6, 23: _IPV6, 24: _IPV6, 28: _IPV6, 30: _IPV6}


def _ip(packet: bytes) -> bytes:
    """Raw IP: the version is in the first four bits."""
    version = packet[0] >> 4 if packet else 0
    return {4: _IPV4, 6: _IPV6}.get(version, _OTHER) + packet


def _ipv4(packet: bytes) -> bytes:
    return _IPV4 + packet


def _ipv6(packet: bytes) -> bytes:
    return _IPV6 + packet


def _loopback(packet: bytes) -> bytes:
    """Four bytes of address family, in the byte order of the machine that captured (a family is a small number)."""
    if len(packet) < 4:
        return _OTHER
    family = min(int.from_bytes(packet[:4], "little"), int.from_bytes(packet[:4], "big"))
    return _BY_FAMILY.get(family, _OTHER) + packet[4:]


def _cooked(packet: bytes) -> bytes:
    """Linux cooked v1: type 2, ARPHRD 2, address length 2, address 8, then the EtherType (a VLAN's tag may follow)."""
    return _ADDRESSES + packet[14:] if len(packet) >= 16 else _OTHER


def _cooked2(packet: bytes) -> bytes:
    """Linux cooked v2: the EtherType, then 18 bytes of interface and address."""
    return _ADDRESSES + packet[:2] + packet[20:] if len(packet) >= 20 else _OTHER


def _ethernet(packet: bytes) -> bytes:
    return packet


FRAMES: dict[int, Callable[[bytes], bytes]] = {
    0: _loopback,
    ETHERNET: _ethernet,
    12: _ip,  # DLT_RAW where it was written by its own number
    14: _ip,  # the same on OpenBSD
    101: _ip,
    108: _loopback,
    113: _cooked,
    228: _ipv4,
    229: _ipv6,
    276: _cooked2,
}

# Names for the refusal of those that people do meet.
_REFUSED = {
    6: "token ring", 9: "PPP", 10: "FDDI", 50: "PPP in HDLC framing", 51: "PPPoE without Ethernet", 104: "Cisco HDLC",
    105: "802.11", 127: "802.11 with radiotap", 163: "802.11 with AVS", 187: "Bluetooth", 189: "USB",
    192: "per-packet information", 195: "802.15.4", 201: "Bluetooth", 220: "USB", 227: "CAN",
    239: "netfilter log", 249: "USB", 253: "netlink",
}  # fmt: skip


def refusal(link: int) -> CaptureError:
    """What to say of a link type that is not in FRAMES."""
    name = f" ({_REFUSED[link]})" if link in _REFUSED else ""
    return CaptureError(
        f"its link type {link}{name} is not supported; Ethernet, raw IP, Linux cooked, null and loopback are"
    )

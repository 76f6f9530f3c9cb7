"""What kernel driver an interface has."""

from __future__ import annotations

import fcntl
import socket
import struct
from ctypes import addressof, create_string_buffer

_SIOCETHTOOL, _ETHTOOL_GDRVINFO, _DRVINFO_SIZE = 0x8946, 0x3, 196


def driver(name: str) -> str:
    """The name of the interface's driver (ethtool -i), "" where it has none."""
    request = create_string_buffer(struct.pack("I", _ETHTOOL_GDRVINFO), _DRVINFO_SIZE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), addressof(request)))
        except OSError:
            return ""
    return request.raw[4:36].split(b"\0", 1)[0].decode(errors="replace")

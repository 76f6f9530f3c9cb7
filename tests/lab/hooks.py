"""What programs hang on the interfaces of a namespace, as the kernel says."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess

from ctweb.datapath.bpf import SYS_BPF, libc
from lab.network import Namespace, wait_for

_PROG_QUERY = 16
_TCX = {"tcx ingress": 46, "tcx egress": 47}


def hooks(machine: Namespace) -> dict[str, set[str]]:
    """The hooks in use, by interface: xdp, tcx or clsact, ingress or egress; "clsact qdisc" for the qdisc itself."""
    return {name: set(found) for name, found in programs(machine).items()}


def settle(machine: Namespace) -> None:
    """Wait until the running ctweb, tracking all interfaces, has seen all that was done to them so far.

    Each look of it is at all of them: one that took a pair made now has seen what came before.
    """
    machine.ip("link add mark1 type veth peer name mark2")
    wait_for("a new pair is tracked", lambda: {"mark1", "mark2"} <= set(hooks(machine)))
    machine.ip("link del mark1")


def programs(machine: Namespace) -> dict[str, dict[str, list[int]]]:
    """The ids of all programs, by interface and hook."""
    with machine.entered():
        links = json.loads(subprocess.check_output(["ip", "-j", "link"]))
        found = {link["ifname"]: _of_interface(link) for link in links}
    return {name: here for name, here in found.items() if here}


def _of_interface(link: dict) -> dict[str, list[int]]:
    name, found = link["ifname"], {}
    if "prog" in link.get("xdp", {}):
        found["xdp"] = [link["xdp"]["prog"]["id"]]
    for hook, attach_type in _TCX.items():
        found[hook] = _tcx(name, attach_type)
    qdiscs = json.loads(subprocess.check_output(["tc", "-j", "qdisc", "show", "dev", name]))
    if any(qdisc["kind"] == "clsact" for qdisc in qdiscs):
        for way in ("ingress", "egress"):
            filters = json.loads(subprocess.check_output(["tc", "-j", "filter", "show", "dev", name, way]))
            found[f"clsact {way}"] = [f["options"]["prog"]["id"] for f in filters if "prog" in f.get("options", {})]
    found = {hook: ids for hook, ids in found.items() if ids}
    return found | ({"clsact qdisc": []} if any(qdisc["kind"] == "clsact" for qdisc in qdiscs) else {})


def _tcx(name: str, attach_type: int) -> list[int]:
    """Program ids by BPF_PROG_QUERY, for Debian's bpftool knows no tcx."""
    ids = (ctypes.c_uint32 * 64)()
    request = struct.pack(
        "=4I Q I 4x 32x", socket.if_nametoindex(name), attach_type, 0, 0, ctypes.addressof(ids), len(ids)
    )
    attr = ctypes.create_string_buffer(request, len(request))
    assert libc.syscall(SYS_BPF, _PROG_QUERY, attr, len(attr)) == 0, os.strerror(ctypes.get_errno())
    return list(ids[: struct.unpack_from("=I", attr, 24)[0]])

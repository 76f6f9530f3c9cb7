"""Checks of the machine: kernel, rights, BCC, headers. They need nothing but the standard library."""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import platform
import re
import sys
from pathlib import Path

from ctweb.doctor.check import Check

MIN_KERNEL = (5, 15)
"""The oldest kernel the programs load on: 5.12 brought atomic or and cmpxchg, 5.15 is the next long-term one."""

# What newer kernels bring, and what happens without.
_KERNEL_GAINS = (
    ((6, 3), "whether a driver has native XDP is tried rather than asked for (6.3 tells)"),
    ((6, 6), "tc programs are attached through clsact instead of BPF links (tcx, 6.6): a crash leaves them behind"),
)

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_BPF": 39}


def check_rights(euid: int, status: str) -> Check:
    """Whether this process may load and attach programs; `status` is the text of /proc/self/status."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    held = {name for name, bit in _CAPABILITIES.items() if effective >> bit & 1}
    who = "root" if euid == 0 else f"user id {euid}"
    if held >= {"CAP_NET_ADMIN", "CAP_SYS_ADMIN"} or (euid != 0 and held >= {"CAP_NET_ADMIN", "CAP_BPF"}):
        return Check("rights", True, f"{who}, with {' and '.join(sorted(held))}")
    if euid == 0:
        missing = " and ".join(sorted({"CAP_NET_ADMIN", "CAP_SYS_ADMIN"} - held))
        return Check("rights", False, f"root, but without {missing} (in a container?)",
                     f"give the container {missing}, or run ctweb on the host")
    return Check("rights", False, f"{who} may not load BPF programs", "run it as root: sudo ctweb ...")


def kernel_version(release: str) -> tuple[int, int] | None:
    """Major and minor of `uname -r`; None where it does not start with two numbers."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else None


def check_kernel(system: str, release: str) -> Check:
    """Whether the kernel is new enough, and what it does without."""
    if system != "Linux":
        return Check("kernel", False, f"this is {system}", "ctweb runs on Linux only")
    version = kernel_version(release)
    wanted = ".".join(map(str, MIN_KERNEL))
    if version is None:
        return Check("kernel", False, f"cannot read a version out of {release!r}", f"ctweb needs {wanted} or newer")
    if version < MIN_KERNEL:
        return Check("kernel", False, f"{release} is older than {wanted}",
                     f"upgrade the kernel to {wanted} or newer: Debian 12 and Ubuntu 24.04 have one")
    without = [text for needed, text in _KERNEL_GAINS if version < needed]
    if without:
        return Check("kernel", True, f"{release}: {'; '.join(without)}", "nothing; a newer kernel does better")
    return Check("kernel", True, f"{release}, with everything ctweb can use")


# 280: every machine with the generic system call table (arm64, riscv, loongarch).
_SYS_BPF = {"x86_64": 321, "i686": 357, "armv7l": 386, "ppc64le": 361, "s390x": 351}.get(platform.machine(), 280)


class _ProgLoadAttr(ctypes.Structure):
    """The head of bpf(2)'s BPF_PROG_LOAD; the kernel takes the rest as zero."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32), ("insn_cnt", ctypes.c_uint32), ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64), ("log_level", ctypes.c_uint32), ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64), ("kern_version", ctypes.c_uint32), ("prog_flags", ctypes.c_uint32),
    )  # fmt: skip


def load_smallest_program() -> int:
    """Ask the kernel for a tc program that returns 0 (and drop it again): 0, or the errno of the refusal."""
    instructions = ctypes.create_string_buffer(bytes.fromhex("b700000000000000" "9500000000000000"))
    licence = ctypes.create_string_buffer(b"GPL")
    attr = _ProgLoadAttr(3, 2, ctypes.addressof(instructions), ctypes.addressof(licence))
    fd = ctypes.CDLL(None, use_errno=True).syscall(_SYS_BPF, 5, ctypes.byref(attr), ctypes.sizeof(attr))
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


def check_bpf(code: int, privileged: bool) -> Check:
    """What the kernel said to the smallest program, as an errno."""
    if code == 0:
        return Check("BPF", True, "the kernel loads programs")
    if code == errno.ENOSYS:
        return Check("BPF", False, "this kernel has no bpf system call",
                     "run a kernel with CONFIG_BPF_SYSCALL=y: every distribution's own has it")
    if code == errno.EPERM and not privileged:
        return Check("BPF", False, "cannot tell: loading a program needs root", "run ctweb doctor as root")
    if code == errno.EPERM:
        return Check("BPF", False, "the kernel refuses programs although this is root",
                     "look for kernel lockdown (cat /sys/kernel/security/lockdown) or a container's seccomp profile")
    return Check("BPF", False, f"loading a program failed: {os.strerror(code)}",
                 "run it on the distribution's own kernel")


def check_bcc(executable: str) -> Check:
    """Whether BCC can be imported here, and if not, why."""
    try:
        bcc = importlib.import_module("bcc")
    except ImportError as error:
        if Path("/usr/lib/python3/dist-packages/bcc").is_dir() and error.name == "bcc":
            return Check("BCC", False, f"{executable} does not see it: BCC is a module of /usr/bin/python3",
                         "make setup makes .venv from /usr/bin/python3; start ctweb as .venv/bin/ctweb")
        return Check("BCC", False, f"not installed ({error})", "apt-get install python3-bpfcc, or make setup")
    except OSError as error:
        return Check("BCC", False, f"its library does not load: {error}", "apt-get install --reinstall libbpfcc")
    if not hasattr(bcc, "BPF"):
        return Check("BCC", False, f"the module bcc in {bcc.__file__} is another program of that name",
                     "pip uninstall bcc, then apt-get install python3-bpfcc")
    return Check("BCC", True, f"{getattr(bcc, '__version__', 'version unknown')}, seen by {executable}")


def check_headers(include: Path) -> Check:
    """Whether the kernel's UAPI headers are below `include` (/usr/include)."""
    name = "UAPI headers"
    asm = [*include.glob("asm/types.h"), *include.glob("*/asm/types.h")]
    if (include / "linux/bpf.h").exists() and asm:
        return Check(name, True, f"in {include}")
    return Check(name, False, f"no linux/bpf.h and asm/types.h below {include}", "apt-get install linux-libc-dev")


def check_jit(setting: str | None) -> Check:
    """The JIT by the text of net.core.bpf_jit_enable; None: it could not be read."""
    if setting is None:
        return Check("JIT", True, "cannot tell: no net.core.bpf_jit_enable here; most kernels have it on")
    if setting.strip() == "0":
        return Check("JIT", True, "off: each packet costs many times more", "sysctl -w net.core.bpf_jit_enable=1")
    return Check("JIT", True, "on")


def check_btf(present: bool) -> Check:
    """BTF: nothing here needs it."""
    return Check("BTF", True, "present" if present else "absent; ctweb does not need it")


def check_bpffs(mounts: str) -> Check:
    """Where links are pinned, by the text of /proc/self/mounts."""
    if any(line.split()[1:3] == ["/sys/fs/bpf", "bpf"] for line in mounts.splitlines()):
        return Check("bpffs", True, "mounted at /sys/fs/bpf")
    return Check("bpffs", True, "not mounted at /sys/fs/bpf: only ctweb run --keep needs it",
                 "mount -t bpf bpf /sys/fs/bpf")


def check_conntrack(count: str | None) -> Check:
    """Whether the kernel tracks connections itself; `count` is the text of nf_conntrack_count, None: it does not."""
    if count is None:
        return Check("nf_conntrack", True, "not loaded; ctweb does not need it")
    return Check("nf_conntrack", True, f"loaded, {count.strip()} connections; ctweb works beside it")


def read(path: str) -> str | None:
    """The file's text; None where it is not there or not ours to read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def machine_checks() -> list[Check]:
    """Every check of this machine, in the order in which they matter."""
    rights = check_rights(os.geteuid(), read("/proc/self/status") or "")
    system = platform.uname()
    kernel = check_kernel(system.system, system.release)
    if system.system != "Linux":
        return [kernel]
    return [
        rights,
        kernel,
        check_bpf(load_smallest_program(), rights.ok),
        check_bcc(sys.executable),
        check_headers(Path("/usr/include")),
        check_jit(read("/proc/sys/net/core/bpf_jit_enable")),
        check_btf(Path("/sys/kernel/btf/vmlinux").exists()),
        check_bpffs(read("/proc/self/mounts") or ""),
        check_conntrack(read("/proc/sys/net/netfilter/nf_conntrack_count")),
    ]

"""`ctweb doctor`: each verdict from what it reads, and the whole of it on machines that lack something."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctweb import doctor
from ctweb.doctor import machine

ROOT = Path(__file__).parents[1]
UNPRIVILEGED = (
    "setpriv --reuid=65534 --regid=65534 --clear-groups"
    " --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search"
)
ALL = (1 << 41) - 1


def run(before: str = "", python: str | Path = sys.executable, prefix: str = "") -> tuple[int, str]:
    """The exit code and output of a real `ctweb doctor`, after `before` in mounts of its own."""
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", f"{before}\nexec {prefix} {python} -m ctweb.doctor"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.stderr == ""
    return result.returncode, result.stdout


def line(output: str, name: str) -> str:
    return next(text for text in output.splitlines() if text[6:].startswith(name + " "))


def test_here_as_root_nothing_is_in_the_way():
    code, output = run()
    assert code == 0, output
    assert output.endswith("ctweb can run here.\n")
    assert line(output, "BPF") == "ok    BPF           the kernel loads programs"


def test_as_another_user():
    code, output = run(prefix=UNPRIVILEGED)
    assert code == 1
    assert line(output, "rights").startswith("FAIL")
    assert "run it as root" in output
    assert line(output, "BPF").startswith("FAIL")
    assert "Traceback" not in output


def test_root_without_capabilities():
    code, output = run(prefix="setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin")
    assert code == 1
    assert "root, but without CAP_SYS_ADMIN" in line(output, "rights")


def test_old_kernel():
    code, output = run(prefix="setarch --uname-2.6")
    assert code == 1
    assert line(output, "kernel").startswith("FAIL  kernel        2.6.")
    assert "upgrade the kernel to 5.15 or newer" in output


def test_a_python_that_does_not_see_bcc(tmp_path):
    """A venv without the system's packages, as one made from another Python is."""
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    code, output = run(python=tmp_path / "venv/bin/python")
    assert code == 1
    assert f"{tmp_path}/venv/bin/python does not see it" in line(output, "BCC")
    assert "make setup" in output


def test_bcc_not_installed():
    code, output = run(before="mount -t tmpfs none /usr/lib/python3/dist-packages")
    assert code == 1
    assert "not installed" in line(output, "BCC")
    assert "apt-get install python3-bpfcc" in output


def test_the_other_bcc(tmp_path):
    (tmp_path / "bcc.py").write_text("")
    code, output = run(prefix=f"env PYTHONPATH={tmp_path}")
    assert code == 1
    assert f"{tmp_path}/bcc.py is another program of that name" in line(output, "BCC")


def test_bcc_without_its_library():
    code, output = run(before="for f in /usr/lib/*/libbcc.so.0*; do mount --bind /dev/null $f; done")
    assert code == 1
    assert "its library does not load" in line(output, "BCC")


def test_headers_missing():
    code, output = run(before="mount -t tmpfs none /usr/include")
    assert code == 1
    assert line(output, "UAPI headers").startswith("FAIL")
    assert "apt-get install linux-libc-dev" in output


def test_no_bpffs_is_no_obstacle():
    code, output = run(before="while umount -l /sys/fs/bpf 2>/dev/null; do :; done")
    assert code == 0, output
    assert line(output, "bpffs").startswith("note")


@pytest.mark.parametrize(
    ("euid", "held", "ok"),
    [
        (0, ALL, True),
        (0, ALL & ~(1 << 12), False),
        (1000, 0, False),
        (1000, 1 << 39 | 1 << 12, True),
        (1000, 1 << 39, False),
    ],
)
def test_rights(euid, held, ok):
    check = machine.check_rights(euid, f"Name:\tx\nCapPrm:\t{ALL:016x}\nCapEff:\t{held:016x}\n")
    assert check.ok is ok
    assert bool(check.remedy) is not ok


@pytest.mark.parametrize(
    ("release", "ok", "says"),
    [
        ("5.10.0-30-amd64", False, "older than 5.15"),
        ("5.15.0-91-generic", True, "clsact"),
        ("6.1.0-18-amd64", True, "clsact"),
        ("6.5.0", True, "clsact"),
        ("6.6.0", True, "everything"),
        ("10.0-rc1", True, "everything"),
        ("unknown", False, "cannot read a version"),
    ],
)
def test_kernel(release, ok, says):
    check = machine.check_kernel("Linux", release)
    assert (check.ok, says in check.detail) == (ok, True)


def test_other_systems():
    check = machine.check_kernel("Darwin", "23.0.0")
    assert not check.ok
    assert "Linux" in check.remedy


@pytest.mark.parametrize(
    ("code", "privileged", "says"),
    [
        (errno.ENOSYS, True, "CONFIG_BPF_SYSCALL"),
        (errno.EPERM, True, "lockdown"),
        (errno.EPERM, False, "as root"),
        (errno.EINVAL, True, "own kernel"),
    ],
)
def test_refused_programs_name_the_likely_reason(code, privileged, says):
    check = machine.check_bpf(code, privileged)
    assert not check.ok
    assert says in check.remedy


def test_kernel_refuses_a_program_to_a_user_without_rights():
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os._exit(machine.load_smallest_program())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EPERM


@pytest.mark.parametrize(("setting", "says"), [("1\n", "on"), ("0\n", "off"), (None, "cannot tell")])
def test_jit(setting, says):
    check = machine.check_jit(setting)
    assert check.ok
    assert check.detail.startswith(says)


def test_report_counts_what_is_in_the_way():
    good, bad = doctor.Check("a", True, "fine"), doctor.Check("b", False, "broken", "mend it")
    assert doctor.report([good]).endswith("ctweb can run here.")
    assert "1 thing is in the way" in doctor.report([good, bad])
    assert "2 things are in the way" in doctor.report([bad, good, bad])
    assert "-> mend it" in doctor.report([bad])

"""The set-up scripts as a newcomer meets them: on a machine that lacks something, they say what, and what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ctweb.doctor.machine import MIN_KERNEL

ROOT = Path(__file__).parents[2]

# Not root, but still able to read the checkout wherever it lies.
UNPRIVILEGED = (
    "setpriv --reuid=65534 --regid=65534 --clear-groups"
    " --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search"
)
DIST_PACKAGES = "/usr/lib/python3/dist-packages"


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in the checkout, with mounts of its own that end with it."""
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", command],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def said(result: subprocess.CompletedProcess[str]) -> str:
    """What a failed command said, once it is sure that it failed and that people can read it."""
    output = result.stdout + result.stderr
    assert result.returncode != 0, output
    assert "Traceback" not in output
    return output


def test_shell_scripts_pass_shellcheck():
    result = shell("shellcheck setup.sh service/*.sh .ci/run")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("mode", ["setup", "test"])
def test_nothing_missing_is_silent_and_keeps_the_venv(mode):
    before = (ROOT / ".venv/pyvenv.cfg").stat().st_mtime_ns
    first = shell(f"./setup.sh {mode}")  # the other mode's stamp may be missing: pip then only looks
    assert first.returncode == 0, first.stderr
    second = shell(f"./setup.sh {mode}")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert (ROOT / ".venv/pyvenv.cfg").stat().st_mtime_ns == before


def test_the_user_that_it_runs_as_is_made_once():
    made = shell("""
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/upper /mnt/work
        mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
        sed -i /^ctweb:/d /etc/passwd /etc/group /etc/shadow /etc/gshadow
        ./setup.sh setup
        getent passwd ctweb
        id -Gn ctweb
        ./setup.sh setup
    """)
    assert made.returncode == 0, made.stderr
    assert made.stderr.count("making the system user ctweb") == 1
    passwd, groups = made.stdout.splitlines()
    assert re.fullmatch(r"ctweb:[^:]*:\d{3}:\d{3}:[^:]*:/nonexistent:/usr/sbin/nologin", passwd)
    assert groups == "ctweb"


def test_make_run_needs_root_and_says_so():
    output = said(shell(f"{UNPRIVILEGED} make run"))
    assert "needs root" in output
    assert "sudo make run" in output


def test_old_kernel_is_refused_before_anything_is_installed():
    output = said(shell("setarch --uname-2.6 ./setup.sh run"))
    assert re.search(r"this kernel is 2\.6\S+, and ctweb needs 5\.15 or newer", output)


def test_both_ask_for_the_same_kernel():
    found = re.search(r"^MIN_KERNEL=(\d+)\.(\d+)", (ROOT / "setup.sh").read_text(), re.MULTILINE)
    assert found
    assert (int(found[1]), int(found[2])) == MIN_KERNEL


def test_missing_bcc_without_root():
    output = said(shell(f"mount -t tmpfs none {DIST_PACKAGES}; {UNPRIVILEGED} ./setup.sh setup"))
    assert "missing: python3-bpfcc" in output
    assert "needs root" in output


def test_missing_headers_without_apt():
    output = said(shell("mount -t tmpfs none /usr/include; mount --bind /dev/null /usr/bin/apt-get; ./setup.sh setup"))
    assert "missing: linux-libc-dev" in output
    assert "no apt-get" in output


def test_another_python_on_path_is_not_used(tmp_path):
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\necho the wrong python >&2; exit 1\n")
    other.chmod(0o755)
    result = shell(f"PATH={tmp_path}:$PATH ./setup.sh setup")
    assert (result.returncode, result.stderr) == (0, "")


def test_unknown_argument():
    assert "unknown argument everything" in said(shell("./setup.sh everything"))

"""`make install` and `make uninstall`, below a directory of the test's own, and the service as its unit confines it."""

from __future__ import annotations

import configparser
import http.client
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from running import PORT, signed_in

from ctweb.cli import main
from ctweb.commented_config import commented
from ctweb.config import Config, parse

ROOT = Path(__file__).parents[2]
UNIT = "usr/local/lib/systemd/system/ctweb.service"

# The installed tree where it belongs, for one process: as after `make install` without DESTDIR.
IN_PLACE = """
mount -t overlay overlay -o lowerdir={0}/usr/local:/usr/local /usr/local
mount -t overlay overlay -o lowerdir={0}/etc:/etc /etc
mount --bind {0}/var/lib /var/lib
mount -t tmpfs tmpfs /run
"""


def make(target: str, destdir: Path, **variables: str) -> None:
    words = [f"{name}={value}" for name, value in variables.items()]
    done = subprocess.run(
        ["make", target, f"DESTDIR={destdir}", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def in_place(destdir: Path, script: str) -> list[str]:
    return ["unshare", "--mount", "sh", "-ec", IN_PLACE.format(destdir) + script]


def says(destdir: Path, script: str, **environment: str) -> str:
    """What a script prints that meets the installed tree in its place, and must succeed."""
    done = subprocess.run(
        in_place(destdir, script),
        cwd="/", capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    destdir = tmp_path_factory.mktemp("installed")
    make("install", destdir)
    return destdir


def test_everything_is_roots_but_the_state_and_secrets_are_for_nobody_else(installed: Path):
    """Root writes the configuration, and the service, which is the user ctweb's, may read it again."""
    user = pwd.getpwnam("ctweb")
    special = {
        "etc/ctweb": (0o750, 0, user.pw_gid),
        "etc/ctweb/ctweb.toml": (0o640, 0, user.pw_gid),
        "var/lib/ctweb": (0o700, user.pw_uid, user.pw_gid),
    }
    for path in [installed / name for name in ("usr", "etc", "var")]:
        for each in (path, *path.rglob("*")):
            found = each.lstat()
            if expected := special.pop(str(each.relative_to(installed)), None):
                assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == expected, each
                continue
            assert (found.st_uid, found.st_gid) == (0, 0), each
            assert stat.S_ISLNK(found.st_mode) or not found.st_mode & 0o022, each
            if each.is_dir() or each == installed / "usr/local/bin/ctweb":
                assert stat.S_IMODE(found.st_mode) == 0o755, each
    assert not special


def test_others_may_not_read_configuration_and_state(installed: Path):
    for name, reader in {"etc/ctweb/ctweb.toml": "cat", "var/lib/ctweb": "ls"}.items():
        done = subprocess.run(
            in_place(installed, f"exec setpriv --reuid=65534 --regid=65534 --clear-groups {reader} /{name}"),
            cwd="/", capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert "Permission denied" in done.stderr


def test_the_program_is_a_copy_that_needs_neither_the_clone_nor_its_venv(installed: Path):
    loaded = says(
        installed,
        f"mount -t tmpfs tmpfs {ROOT}; ctweb --version; ctweb run --check-config;"
        " ctweb replay /dev/null 2>&1 || true",
    )
    assert loaded.startswith("ctweb, version ")
    assert "\nOK\n" in loaded
    assert "/dev/null" in loaded.splitlines()[-1]


def test_every_command_has_its_manual_page(installed: Path):
    def names(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        for name, each in getattr(command, "commands", {}).items():
            yield from names(each, f"{path}-{name}")

    pages = {page.name: page.read_text() for page in (installed / "usr/local/share/man/man1").iterdir()}
    wanted = dict(names(main, "ctweb"))
    assert pages.keys() == {f"{name}.1" for name in wanted}
    for name, command in wanted.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[-1].replace("-", "\\-") in pages[f"{name}.1"], name


def test_shells_complete_the_installed_command(installed: Path):
    script = """bash --norc -c '. /usr/local/share/bash-completion/completions/ctweb
        COMP_WORDS=(ctweb sett) COMP_CWORD=1; _ctweb_completion ctweb; echo "${COMPREPLY[@]}"'"""
    assert says(installed, script) == "settings\n"
    for place in ("zsh/site-functions/_ctweb", "fish/vendor_completions.d/ctweb.fish"):
        assert "_CTWEB_COMPLETE" in (installed / "usr/local/share" / place).read_text()


def test_systemd_finds_the_unit_good_and_confined(installed: Path):
    assert says(installed, f"systemd-analyze verify /{UNIT} 2>&1") == ""
    confined = says(installed, f"systemd-analyze security --offline=yes --threshold=30 /{UNIT}")
    assert "Overall exposure level" in confined


def test_the_service_runs_with_what_its_unit_leaves_it(installed: Path, namespace):
    """Its capabilities, no new ones, and a file system that it can only write where the unit says."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(installed / UNIT)
    service = unit["Service"]
    assert (service["Type"], service["ProtectSystem"]) == ("notify", "strict")
    assert (service["NoNewPrivileges"], service["PrivateTmp"]) == ("yes", "yes")
    capabilities = [name.removeprefix("CAP_").lower() for name in service["CapabilityBoundingSet"].split()]
    bounds = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    script = f"""
        mount -t tmpfs tmpfs /tmp
        mount -t proc -o hidepid=invisible proc /proc
        mkdir -m 700 /run/ctweb
        mount --bind /run/ctweb /run/ctweb; mount --bind /var/lib/ctweb /var/lib/ctweb
        mount -o remount,bind,ro /run; mount -o remount,bind,ro /var/lib; mount -o remount,bind,ro /
        exec setpriv --bounding-set={bounds} --inh-caps=-all --no-new-privs {service["ExecStart"]}
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + namespace)
        systemd.settimeout(60)
        environment = os.environ | {"NOTIFY_SOCKET": "@" + namespace}
        process = subprocess.Popen(in_place(installed, script), cwd="/", env=environment)
        try:
            assert systemd.recv(100) == b"READY=1"
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
            connection.request("GET", "/healthz", headers=signed_in(installed / "var/lib/ctweb"))
            health = connection.getresponse().read().decode()
            connection.close()
            assert '"lo":"tc"' in health
            status = Path(f"/proc/{process.pid}/status").read_text()
            user = pwd.getpwnam("ctweb")
            assert re.search(r"NoNewPrivs:\t1", status)
            assert re.search(rf"Uid:\t{user.pw_uid}\t", status)
            assert re.search(rf"CapPrm:\t{1 << 12 | 1 << 39:016x}\n", status)
            process.send_signal(signal.SIGHUP)
            assert systemd.recv(100).startswith(b"RELOADING=1")
            assert systemd.recv(100) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
            assert systemd.recv(100) == b"STOPPING=1"
        finally:
            process.kill()
            process.wait()


def test_the_first_configuration_is_all_defaults(installed: Path):
    text = (installed / "etc/ctweb/ctweb.toml").read_text()
    assert text == commented()
    assert parse(text.encode(), "ctweb.toml") == Config()


def test_every_key_is_in_the_first_configuration_and_good_once_uncommented():
    uncommented = re.sub(r"^#(?! )", "", commented(), flags=re.M)
    config = parse(uncommented.encode(), "ctweb.toml")
    assert config.max_entries
    assert [rule.new_connection_mark for rule in config.rule] == ["voip"]
    defaults = Config()
    for key in Config.__struct_fields__:
        if key not in ("max_entries", "rule"):
            assert getattr(config, key) == getattr(defaults, key)
        written = key.replace("_", "-")
        assert re.search(rf"^#({written} = |\[+{written}\])", commented(), re.M), key


def test_installing_again_keeps_the_configuration_and_uninstalling_the_state(installed: Path):
    config, state = installed / "etc/ctweb/ctweb.toml", installed / "var/lib/ctweb/tracking.json"
    config.write_text('hook = "tc"\n')
    state.write_text("{}")
    (installed / "usr/local/lib/ctweb/of-an-older-version.py").write_text("")
    make("install", installed)
    assert config.read_text() == 'hook = "tc"\n'
    assert not (installed / "usr/local/lib/ctweb/of-an-older-version.py").exists()
    make("uninstall", installed)
    left = {path.relative_to(installed) for path in installed.rglob("*") if not path.is_dir()}
    left -= {Path("var/lib/ctweb") / name for name in ("lock", "users.json")}
    assert left == {Path("etc/ctweb/ctweb.toml"), Path("var/lib/ctweb/tracking.json")}
    make("uninstall", installed, PURGE="1")
    assert [path for path in installed.rglob("*") if not path.is_dir() or path.name == "ctweb"] == []


@pytest.mark.parametrize("script", ["install", "uninstall"])
def test_without_root_it_says_so(script, tmp_path):
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+dac_read_search",
         "--ambient-caps=-all,+dac_read_search", ROOT / "service" / f"{script}.sh"],
        capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"DESTDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "sudo make " + script in done.stderr

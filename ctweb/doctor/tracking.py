"""Checks of what ctweb would do here: its interfaces, its table, and what runs or was left by an earlier run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pyroute2 import IPRoute

from ctweb import state
from ctweb.capacity import BYTES_PER_CONNECTION, default_max_entries, machine_memory, preallocates
from ctweb.client import Client, FastTrack, Hooks, RefusedError
from ctweb.config import Config
from ctweb.datapath import clsact, firewall
from ctweb.datapath.attach import BPFFS, AttachError, HookChoice, choose, namespace_pins
from ctweb.datapath.build import BuildError, BuildOptions, compile_datapath
from ctweb.datapath.fast_ports import Hooked, ports_of
from ctweb.datapath.fasttrack import meant
from ctweb.datapath.interfaces import Interface, Shape, plan, read
from ctweb.datapath.xdp_features import features, native_xdp
from ctweb.doctor.check import Check
from ctweb.enabled import Needs, Verdict, decide
from ctweb.instance import RUNTIME, InstanceError, find
from ctweb.rules import FASTTRACK
from ctweb.state import StateError
from ctweb.table import accounts
from ctweb.table.names import UNTRACKED_REASONS


def check_datapath(max_entries: int, *, whole: bool) -> Check:
    """Whether the kernel takes ctweb's programs: they are compiled, loaded, and dropped again. Needs root.

    max_entries, whole: of the table as `ctweb run` would make it; here it is as small as one of those programs can be.
    """
    try:
        datapath = compile_datapath(BuildOptions(1 if whole else max_entries, preallocate=whole))
        try:
            for name in datapath.programs:
                _ = datapath.programs[name]  # loads it
        finally:
            datapath.close()
    except BuildError as error:
        return Check("datapath", False, str(error), "report it with the output of ctweb doctor")
    return Check("datapath", True, "its programs compile, and the kernel takes them")


def check_interface(
    interface: Interface, shape: Shape, choice: HookChoice, native: bool | None, has: str = ""
) -> Check:
    """The hook that ingress gets, or `has` got in the running instance; `native`: whether the driver has native XDP,
    None if that is not known."""
    told = {True: "native XDP", False: "no native XDP", None: "native XDP unknown"}[native]
    hook, reason = "", ""
    try:
        hook, reason = choose(interface, shape, choice)
    except AttachError as error:
        if not has:
            return Check("interface", False, str(error), "choose another hook, or name other interfaces")
    if hook == "xdp" and native is False:
        if choice == "xdp" and not has:
            return Check("interface", False, f"{interface.name}: no native XDP for hook xdp", "choose hook auto or tc")
        hook, reason = "tc", "no native XDP"
    if has and has != hook:
        hook, reason = has, "so it runs"
    return Check("interface", True, f"{interface.name}: {told}; ingress by {hook}: {reason}")


def check_memory(meminfo: str, max_entries: int, per_entry: int) -> Check:
    """Whether a full table fits; `meminfo` is the text of /proc/meminfo."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", meminfo, re.MULTILINE)
    available = int(found[1]) << 10 if found else 0
    full = max_entries * per_entry
    detail = f"{max_entries:,} connections at most take {full >> 20:,} MiB; {available >> 20:,} MiB are free"
    if full <= available:
        return Check("memory", True, detail)
    return Check("memory", True, detail, "set a lower max-entries in the configuration, or add memory")


def lock_holder(path: Path, locks: str) -> int | None:
    """The process that has the file locked, by the text of /proc/locks; None: nobody. Touches no lock."""
    try:
        status = path.stat()
    except OSError:
        return None
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found = re.search(rf"FLOCK\s+ADVISORY\s+WRITE\s+(\d+)\s+{place}\s", locks)
    return int(found[1]) if found else None


def check_instance(holder: int | None, state_dir: Path) -> Check:
    """Whether ctweb runs in this network namespace."""
    if holder is None:
        return Check("running", True, "no: ctweb run starts it")
    try:
        running = find(state_dir)
    except InstanceError:
        return Check("running", True, f"process {holder}, with another state directory than {state_dir}")
    return Check("running", True, f"process {running.pid}, at {running.url}")


def check_verdict(verdict: Verdict, running: bool) -> Check:
    """Whether connections are tracked, or would be, and why."""
    if running:
        return Check("tracking", True, f"{'yes' if verdict.active else 'no'}: {verdict.reason}")
    if verdict.active or not verdict.reason.startswith("auto"):
        return Check("tracking", True, f"a run {'tracks' if verdict.active else 'does not track'}: {verdict.reason}")
    return Check("tracking", True, "a run tracks while somebody looks: auto, and there is no rule")


def tracking_verdict(config: Config, running: bool) -> Verdict:
    """The running instance's, or what a run would come to once nobody has looked for a while."""
    if running:
        with suppress(InstanceError, RefusedError):
            settings = Client(config.state_dir).settings()
            return Verdict(settings["active"] == "true", settings["reason"])
    try:
        rule = firewall.reason()
    except OSError as error:
        rule = f"cannot tell whether there is a firewall rule ({error})"
    try:
        enabled = state.load(config.state_dir, config.tracking)[0].enabled
    except StateError:
        enabled = config.tracking.enabled
    return decide(enabled, Needs(len(config.rule), rule, quiet=config.auto_timeout), config.auto_timeout)


def check_accounts(resource: Mapping[str, str]) -> Check:
    """Whether all that was offered is counted once; `resource`: the running instance's /system/resource."""
    if "offered-packets" not in resource:
        return Check("accounts", True, "nothing is counted yet")
    sides = []
    for unit in accounts.UNITS:
        offered, live, ended, untracked, gap = (
            int(resource[f"{side}-{unit}"]) for side in ("offered", "live", "ended", "untracked", "unaccounted")
        )
        if gap:
            said = f"{abs(gap):,} {unit} of {offered:,} are counted {'nowhere' if gap > 0 else 'twice'}"
            return Check("accounts", False, said, "report it with the output of ctweb doctor, and restart ctweb")
        moving = offered - live - ended - untracked
        sides.append(
            f"{offered:,} {unit} offered = {live:,} live + {ended:,} ended + {untracked:,} untracked"
            + (f" {'+' if moving > 0 else '-'} {abs(moving):,} while it was read" if moving else "")
        )
    reasons = {name: int(resource[f"untracked-{name}"]) for name in UNTRACKED_REASONS}
    why = ", ".join(f"{name} {count:,}" for name, count in reasons.items() if count)
    return Check("accounts", True, "; ".join(sides) + (f"; untracked packets: {why}" if why else ""))


def running_accounts(config: Config) -> list[Check]:
    """Of the running instance, if it answers."""
    with suppress(InstanceError, RefusedError):
        return [check_accounts(Client(config.state_dir).resource())]
    return []


def fasttrack_checks(config: Config, interfaces: Mapping[int, Interface]) -> list[Check]:
    """Which interfaces take part in FastTrack, and whether each rule for it can be in force; nothing without rules."""
    rules = {number: rule for number, rule in enumerate(config.rule, 1) if rule.action == FASTTRACK}
    if not rules:
        return []
    hooked = {}
    for index, planned in plan(interfaces, config.interfaces).items():
        if planned.shape is not None:
            with suppress(AttachError):  # check_interface says so
                hooked[index] = Hooked(planned.interface, *choose(planned.interface, planned.shape, config.hook))
    ports = ports_of(hooked, features())
    checks = [Check("fasttrack", True, f"{port.name}: {port.reason or 'takes part'}") for port in ports.values()]
    for number, rule in rules.items():
        try:
            meant(rule, ports, interfaces)
        except ValueError as why:
            checks.append(Check("fasttrack", True, f"rule {number} is not in force: {why}", "all else runs without it"))
    return checks


def interface_checks(config: Config, interfaces: Mapping[int, Interface], running: Hooks | None) -> list[Check]:
    """Of each interface that a run under `config` tracks, or that the running one does: its command line may differ."""
    native = native_xdp() or {}
    hooks = {each.name: each.hook for each in running.interfaces} if running else None
    checks = []
    for planned in plan(interfaces, () if hooks else config.interfaces).values():
        interface = planned.interface
        if planned.shape is not None and (hooks is None or interface.name in hooks):
            has = hooks[interface.name] if hooks else ""
            checks.append(check_interface(interface, planned.shape, config.hook, native.get(interface.index), has))
    return checks


def running_fasttrack(told: FastTrack | None) -> list[Check]:
    """As fasttrack_checks, of what the running instance says."""
    if told is None:
        return []
    refused = [refusal.split(": ", 1) for refusal in told.refusals]
    return [Check("fasttrack", True, f"{port.name}: {port.reason or 'takes part'}") for port in told.interfaces] + [
        Check("fasttrack", True, f"{rule} is not in force: {why}", "all else runs without it") for rule, why in refused
    ]


def running_hooks(config: Config) -> Hooks | None:
    """Of the running instance; None if it does not answer, or has no programs anywhere while it does not track."""
    with suppress(InstanceError, RefusedError):
        hooks = Client(config.state_dir).hooks()
        return hooks if hooks.interfaces else None
    return None


def check_leftovers(left: list[str], running: bool) -> Check:
    """What is attached, in words; with nobody running it is what a kept run, or one that was killed, left."""
    if not left:
        return Check("left behind", True, "nothing")
    if running:
        return Check("left behind", True, f"nothing: {len(left)} attachments belong to the running one")
    return Check("left behind", True, ", ".join(left), "ctweb run takes it over; ctweb detach removes it")


def attached(netlink: IPRoute, pins: Path) -> list[str]:
    """Our links and filters in this network namespace, in words."""
    found = [f"link {path}" for path in sorted(pins.glob("*"))]
    for index in sorted(clsact.interfaces(netlink)):
        if any(clsact.attached(netlink, index, [way]) for way in clsact.Way):
            found.append(f"clsact filters on the interface with index {index}")
    return found


def tracking_checks(config: Config, *, loadable: bool) -> list[Check]:
    """Every check of what ctweb would do under `config`. `loadable`: nothing is in the way of loading programs."""
    max_entries = config.max_entries or default_max_entries(machine_memory())
    whole = preallocates(config.preallocate, max_entries, machine_memory())
    checks = [check_datapath(max_entries, whole=whole)] if loadable else []
    namespace = os.stat("/proc/self/ns/net").st_ino
    holder = lock_holder(RUNTIME / f"netns-{namespace}.lock", Path("/proc/locks").read_text())
    running = holder is not None
    hooks = running_hooks(config) if running else None
    with IPRoute() as netlink:
        interfaces = read(netlink)
        checks += interface_checks(config, interfaces, hooks)
        checks += fasttrack_checks(config, interfaces) if hooks is None else running_fasttrack(hooks.fasttrack)
        left = attached(netlink, namespace_pins(BPFFS))
    checks.append(check_memory(Path("/proc/meminfo").read_text(), max_entries, BYTES_PER_CONNECTION))
    if os.geteuid() != 0:
        return [*checks, Check("running", True, "cannot tell, nor what was left behind", "run ctweb doctor as root")]
    verdict = check_verdict(tracking_verdict(config, running), running)
    checks += [check_instance(holder, config.state_dir), verdict]
    if running:
        checks += running_accounts(config)
    return [*checks, check_leftovers(left, running)]

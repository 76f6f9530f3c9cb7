"""`ctweb run`: puts the parts together, keeps them until a signal comes, and takes them apart."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import gunicorn.config
import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ctweb import allocator, first_user, instance, log, privileges, reach, service
from ctweb.capacity import default_max_entries, machine_memory, preallocates
from ctweb.config import Config, ConfigError, Listen
from ctweb.datapath.attach import BPFFS, AttachError, detach_leftovers, namespace_pins
from ctweb.datapath.build import BuildError, BuildOptions, Datapath, compile_datapath
from ctweb.datapath.conntrack import Conntrack
from ctweb.datapath.fasttrack import FastTrack
from ctweb.datapath.follow import Interfaces
from ctweb.datapath.growth import growing
from ctweb.datapath.interfaces import NoSuchInterfaceError
from ctweb.datapath.marking import Marking
from ctweb.datapath.pins import Pins
from ctweb.datapath.rulebook import Rulebook
from ctweb.enabled import Enabled
from ctweb.instance import InstanceError, Running
from ctweb.privileges import Account, PrivilegeError
from ctweb.reload import Reload
from ctweb.rules import RuleError
from ctweb.state import StateError
from ctweb.tracker import Tracker
from ctweb.users import Users
from ctweb.web import metrics, server
from ctweb.web.app import STATIC, create_app
from ctweb.web.auth import Auth
from ctweb.web.live import Live
from ctweb.web.sessions import Sessions
from ctweb.web.tls import Certificate

logger = logging.getLogger(__name__)


class RunError(Exception):
    """It cannot run; the message is one clear line. Nothing is left attached."""


class _Stopped(Exception):
    """A signal came before it was up."""


class _StopAsked:
    """A signal handler for the start, which is short: it remembers, and the start asks between its steps.

    One that raised could do so anywhere: in a destructor, where Python drops it, or within a library not made for it.
    """

    def __init__(self) -> None:
        self._asked = False

    def __call__(self, number: int, frame: object) -> None:
        self._asked = True

    def check(self) -> None:
        """Raises _Stopped if a signal came."""
        if self._asked:
            raise _Stopped


def run(config: Config, *, keep: bool, log_json: bool, reread: Callable[[], Config]) -> None:
    """Run in the foreground until SIGTERM or SIGINT. With `keep` the programs stay attached at the end.

    log_json: log lines are JSON. reread: reads the configuration again, after a SIGHUP; raises ConfigError.

    Raises RunError, with nothing left attached.
    """
    log.set_up(as_json=log_json)
    allocator.keep_little()
    stop = _StopAsked()  # until the server takes over
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    reload = Reload(config, reread)
    try:
        with ExitStack() as stack:
            try:
                stack.callback(reload.stop)
                _run(config, stack, reload, stop, reread, keep=keep, log_json=log_json)
            finally:
                service.stopping()
                # What is left to do takes no time, and must be done.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
    except _Stopped:
        logger.info("stopped while starting")
    except (
        AttachError, BuildError, ConfigError, InstanceError, NoSuchInterfaceError, PrivilegeError, RuleError, StateError
    ) as error:  # fmt: skip
        raise RunError(str(error)) from error
    except (OSError, NetlinkError) as error:
        raise RunError(f"the kernel refused: {error}") from error


def _run(
    config: Config,
    stack: ExitStack,
    reload: Reload,
    stop: _StopAsked,
    reread: Callable[[], Config],
    *,
    keep: bool,
    log_json: bool,
) -> None:
    if keep and not os.path.ismount(BPFFS):
        raise RunError(f"--keep needs a BPF file system: mount -t bpf bpf {BPFFS}")
    certificate, account = Certificate(config.tls) if config.tls else None, _account()
    state_dir = stack.enter_context(_claimed(config.state_dir, account))
    users = _users(state_dir)
    listener = stack.enter_context(_listen(config.listen))

    stop.check()
    pins = Pins(namespace_pins())
    datapath = compile_datapath(_build_options(config), pins)
    stack.callback(datapath.close)
    stop.check()
    tracker = Tracker(datapath, config.tracking, state_dir)
    rulebook = _rules(config, datapath, tracker)
    stop.check()
    conntrack = Conntrack(datapath, tracker.marks, config.marks)
    stack.callback(conntrack.stop)
    tracker.follow(conntrack)
    enabled = Enabled(
        setting=lambda: tracker.tracking.enabled,
        rules=lambda: len(rulebook.rules),
        auto_timeout=lambda: reload.config.auto_timeout,
    )
    interfaces = Interfaces(
        rulebook.fasttrack.programs,
        datapath.interfaces,
        hook=config.hook,
        names=config.interfaces,
        keep=keep,
        noticed=rulebook.interfaces_are,
        settled=rulebook.fasttrack.hooks_are,
        attached=enabled.verdict.active,
        owner=_owner(account),
    )
    _attach(interfaces, datapath, pins, _owner(account), keep=keep)
    stack.callback(interfaces.stop)
    # Packets are counted from here on. What interfaces and rules may want later takes root to load: see privileges.py.
    datapath.programs.load_all({"tc"} if config.hook == "tc" else {"tc", "xdp"})
    program = _give_up_root(account, reread)
    stack.enter_context(growing(datapath.memory))
    conntrack.start()
    stack.enter_context(rulebook.fasttrack.running(interfaces.replace))
    interfaces.start()
    enabled.start(interfaces.set_attached)
    stack.callback(enabled.stop)
    tracker.enabled = enabled
    tracker.start()
    stack.callback(tracker.stop)

    host, port = listener.getsockname()[:2]
    live = Live(tracker, enabled)
    live.start()
    reload.start(tracker, rulebook, conntrack, certificate)
    running = Running(os.getpid(), host, port, tls=certificate is not None)
    auth = Auth(users, Sessions(state_dir, users), running.token)
    app = create_app(
        tracker,
        live,
        auth,
        hosts=(config.listen.host, host),
        hooks=lambda: {report.interface: report.hook for report in interfaces.reports if report.hook},
        static=program / STATIC.name,
    )
    metrics.add_to(
        app,
        metrics.TableCollector(
            tracker,
            hooks=lambda: {each.interface: each.hook for each in interfaces.reports if each.hook or each.failed},
            counters=lambda: live.counters | auth.check.counters,
            top_hosts=lambda: reload.config.metrics.top_hosts,
        ),
    )
    stack.enter_context(instance.announced(state_dir, running))
    stop.check()
    first_user.ensure(users, config.state_dir, log_is_kept=log_json or service.logs_to_journal())
    _say_where(running)
    watchdog = service.Watchdog(lambda: tracker.snapshot.seq)

    def ready() -> None:
        stop.check()  # the server has its own handlers by now
        service.ready()

    server.serve(app, listener, certificate=certificate, ready=ready, alive=watchdog.beat, closing=live.stop)
    logger.info("stopped%s", "; the programs stay attached until `ctweb detach`" if keep else "")


def _build_options(config: Config) -> BuildOptions:
    memory = machine_memory()
    most = config.max_entries or default_max_entries(memory)
    return BuildOptions(most, preallocate=preallocates(config.preallocate, most, memory))


def _rules(config: Config, datapath: Datapath, tracker: Tracker) -> Rulebook:
    """The configuration's rules, in force."""
    marking = Marking(datapath.set_rules, datapath.rule_dtype, tracker.marks.number)
    tracker.fasttrack = FastTrack(datapath)
    rulebook = Rulebook(marking, tracker.fasttrack)
    rulebook.set(config.rule)
    return rulebook


def _attach(
    interfaces: Interfaces, datapath: Datapath, pins: Pins, owner: tuple[int, int] | None, *, keep: bool
) -> None:
    """Put the programs on the interfaces, in the place of an earlier run's where there are any."""
    try:
        if keep:
            datapath.keep(owner)  # before the first packet: from here on this process may be killed
        interfaces.attach()
        if keep:
            pins.forget_older_calls()
        else:
            pins.remove()
    except BaseException:
        pins.remove()
        raise


@contextmanager
def _claimed(state_dir: Path, account: Account | None) -> Iterator[Path]:
    """A path to the state directory, this process's alone, whoever it becomes. Raises InstanceError, PrivilegeError."""
    with instance.only_instance(state_dir), privileges.within_reach(state_dir) as reached:
        if account is not None:
            privileges.hand_over(reached, account)
        yield reached


def _account() -> Account | None:
    """The user to become. None, and a warning, where that cannot be: root goes on, without root's capabilities."""
    account = privileges.account()
    if account is None:
        logger.warning(
            "there is no user %s to run as, so it stays root; `make setup` makes it, or: %s",
            privileges.USER, privileges.HOW_TO_MAKE_USER,
        )  # fmt: skip
        return None
    program = (Path(__file__), STATIC / "index.html", Path(msgspec.__file__))
    if refused := reach.unreadable(program, account):
        logger.warning(
            "the user %s may not read %s, where this program lies, so it stays root; "
            "`make install` puts a copy where everybody may read it", privileges.USER, refused
        )  # fmt: skip
        return None
    return account


def _owner(account: Account | None) -> tuple[int, int] | None:
    """Of what this process pins once it is that user."""
    return None if account is None else (account.uid, account.gid)


def _give_up_root(account: Account | None, reread: Callable[[], Config]) -> Path:
    """From here on there are one user's files and two capabilities; where the program is. Raises PrivilegeError."""
    service.reach()
    program = reach.PROGRAM if account is None else reach.keep_in_reach(account)
    privileges.drop(account)
    # gunicorn gives its files to whoever it was imported by, and asks for the directory that it was imported in.
    gunicorn.config.User.default, gunicorn.config.Group.default = os.geteuid(), os.getegid()
    gunicorn.config.Chdir.default = "/"
    who = "root" if account is None else f"user {privileges.USER}"
    logger.info("running as %s with %s alone", who, " and ".join(privileges.KEPT))
    try:
        reread()
    except ConfigError as error:
        logger.warning("%s; a reload will not read it", error)
    return program


def _users(state_dir: Path) -> Users:
    """Those that are kept. Raises StateError now if they cannot be used, and not when somebody wants to sign in."""
    users = Users(state_dir)
    users.read()
    return users


def _say_where(running: Running) -> None:
    if not running.tls and not ipaddress.ip_address(running.host).is_loopback:
        logger.warning(
            "passwords and connections cross the network in the clear: %s is not loopback, and there is no TLS; "
            "give [tls] a certificate and a key, or listen on 127.0.0.1",
            Listen(running.host, running.port),
        )
    logger.info("open %s", running.url)


def _listen(listen: Listen) -> socket.socket:
    try:
        return server.listen(listen.host, listen.port)
    except OSError as error:
        # The system's own words: those of `create_server` repeat the address. A resolver's number is not one of errno.
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise RunError(f"cannot listen on {listen}: {why}; choose another place with --listen") from None


def detach(state_dir: Path) -> list[str]:
    """Take off the interfaces of this network namespace whatever earlier runs left there; what it was, in words.

    Raises RunError if an instance is running there, or something cannot be removed.
    """
    try:
        with instance.only_instance(state_dir), IPRoute() as netlink:
            removed = detach_leftovers(netlink, namespace_pins(), sparing={})
            if Pins(namespace_pins()).remove():
                removed.append("the table")
            return removed
    except InstanceError as error:
        raise RunError(f"{error}; stop it first") from None
    except (OSError, NetlinkError) as error:
        raise RunError(f"cannot detach: {error}") from None

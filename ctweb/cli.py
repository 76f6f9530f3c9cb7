"""The command line: what scripts and people rely on. Each command is a few lines; the work is elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Any

import click
import msgspec

from ctweb import state
from ctweb.capacity import default_max_entries, machine_memory
from ctweb.client import Client, RefusedError
from ctweb.command_line import Failure, configured, failing_in_one_line, overridden
from ctweb.config import Config, ConfigError, Listen
from ctweb.instance import InstanceError
from ctweb.printing import Printer
from ctweb.settings import as_routeros
from ctweb.state import StateError
from ctweb.table.filter_language import says_nothing
from ctweb.user_commands import user

FOLLOW_SECONDS = 1.0


class ListenType(click.ParamType):
    """An address and a port to listen on."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Listen:
        try:
            return value if isinstance(value, Listen) else Listen.parse(value)
        except ValueError as error:
            raise Failure(f"--listen: {error}; it takes an address and a port such as 127.0.0.1:8291") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ctweb", prog_name="ctweb")
def main() -> None:
    """The connections of this machine: tracked by eBPF, shown live, in RouterOS's words."""


@main.command()
@configured
@click.option(
    "--interface",
    "interfaces",
    multiple=True,
    metavar="NAME",
    help="Track this interface only; may be given several times.  [default: the machine's own]",
)
@click.option("--listen", type=ListenType(), metavar="HOST:PORT", help=f"[default: {Config().listen}]")
@click.option("--hook", type=click.Choice(["auto", "xdp", "tc"]), help="Where packets are met on their way in.")
@click.option("--keep", is_flag=True, help="Leave the programs attached at the end; `ctweb detach` removes them.")
@click.option("--log-json", is_flag=True, help="Log lines are JSON objects.")
@click.option("--check-config", is_flag=True, help="Only say whether the configuration is good.")
def run(config: Config, keep: bool, log_json: bool, check_config: bool, **options: Any) -> None:
    """Track connections and serve them, in the foreground, until SIGTERM or Ctrl-C."""
    if check_config:
        from ctweb.web.tls import Certificate  # noqa: PLC0415

        with failing_in_one_line(ConfigError):
            if config.tls:
                Certificate(config.tls)
        click.echo("OK")
        return
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir("/")  # it was removed, and gunicorn asks for it at once
    from ctweb import run as running  # noqa: PLC0415  # brings BCC and gunicorn along, slow to import

    read = click.get_current_context().obj
    with failing_in_one_line(running.RunError):
        running.run(
            overridden(config, **options),
            keep=keep,
            log_json=log_json,
            reread=lambda: overridden(read(), **options),
        )


@main.command(name="print")
@configured
@click.argument("filter_words", nargs=-1, metavar="[FILTER]")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of RouterOS's rows.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a line of names first, every property a column.")
@click.option("--follow", is_flag=True, help="Again each second, until Ctrl-C; in place, on a terminal.")
def print_table(config: Config, filter_words: tuple[str, ...], as_json: bool, as_csv: bool, follow: bool) -> None:
    """Show the running table: all of it, or what matches FILTER."""
    if as_csv and (as_json or follow):
        raise Failure(f"--csv does not go together with {'--json' if as_json else '--follow'}: leave one out")
    where = " ".join(filter_words)
    printer = Printer(sys.stdout, "json" if as_json else "csv" if as_csv else "table", again=follow)
    with failing_in_one_line(InstanceError, RefusedError), suppress(KeyboardInterrupt):
        client = Client(config.state_dir)
        while True:
            printer.show(client.connections(where))
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)
    printer.close()


@main.command()
@configured
@click.argument("filter_words", nargs=-1, metavar="FILTER")
@click.option("--yes", is_flag=True, help="Do not ask before.")
def remove(config: Config, filter_words: tuple[str, ...], yes: bool) -> None:
    """Forget the connections that match FILTER; the next packet of one starts a new connection."""
    where = " ".join(filter_words).strip()
    if says_nothing(where):
        raise Failure("remove takes a FILTER such as src:10.0.0.7; without one it would remove every connection")
    with failing_in_one_line(InstanceError, RefusedError):
        client = Client(config.state_dir)
        if not yes:
            click.confirm(f"Remove {_connections(client.count(where))}?", abort=True)
        click.echo(f"removed {_connections(client.remove(where))}")


def _connections(count: int) -> str:
    return f"{count} connection{'' if count == 1 else 's'}"


@main.command()
@configured
@click.argument("file", metavar="FILE")
@click.argument("filter_words", nargs=-1, metavar="[FILTER]")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of RouterOS's rows.")
@click.option("--ended", is_flag=True, help="Also the connections that ended on the way, as they stood at their end.")
def replay(config: Config, file: str, filter_words: tuple[str, ...], as_json: bool, ended: bool) -> None:
    """Show the table that a capture (pcap or pcapng; - is standard input) leaves behind at its last packet."""
    from ctweb import replay as replaying  # noqa: PLC0415  # brings BCC along, slow to import

    with failing_in_one_line(StateError, replaying.ReplayError):
        replaying.replay(
            file,
            filter_text=" ".join(filter_words),
            as_json=as_json,
            ended=ended,
            tracking=state.load(config.state_dir, config.tracking)[0],
            rules=config.rule,
            max_entries=config.max_entries or default_max_entries(machine_memory()),
            out=sys.stdout,
        )


@main.group()
def settings() -> None:
    """The tracking settings, under RouterOS's names."""


@settings.command(name="get")
@configured
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as RouterOS's REST answers it.")
def get_settings(config: Config, names: tuple[str, ...], as_json: bool) -> None:
    """Show all settings, or those named. Without a running instance: those that it would start with."""
    with failing_in_one_line(RefusedError, StateError):
        try:
            values = Client(config.state_dir).settings()
        except InstanceError:
            values = as_routeros(state.load(config.state_dir, config.tracking)[0])
    for name in names:
        if name not in values:
            raise Failure(f"unknown setting {name!r}; there are {', '.join(values)}")
    chosen = {name: value for name, value in values.items() if not names or name in names}
    if as_json:
        click.echo(msgspec.json.encode(chosen))
        return
    yes_no = {"true": "yes", "false": "no"}
    for name, value in chosen.items():
        click.echo(f"{name}: {yes_no.get(value, value)}")


@settings.command(name="set")
@configured
@click.argument("changes", nargs=-1, required=True, metavar="NAME=VALUE...")
def set_settings(config: Config, changes: tuple[str, ...]) -> None:
    """Change settings of the running instance, at once and for good: all of them, or none if one is refused."""
    pairs = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise Failure(f"{change!r} is not NAME=VALUE, such as udp-timeout=10s")
        pairs[name] = value
    with failing_in_one_line(InstanceError, RefusedError):
        Client(config.state_dir).change_settings(pairs)


main.add_command(user)


@main.command()
@configured
def doctor(config: Config) -> None:
    """Say what this machine lacks, in words; exit code 1 if ctweb cannot run here."""
    from ctweb import doctor as examination  # noqa: PLC0415

    sys.exit(examination.main(config))


@main.command()
@configured
def detach(config: Config) -> None:
    """Remove what a run with --keep left on the interfaces."""
    from ctweb import run as running  # noqa: PLC0415

    with failing_in_one_line(running.RunError):
        removed = running.detach(config.state_dir)
    for each in removed:
        click.echo(f"removed {each}")
    if not removed:
        click.echo("nothing was attached")

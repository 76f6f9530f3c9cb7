"""A real `ctweb run` in a namespace, its table by REST."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from running import CTWEB, PORT, exchange, signed_in

from ctweb.table.names import UNTRACKED_REASONS
from lab.network import DEADLINE, Namespace, wait_for

# Nothing times out while a test looks: a busy machine may take its time.
CONFIG = """[tracking]
tcp-syn-sent-timeout = "10m"
tcp-syn-received-timeout = "10m"
tcp-fin-wait-timeout = "10m"
tcp-close-wait-timeout = "10m"
tcp-last-ack-timeout = "10m"
tcp-time-wait-timeout = "10m"
tcp-close-timeout = "10m"
udp-timeout = "10m"
icmp-timeout = "10m"
"""
NUMBERS = ("orig-packets", "orig-bytes", "repl-packets", "repl-bytes")

Row = dict[str, str]


@dataclass(frozen=True)
class Count:
    """Packets and layer-3 bytes each way."""

    orig_packets: int
    orig_bytes: int
    repl_packets: int
    repl_bytes: int

    @classmethod
    def of(cls, row: Row) -> Count:
        return cls(*(int(row[name]) for name in NUMBERS))


class Tracked:
    """`ctweb run` in a namespace. However its test ends, nothing that it met may be missing from its accounts.

    They are looked at before it is ended, or its network goes. Of a run that is to be kept the accounts stay in the
    kernel, and are looked at when the next run ends that has taken them over; those of a run that a test kills by
    itself, or that ended without being asked, are lost with it.
    """

    def __init__(
        self, machine: Namespace, directory: Path, *arguments: str, config: str = CONFIG, by: Sequence[str] = ()
    ) -> None:
        """`by`: what runs the command, such as unshare."""
        self.machine = machine
        directory.mkdir(parents=True, exist_ok=True)
        self.options = ("--config", directory / "ctweb.toml", "--state-dir", directory / "state")
        self.log = directory / "log"
        (directory / "ctweb.toml").write_text(config)
        listen = ("--listen", f"127.0.0.1:{PORT}")
        with self.log.open("ab") as log:
            self.process = machine.start(*by, CTWEB, "run", *self.options, *listen, *arguments, stderr=log)
        self.kept = "--keep" in arguments
        wait_for("ctweb answers", self._answers)
        machine.checks.append(self.check_accounts)

    def _answers(self) -> bool:
        ended = self.process.poll()
        assert ended is None, f"ctweb run ended with {ended}:\n{self.log.read_text()}"
        try:
            return self.get("/healthz") is not None
        except OSError:
            return False

    def cli(self, *words: str) -> tuple[object, ...]:
        """Another command on this instance."""
        return (CTWEB, *words, *self.options)

    def signed_in(self) -> dict[str, str]:
        """The header that a request to it must have."""
        return signed_in(self.options[-1])

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=DEADLINE)
        with self.machine.entered():
            connection.connect()
        status, _, answer = exchange(connection, method, path, body, self.signed_in())
        return status, answer

    def get(self, path: str) -> object:
        """The JSON at a path; not 200 fails."""
        status, answer = self.ask("GET", path)
        assert status == 200, f"{path}: {status} {answer!r}"
        return json.loads(answer)

    def rows(self, **properties: str) -> list[Row]:
        """The connections that have all of these properties, `_` for `-`, IPv4 and IPv6."""
        query = urlencode({name.replace("_", "-"): value for name, value in properties.items()})
        return [
            row
            for tree in ("/rest/ip/firewall/connection", "/rest/ipv6/firewall/connection")
            for row in self.get(f"{tree}?{query}")
        ]

    def row(self, **properties: str) -> Row:
        """The one connection that has these properties, once it is there."""
        rows = wait_for(f"a row with {properties}", lambda: self.rows(**properties))
        assert len(rows) == 1, rows
        return rows[0]

    def counts(self, expected: Count, **properties: str) -> Row:
        """The one connection with these properties, once it counts what is expected; more than that fails at once."""

        def row() -> Row | None:
            row = self.row(**properties)
            now = Count.of(row)
            assert all(a <= b for a, b in zip(vars(now).values(), vars(expected).values(), strict=True)), (
                now,
                expected,
            )
            return row if now == expected else None

        return wait_for(f"{properties} counts {expected}", row)

    def unaccounted(self) -> dict[str, int]:
        """Packets and bytes that were met and are counted nowhere, or twice: {} as it should be."""
        counters: dict[str, int] = self.get("/healthz")["counters"]  # type: ignore[index]
        return {name: n for name, n in counters.items() if name.startswith("unaccounted-") and n}

    def sides(self) -> dict[str, tuple[int, int]]:
        """Packets and bytes: offered, and on connections, live or ended, or untracked by reason."""
        told: dict[str, str] = self.get("/rest/system/resource")  # type: ignore[assignment]
        reasons = sum(int(told[f"untracked-{name}"]) for name in UNTRACKED_REASONS)
        assert reasons == int(told["untracked-packets"])
        return {
            unit: (
                int(told[f"offered-{unit}"]),
                sum(int(told[f"{side}-{unit}"]) for side in ("live", "ended", "untracked")),
            )
            for unit in ("packets", "bytes")
        }

    def check_conservation(self) -> None:
        """Wait for a sweep at a quiet moment, and offered = live + ended + untracked by reason, exactly."""
        wait_for("the accounts are even", lambda: all(a == b for a, b in self.sides().values()), self.sides)
        assert self.unaccounted() == {}

    def check_accounts(self) -> None:
        """After a sweep that begins now nothing is missing or counted twice, though packets may come all the while
        (ctweb/table/accounts.py); if none came, both sides are equal. Not if it runs no more."""
        if self.process.poll() is not None:
            return
        before, swept = self.sides(), self._swept()
        wait_for("it sweeps", lambda: self._swept() >= swept + 2)
        now = self.sides()
        assert self.unaccounted() == {}
        assert before != now or all(a == b for a, b in now.values()), now
        assert "do not add up" not in self.log.read_text()

    def _swept(self) -> int:
        return self.get("/healthz")["sweep"]  # type: ignore[index]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait; the exit status."""
        if not self.kept:
            self.check_accounts()
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


def refused(machine: Namespace, directory: Path, *arguments: str) -> tuple[int, str]:
    """The exit status and the words of a `ctweb run` that should end at once."""
    done = subprocess.run(
        machine.command(CTWEB, "run", "--state-dir", directory / "state", *arguments),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr

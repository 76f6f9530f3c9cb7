"""`ctweb replay` as people call it, on captures made by hand and on one of real traffic."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
from captures import at, office, pcap, pcapng, udp
from running import CTWEB

LENGTH = re.compile(r"(?:, length |payload length: )(\d+)\)")


def ctweb_replay(*arguments: str | Path, given: bytes = b"", state: Path) -> subprocess.CompletedProcess[bytes]:
    command = [CTWEB, "replay", "--state-dir", state, *arguments]
    return subprocess.run(command, input=given, capture_output=True, timeout=120, check=False)


@pytest.fixture
def ctweb_shows(tmp_path):
    """Rows of a replay, which must succeed, and what it says on standard error."""

    def shows(*arguments: str | Path, given: bytes = b"") -> tuple[list[dict[str, str]], str]:
        done = ctweb_replay("--json", *arguments, given=given, state=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr.decode()

    return shows


class TestCommand:
    def test_a_file_and_a_filter(self, ctweb_shows, tmp_path):
        path = tmp_path / "office.pcapng"
        path.write_bytes(pcapng(office()))
        rows, said = ctweb_shows(path, "proto:udp", "dport:53")
        assert [(row["orig-bytes"], row["repl-bytes"]) for row in rows] == [("58", "118")]
        assert said == ""

    def test_standard_input_packed_and_ended(self, ctweb_shows):
        packets = [at(0, udp("10.0.0.1", 1, "10.0.0.2", 2)), at(60, udp("2001:db8::1", 1, "2001:db8::2", 2))]
        rows, said = ctweb_shows("-", "--ended", given=gzip.compress(pcap(packets)))
        assert [(row["src-address"], row["dying"]) for row in rows] == [
            ("[2001:db8::1]:1", "false"),
            ("10.0.0.1:1", "true"),
        ]
        assert said == ""

    def test_as_a_table(self, tmp_path):
        done = ctweb_replay("-", given=pcap(office()), state=tmp_path)
        lines = done.stdout.decode().splitlines()
        assert lines[0].startswith("Flags: ")
        assert sum("10.0.0.2:80" in line for line in lines) == 1
        assert ctweb_replay("-", given=pcap([]), state=tmp_path).stdout == b""

    def test_the_configurations_timeouts(self, ctweb_shows, tmp_path):
        path = tmp_path / "ctweb.toml"
        path.write_text('[tracking]\nudp-timeout = "2m"\n')
        packets = [at(0, udp("10.0.0.1", 1, "10.0.0.2", 2)), at(60, udp("10.0.0.3", 3, "10.0.0.4", 4))]
        rows, _ = ctweb_shows("--config", path, "-", given=pcap(packets))
        assert sorted(row["timeout"] for row in rows) == ["1m", "2m"]

    def test_the_configurations_rules(self, ctweb_shows, tmp_path):
        """The first that matches decides, for what has ended too; one for an interface never does, and that is said."""
        path = tmp_path / "ctweb.toml"
        names = ("no such interface", "questions", "anything")
        for words, name in zip(('in-interface = "lan"', 'protocol = "udp"\ndst-port = 53', ""), names, strict=True):
            mark = f'action = "mark-connection"\nnew-connection-mark = "{name}"\n'
            path.write_text((path.read_text() if path.exists() else "") + f"[[rule]]\n{words}\n{mark}")
        packets = [
            at(0, udp("10.0.0.1", 1, "10.0.0.2", 53)),
            at(60, udp("2001:db8::1", 1, "2001:db8::2", 53)),
            at(60, udp("10.0.0.3", 3, "10.0.0.4", 4)),
        ]
        rows, said = ctweb_shows("--config", path, "--ended", "-", given=pcap(packets))
        assert {row["src-address"]: row["connection-mark"] for row in rows} == {
            "10.0.0.1:1": "questions", "[2001:db8::1]:1": "questions", "10.0.0.3:3": "anything",
        }  # fmt: skip
        assert said == (
            "ctweb: standard input: rule 1 matches no packet: "
            "a capture does not tell through which interface a packet came in\n"
        )
        rows, _ = ctweb_shows("--config", path, "-", "mark:anything", given=pcap(packets))
        assert [row["src-address"] for row in rows] == ["10.0.0.3:3"]

    def test_a_capture_cut_off_shows_what_came_before(self, ctweb_shows):
        whole = pcap(office())
        rows, said = ctweb_shows("-", given=whole[:-1])
        assert len(rows) == 5
        assert said == (
            f"ctweb: standard input: it is cut off at byte {len(whole) - 1}, within a packet; "
            f"the table is as it stood there, after {len(office()) - 1} packets\n"
        )

    @pytest.mark.parametrize(
        ("given", "arguments", "words"),
        [
            (b"GIF89a and so on", ["-"], "cannot replay standard input: it is neither pcap nor pcapng"),
            (b"", ["-"], "cannot replay standard input: it is empty"),
            (b"", ["/no/such/file"], "cannot open /no/such/file: No such file or directory"),
            (pcap([], link=105), ["-"], "link type 105 (802.11) is not supported"),
            (pcap([]), ["-", "nonsense:1"], "nonsense"),
        ],
    )
    def test_what_cannot_be_replayed_is_one_line(self, tmp_path, given, arguments, words):
        done = ctweb_replay("--json", *arguments, given=given, state=tmp_path)
        assert done.returncode == 2
        assert done.stdout == b""
        assert words in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1


def all_closed(port: int) -> bool:
    """Every connection with this local port is past its FINs: in time-wait, or gone."""
    time_wait, listen, ours = "06", "0A", f":{port:04X}"
    tables = (Path(f"/proc/thread-self/net/{name}").read_text() for name in ("tcp", "tcp6"))
    lines = [line.split() for table in tables for line in table.splitlines()]
    return all(line[3] in (time_wait, listen) for line in lines if line[1].endswith(ours) or line[2].endswith(ours))


class TestRealTraffic:
    """ping and curl over the loopback of a namespace, captured by tcpdump three times at once."""

    LINKS: ClassVar = {"EN10MB": "lo", "LINUX_SLL": "any", "LINUX_SLL2": "any"}

    @pytest.fixture
    def captured(self, namespace, tmp_path):
        """Capture files by link type."""
        files = {link: tmp_path / f"{link}.pcap" for link in self.LINKS}
        # One with a snap length that just covers the headers; buffers large enough that nothing is dropped.
        dumps = [
            subprocess.Popen(
                ["tcpdump", "-i", self.LINKS[link], "-y", link, "-w", files[link], "-Z", "root", "--immediate-mode",
                 "-B", "32768", "-U", "-s", "128" if link == "LINUX_SLL" else "0", "ip or ip6"],
                stderr=subprocess.PIPE,
            )
            for link in self.LINKS
        ]  # fmt: skip
        server = subprocess.Popen(
            [sys.executable, "-m", "http.server", "--bind", "::", "--directory", tmp_path, "8000"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            for dump in dumps:
                while b"listening on" not in dump.stderr.readline():
                    assert dump.poll() is None
            (tmp_path / "page").write_bytes(bytes(300_000))
            for address in ("127.0.0.1", "::1"):
                subprocess.run(["ping", "-c", "3", "-i", "0.2", address], check=True, stdout=subprocess.DEVNULL)
                url = f"http://{f'[{address}]' if ':' in address else address}:8000/page"
                subprocess.run(
                    ["curl", "-sS", "--retry", "20", "--retry-delay", "1", "--retry-connrefused",
                     "-o", "/dev/null", url],
                    check=True,
                )  # fmt: skip
            end = time.monotonic() + 30
            while not all_closed(8000):  # the server may take its time
                assert time.monotonic() < end, "a connection has not closed"
                time.sleep(0.05)
            last = b"the last packet"
            subprocess.run(["nc", "-u", "-w", "1", "127.0.0.1", "9"], input=last, check=True)
            end = time.monotonic() + 30
            while not all(last in path.read_bytes() for path in files.values()):
                assert time.monotonic() < end, "tcpdump has not written the last packet"
                time.sleep(0.05)
        finally:
            for process in (*dumps, server):
                process.terminate()
                process.communicate()
        return files

    def test_counts_as_tcpdump_does(self, captured, ctweb_shows):
        for link, path in captured.items():
            rows, said = ctweb_shows("--ended", path)
            assert "cut off" not in said
            flows = [
                row for row in rows if row["protocol"] in ("tcp", "icmp", "icmpv6") and row["seen-reply"] == "true"
            ]
            assert len(flows) >= 4, (link, rows)
            for row in flows:
                for way in ("orig", "repl"):
                    counted = int(row[f"{way}-packets"]), int(row[f"{way}-bytes"])
                    assert counted == self.tcpdumps_count(path, row, way), (link, row)
            pages = [row for row in flows if row.get("dst-port") == "8000"]
            assert [row["tcp-state"] for row in pages] == ["time-wait"] * 2
            assert all(int(row["repl-bytes"]) > 300_000 for row in pages)

    def tcpdumps_count(self, path: Path, row: dict[str, str], way: str) -> tuple[int, int]:
        """Packets and layer-3 bytes of one direction, read by tcpdump from the same file."""
        if row["protocol"] == "tcp":
            end = "src" if way == "orig" else "dst"
            family = "ip6" if row["src-address"].startswith("[") else "ip"
            wanted = f"{family} and tcp and {end} port {row['src-port']}"
        else:
            kinds = {"icmp": (8, 0), "icmpv6": (128, 129)}[row["protocol"]]
            wanted = f"{'icmp' if row['protocol'] == 'icmp' else 'icmp6'}[0] == {kinds[way == 'repl']}"
        command = ["tcpdump", "-nn", "-v", "-r", path, wanted]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        header = 40 if row["src-address"].startswith("[") or row["protocol"] == "icmpv6" else 0
        sizes = [int(size) + header for size in LENGTH.findall(printed)]
        return len(sizes), sum(sizes)

"""FTP control connections: what makes an expectation, what makes none, and who uses it up."""

from __future__ import annotations

import pytest
from control import Control, data, expected, forget_all, is_expected, kind
from crafted import CLIENT, CLIENT6, SERVER, SERVER6, address, udp_frame
from ftp_words import ODD, RIGHT, WRONG, filled
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

V4, V6 = (CLIENT, SERVER), (CLIENT6, SERVER6)
OWN = CLIENT.replace(".", ",").encode()
THEIRS = SERVER.replace(".", ",").encode()


@pytest.fixture(autouse=True)
def nothing_expected(table):
    forget_all(table)


def says(control: Control, who: str, payload: bytes) -> None:
    (control.client_says if who == "client" else control.server_says)(payload)


GOOD = [
    (V4, "client", b"PORT " + OWN + b",19,136\r\n", 5000),
    (V4, "client", b"port " + OWN + b",0,1\r\n", 1),
    (V4, "client", b"PoRt " + OWN + b",255,255\r\n", 65535),
    (V4, "client", b"EPRT |1|10.0.0.2|5000|\r\n", 5000),
    (V4, "client", b"eprt !1!10.0.0.2!65535!\r\n", 65535),
    (V6, "client", b"EPRT |2|2001:db8::2|5000|\r\n", 5000),
    (V6, "client", b"EPRT |2|2001:0db8:0:0:0:0:0:2|5000|\r\n", 5000),
    (V6, "client", b"EPRT |2|2001:DB8:0:0::0:2|5000|\r\n", 5000),
    (V4, "server", b"227 Entering Passive Mode (" + THEIRS + b",19,136).\r\n", 5000),
    (V4, "server", b"227 =" + THEIRS + b",19,136\r\n", 5000),
    (V4, "server", b"229 Entering Extended Passive Mode (|||5000|)\r\n", 5000),
    (V6, "server", b"229 Entering Extended Passive Mode (|||5000|)\r\n", 5000),
    (V6, "server", b"229 ok (!!!65535!)\r\n", 65535),
]


@pytest.mark.parametrize(("ends", "who", "line", "port"), GOOD)
def test_each_form_and_the_connection_after_it(table, ends, who, line, port):
    says(Control(table, *ends).greet(), who, line)
    caller, called = ends[::-1] if who == "client" else ends
    assert [found[1] for found in expected(table)] == [port]
    found = data(table, caller, called, port)
    assert (is_expected(table, found), kind(found)) == (True, "ftp")
    assert expected(table) == []
    again = data(table, caller, called, port, sport=50_001)
    assert (is_expected(table, again), kind(again)) == (False, "")


ABSURD = [
    *((V4, "client", b"PORT " + OWN + rest) for rest in (
        b",0,0\r\n", b",256,1\r\n", b",19,256\r\n", b",19\r\n", b",19,136,1\r\n", b",,136\r\n", b",19,\r\n",
        b",19,136\n",
        b",-19,136\r\n", b",19,136" + b"0" * 200 + b"\r\n", b",4294967315,136\r\n",
    )),
    *((V4, "client", line) for line in (
        b"PORT 192,0,2,1,19,136\r\n", b"PORT " + THEIRS + b",19,136\r\n", b"PORT 266,0,0,2,19,136\r\n",
        b"PORT" + b" " * 400, b" PORT " + OWN + b",19,136\r\n", b"XPRT " + OWN + b",19,136\r\n", b"PORT", b"PO",
        b"227 =" + OWN + b",19,136\r\n", b"229 (|||5000|)\r\n",
    )),
    *((V4, "client", b"EPRT " + rest + b"\r\n") for rest in (
        b"|1|10.0.0.2|0|", b"|1|10.0.0.2|65536|", b"|1|10.0.0.2|4294972296|", b"|1|10.0.0.3|5000|", b"|1|10.0.0|5000|",
        b"|1|10.0.0.2.1|5000|", b"|1|10..0.2|5000|", b"|1|10.0.0.2|5000", b"|2|10.0.0.2|5000|", b"|3|10.0.0.2|5000|",
        b"111110.0.0.2150001", b"|1|10.0.0.2||", b"|2|2001:db8::2|5000|",
    )),
    *((V4, "server", line + b"\r\n") for line in (
        b"PORT " + THEIRS + b",19,136", b"EPRT |1|10.0.0.1|5000|", b"227 Entering Passive Mode (192,0,2,1,19,136).",
        b"227 (" + OWN + b",19,136).", b"227 (" + THEIRS + b",0,0).", b"227-" + THEIRS + b",19,136",
        b"227 nothing here",
        b"229 (|||0|)", b"229 (|||65536|)", b"229 (|||70536|)", b"229 (||5000|)", b"229 (|!|5000|)", b"229 (|||5000)",
        b"229 (|||)", b"229 |||5000|",
    )),
    (V6, "client", b"PORT " + OWN + b",19,136\r\n"),
    (V6, "server", b"227 =" + THEIRS + b",19,136\r\n"),
    *((V6, "client", b"EPRT |2|" + host + b"|5000|\r\n") for host in (
        b"10.0.0.2", b"2001:db8::3", b"2001:db8::2::", b":2001:db8::2", b"2001:db8:0:0:0:0:0:0:2", b"2001:db8:2",
        b"2001:db8::12001:2", b"2001:db8::2:", b"2001:db8:::2", b"",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("ends", "who", "line"), ABSURD)
def test_what_nobody_should_follow_makes_nothing(table, ends, who, line):
    says(Control(table, *ends).greet(), who, line)
    assert expected(table) == []


def test_a_command_that_is_no_packets_beginning(table):
    Control(table).greet().client_says(b"NOOP\r\nPORT " + OWN + b",19,136\r\n")
    assert expected(table) == []


def test_a_command_split_over_packets(table):
    """As nf_conntrack: neither half is a command, and what follows the second half begins a line again."""
    control = Control(table).greet()
    control.client_says(b"EPRT |1|10.0.0.2|50")
    control.client_says(b"00|\r\n")
    assert expected(table) == []
    control.client_says(b"EPRT |1|10.0.0.2|5000|\r\n")
    assert len(expected(table)) == 1


def test_only_where_a_line_begins(table):
    control = Control(table).greet()
    control.client_says(b"no newline ")
    control.client_says(b"EPRT |1|10.0.0.2|5000|\r\n")
    assert expected(table) == []


def test_a_first_line_is_none(table):
    """nf_conntrack knows where a line begins only once it has seen one end."""
    Control(table).client_says(b"EPRT |1|10.0.0.2|5000|\r\n")
    assert expected(table) == []


def test_a_retransmitted_command_is_the_same(table):
    control = Control(table).greet()
    at = control.next[0]
    control.client_says(b"EPRT |1|10.0.0.2|5000|\r\n")
    control.client_says(b"EPRT |1|10.0.0.2|5000|\r\n", seq=at)
    assert len(expected(table)) == 1


def test_a_new_command_takes_the_place_of_the_one_before(table):
    control = Control(table).greet()
    for port in (5000, 5001, 5002):
        control.client_says(b"EPRT |1|10.0.0.2|%d|\r\n" % port)
    assert [port for _, port in expected(table)] == [5002]


def test_a_command_after_a_refused_one_is_not_read(table):
    """Where nf_conntrack would not make an expectation, there is none."""
    control = Control(table).greet()
    control.client_says(b"PORT 192,0,2,1,19,136\r\n")
    control.client_says(b"EPRT |1|10.0.0.2|5000|\r\n")
    assert expected(table) == []
    control.client_says(b"EPRT |1|10.0.0.2|5000|\r\n")
    assert len(expected(table)) == 1


def test_expires(table):
    Control(table).greet().client_says(b"EPRT |1|10.0.0.2|5000|\r\n")
    table.sleep(301)
    assert not is_expected(table, data(table, SERVER, CLIENT, 5000))


def test_does_not_outlive_its_control_connection(table):
    Control(table).greet().client_says(b"EPRT |1|10.0.0.2|5000|\r\n")
    table.clear()
    assert not is_expected(table, data(table, SERVER, CLIENT, 5000))


@pytest.mark.parametrize(
    ("source", "target", "port"), [(SERVER, CLIENT, 5001), ("10.0.0.9", CLIENT, 5000), (CLIENT, SERVER, 5000)]
)
def test_others_are_not_expected(table, source, target, port):
    Control(table).greet().client_says(b"EPRT |1|10.0.0.2|5000|\r\n")
    assert not is_expected(table, data(table, source, target, port))
    table.see(udp_frame(SERVER, 20, CLIENT, 5000))
    assert len(expected(table)) == 1


def test_a_port_that_is_no_control_port_is_not_read(table):
    Control(table, port=2121).greet().client_says(b"EPRT |1|10.0.0.2|5000|\r\n")
    assert expected(table) == []


def test_the_control_connection_is_shown_as_watched(table):
    Control(table).greet()
    assert kind(table.only()) == "ftp"
    assert "HELPER" in table.flags()


WORDS = st.sampled_from(
    [b"PORT ", b"EPRT ", b"227 ", b"229 ", b"(", b"|", b"|||", b",", b"10,0,0,2", b"10.0.0.2", b"2001:db8::2", b"::",
     b"1", b"2", b"65536", b"99999999999999999999", b"0", b"\r\n", b"\0", b"\xff"]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([V4, V6]), st.booleans(), st.binary(max_size=600) | st.lists(WORDS, max_size=40).map(b"".join))
@example(V4, False, b"PORT " + b"9" * 1000)
def test_anything_goes_through_and_what_it_makes_is_the_senders_own(table, ends, from_server, payload):
    """Control holds that each frame goes on unchanged."""
    table.clear()
    forget_all(table)
    says(Control(table, *ends).greet(), "server" if from_server else "client", payload or b"\n")
    found = expected(table)
    assert {host for host, _ in found} <= {address(ends[from_server]).ljust(16, b"\0").hex()}
    assert all(port for _, port in found)
    table.check_conservation()


@pytest.mark.parametrize("who", RIGHT)
def test_words_right_odd_and_wrong(table, who):
    """Those that tests/parity says to nf_conntrack too."""
    ends = V6 if "IPv6" in who else V4
    by_server = who.startswith("server")
    for words in RIGHT[who] + ODD[who] + WRONG[who]:
        forget_all(table)
        table.clear()
        says(Control(table, *ends).greet(), who.split(",")[0], filled(words, *ends[::-1 if by_server else 1], 20_000))
        assert [port for _, port in expected(table)] == [20_000] * (words in RIGHT[who]), words

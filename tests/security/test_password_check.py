"""Guessing is slow, memory bounded, and nobody locks somebody else out; on a clock of the tests' own."""

from __future__ import annotations

import threading

import pytest
from argon2 import PasswordHasher, extract_parameters
from running import until

from ctweb import passwords
from ctweb.users import User, Users
from ctweb.web import password_check
from ctweb.web.password_check import (
    BESIEGED,
    FAMILIAR,
    FREE,
    LONGEST_WAIT,
    REMEMBERED,
    WAITING,
    Failures,
    PasswordCheck,
    SlowDown,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failures(clock: Clock) -> Failures:
    return Failures(clock)


def test_each_failure_of_an_address_makes_the_next_wait_longer(failures, clock):
    waits = []
    for _ in range(FREE + 8):
        failures.add("10.0.0.1", "boss")
        waits.append(failures.wait("10.0.0.1", "boss"))
        clock.now += waits[-1]
        assert failures.wait("10.0.0.1", "boss") == 0
    assert waits == [0] * (FREE - 1) + [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_next_name_does_not_help_an_address(failures):
    for number in range(FREE + 1):
        failures.add("10.0.0.1", f"name-{number}")
    assert failures.wait("10.0.0.1", "boss") > 0


def test_where_a_name_is_guessed_at_from_everywhere_one_failure_is_enough(failures):
    for number in range(BESIEGED):
        failures.add(f"10.0.0.{number}", "boss")
    failures.add("10.0.1.1", "boss")
    assert failures.wait("10.0.1.1", "boss") > 1
    failures.add("10.0.1.2", "other")
    assert failures.wait("10.0.1.2", "other") == 0


def test_who_has_not_failed_does_not_wait_for_others(failures):
    for number in range(1000):
        failures.add(f"10.0.{number % 4}.{number % 250}", "boss")
    assert failures.wait("192.0.2.1", "boss") == 0


def test_failures_are_forgotten(failures, clock):
    for _ in range(FREE + 10):
        failures.add("10.0.0.1", "boss")
    clock.now += password_check.FORGOTTEN + 1
    assert failures.wait("10.0.0.1", "boss") == 0
    failures.add("10.0.0.1", "boss")
    assert failures.wait("10.0.0.1", "boss") == 0


def test_memory_is_bounded_whatever_is_tried(failures):
    for number in range(2 * REMEMBERED):
        failures.add(f"address {number}", f"name {number}")
    assert len(failures._addresses) == len(failures._names) == REMEMBERED
    assert failures.wait("address 0", "name 0") == 0


@pytest.fixture
def users(tmp_path) -> Users:
    made = Users(tmp_path)
    made.put("boss", User("full", passwords.hashed("right")))
    return made


def test_a_right_password_is_right_again_while_its_address_must_wait(users):
    check = PasswordCheck(users)
    assert check.user("boss", "right", "10.0.0.1").role == "full"
    assert [check.user("boss", "wrong", "10.0.0.1") for _ in range(FREE)] == [None] * FREE
    with pytest.raises(SlowDown) as slowed:
        check.user("boss", "wrong", "10.0.0.1")
    assert 1 <= slowed.value.seconds <= LONGEST_WAIT
    assert check.user("boss", "right", "10.0.0.1") is not None
    users.put("boss", User("full", passwords.hashed("another")))
    with pytest.raises(SlowDown):
        check.user("boss", "right", "10.0.0.1")


def test_all_addresses_of_an_ipv6_network_are_one(users):
    check = PasswordCheck(users)
    assert [check.user("boss", "wrong", f"2001:db8::{n:x}") for n in range(FREE)] == [None] * FREE
    with pytest.raises(SlowDown):
        check.user("boss", "wrong", "2001:db8::ffff:0:0:1")
    assert check.user("boss", "wrong", "2001:db8:0:1::1") is None


def test_few_wait_at_once_and_one_address_does_not_take_all_their_places(users, monkeypatch):
    """While a hash is worked out: the second of an address waits, the third is sent away, another address waits."""
    check = PasswordCheck(users)
    working, go_on = threading.Event(), threading.Event()

    def slowly(password: str, hash: str | None) -> bool:
        working.set()
        return go_on.wait(30) and False

    monkeypatch.setattr(passwords, "is_right", slowly)
    outcomes: list[str] = []

    def ask(address: str) -> None:
        try:
            check.user("boss", "wrong", address)
            outcomes.append("looked at")
        except SlowDown:
            outcomes.append("sent away")
            if outcomes.count("sent away") == 2:
                go_on.set()

    addresses = ["10.0.0.1"] * 3 + [f"10.0.1.{n}" for n in range(WAITING - 1)]
    threads = [threading.Thread(target=ask, args=[address]) for address in addresses]
    threads[0].start()
    assert working.wait(30)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["looked at"] * WAITING + ["sent away"] * 2


def test_strangers_from_everywhere_keep_nobody_out_who_has_signed_in_before(users, monkeypatch):
    """While they have taken all places: neither from where somebody has signed in, nor from the machine itself."""
    users.put("guest", User("read", passwords.hashed("also right")))
    check = PasswordCheck(users)
    assert check.user("boss", "right", "192.0.2.1") is not None
    go_on, really = threading.Event(), passwords.is_right
    at_work = threading.Semaphore(0)

    def slowly(password: str, hash: str | None) -> bool:
        if password.startswith("guess"):
            at_work.release()
            go_on.wait(30)
        return really(password, hash)

    monkeypatch.setattr(passwords, "is_right", slowly)
    guesses = [threading.Thread(target=check.user, args=["boss", "guess", f"10.0.1.{n}"]) for n in range(WAITING)]
    for guess in guesses:
        guess.start()
    assert at_work.acquire(timeout=30)
    until(lambda: check._strangers._waiting.total() == WAITING)
    with pytest.raises(SlowDown, match="at once"):
        check.user("guest", "also right", "10.0.2.1")
    for familiar in ("192.0.2.1", "127.0.0.1", "::1"):
        users.put("guest", User("read", passwords.hashed("also right")))  # another hash: it has to be looked at
        assert check.user("guest", "also right", familiar) is not None
    go_on.set()
    for guess in guesses:
        guess.join(30)
    users.put("guest", User("read", passwords.hashed("also right")))
    assert check.user("guest", "also right", "10.0.2.1") is not None


def test_a_wrong_password_makes_no_address_familiar_and_they_are_bounded(users):
    check = PasswordCheck(users)
    assert check.user("boss", "wrong", "10.0.0.1") is None
    assert not check._signed_in_from
    for number in range(FAMILIAR + 3):
        assert check.user("boss", "right", f"10.1.{number // 256}.{number % 256}") is not None
    assert len(check._signed_in_from) == FAMILIAR
    assert "10.1.0.2" not in check._signed_in_from


def test_unknown_names_take_as_long_as_wrong_passwords(users, monkeypatch):
    """What takes the time is the same: a hash of the same cost is worked out, once."""
    costs = []
    verify = PasswordHasher.verify

    def watched(hasher: PasswordHasher, hash: str, password: str) -> bool:
        costs.append(extract_parameters(hash))
        return verify(hasher, hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", watched)
    check = PasswordCheck(users)
    assert check.user("boss", "wrong", "10.0.0.1") is None
    assert check.user("nobody-of-that-name", "wrong", "10.0.0.2") is None
    assert len(costs) == 2
    assert costs[0] == costs[1]


def test_a_password_that_no_hash_is_made_of_is_just_wrong(users):
    assert not passwords.is_right("\ud800", users.read()["boss"].hash)
    assert not passwords.is_right("right", "no hash at all")
    assert not passwords.is_right("right", None)
    assert passwords.is_right("right", users.read()["boss"].hash)

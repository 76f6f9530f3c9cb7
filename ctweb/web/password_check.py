"""Whether a name and a password belong together, asked by everybody: guessing is slow, and costs the server little.

An address that has failed some times must wait, longer each time, and is refused meanwhile without a look at its
password; where one name is being guessed at from everywhere, the first failure is enough. An address that has not
failed never waits for another's failures, so that nobody can lock somebody else out. Hashes are worked out one at a
time, for a few waiting requests, and after a wrong password the processor rests for as long as it worked. Addresses
from which somebody has signed in, and this machine's own, have a lane for themselves: however many strangers guess
from however many addresses, they wait for one another only.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ctweb import passwords
from ctweb.users import User, Users

log = logging.getLogger(__name__)

FREE = 5  # failures of an address before it waits
LONGEST_WAIT = 60.0  # seconds
BESIEGED = 20  # failures for a name, from wherever, before
BESIEGED_WAIT = 10.0  # seconds, for any address that fails on it
FORGOTTEN = 900.0  # seconds after the last failure
REMEMBERED = 4096  # addresses, and names
KNOWN = 256  # right passwords
WAITING = 8  # requests at once that have their password looked at, or wait for it, in each lane
OF_ONE_ADDRESS = 2  # of these
FAMILIAR = 1024  # addresses from which somebody has signed in; the one where that was longest ago goes first
OWN = ("127.0.0.1", "::/64")  # this machine, from which ssh's tunnels come too


class SlowDown(Exception):
    """The password was not looked at. The message says why; `seconds`: when to come back."""

    def __init__(self, why: str, seconds: float) -> None:
        super().__init__(why)
        self.seconds = max(1, round(seconds + 0.5))


@dataclass
class _Failures:
    count: int = 0
    last: float = 0.0


class Failures:
    """Who has failed lately, and how long he waits. Memory is bounded: the oldest failures are forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._addresses: OrderedDict[str, _Failures] = OrderedDict()
        self._names: OrderedDict[str, _Failures] = OrderedDict()

    def add(self, address: str, name: str) -> None:
        with self._lock:
            for failures, key in ((self._addresses, address), (self._names, name)):
                one = failures.setdefault(key, _Failures())
                if self._clock() - one.last > FORGOTTEN:
                    one.count = 0
                one.count += 1
                one.last = self._clock()
                failures.move_to_end(key)
                if len(failures) > REMEMBERED:
                    failures.popitem(last=False)

    def wait(self, address: str, name: str) -> float:
        """Seconds until the address may try this name; 0: now."""
        with self._lock:
            own, of_name = self._addresses.get(address), self._names.get(name)
            if own is None or self._clock() - own.last > FORGOTTEN:
                return 0.0
            seconds = 0.0 if own.count < FREE else min(LONGEST_WAIT, 2.0 ** (own.count - FREE))
            if of_name is not None and of_name.count >= BESIEGED:
                seconds = max(seconds, BESIEGED_WAIT)
            return max(0.0, own.last + seconds - self._clock())


class _Lane:
    """Hashes are worked out one at a time, and few wait for it. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()
        self._one_at_a_time = threading.Lock()

    @contextmanager
    def turn(self, address: str) -> Iterator[None]:
        """A turn at working out a hash, waited for. Raises SlowDown if too many wait, or too many from there."""
        with self._lock:
            if self._waiting.total() >= WAITING or self._waiting[address] >= OF_ONE_ADDRESS:
                raise SlowDown("too many sign-ins at once", 0)
            self._waiting[address] += 1
        try:
            with self._one_at_a_time:
                yield
        finally:
            with self._lock:
                self._waiting[address] -= 1
                self._waiting += Counter()  # drops those at 0


class PasswordCheck:
    """Asks `users`. Any thread may ask."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._failures = Failures()
        self._strangers, self._familiar = _Lane(), _Lane()
        self._lock = threading.Lock()  # of what follows
        self._signed_in_from: OrderedDict[str, None] = OrderedDict()  # addresses, the longest ago first
        # Hashes by the proof of a password that was right: Basic sends it with every request.
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._secret = secrets.token_bytes(32)
        self._counters = {"sign-ins-failed": 0, "sign-ins-slowed": 0}

    def user(self, name: str, password: str, address: str) -> User | None:
        """The user, or None if there is none of that name or the password is wrong. `address`: who asks.

        Raises SlowDown.
        """
        name, address = name[:128], _network(address)
        proof = self._proof(name, password)
        user = self._users.get(name)
        with self._lock:
            if user is not None and self._known.get(proof) == user.hash:
                self._known.move_to_end(proof)
                self._make_familiar(address)
                return user
            lane = self._familiar if address in OWN or address in self._signed_in_from else self._strangers
        try:
            self._let_in(address, name)
            with lane.turn(address):
                self._let_in(address, name)  # others from there may have failed meanwhile
                return self._looked_at(name, password, address, user, proof)
        except SlowDown:
            self._count("sign-ins-slowed")
            raise

    def _looked_at(self, name: str, password: str, address: str, user: User | None, proof: bytes) -> User | None:
        began = time.monotonic()
        if passwords.is_right(password, user.hash if user is not None else None) and user is not None:
            with self._lock:
                self._known[proof] = user.hash
                if len(self._known) > KNOWN:
                    self._known.popitem(last=False)
                self._make_familiar(address)
            return user
        self._failures.add(address, name)
        self._count("sign-ins-failed")
        log.warning("a wrong name or password for %r from %s", name, address)
        time.sleep(time.monotonic() - began)
        return None

    def _make_familiar(self, address: str) -> None:
        """Somebody has signed in from there. Called under the lock."""
        self._signed_in_from[address] = None
        self._signed_in_from.move_to_end(address)
        if len(self._signed_in_from) > FAMILIAR:
            self._signed_in_from.popitem(last=False)

    @property
    def counters(self) -> dict[str, int]:
        """Passwords that were wrong, and those that were not looked at."""
        with self._lock:
            return dict(self._counters)

    def _count(self, counter: str) -> None:
        with self._lock:
            self._counters[counter] += 1

    def _let_in(self, address: str, name: str) -> None:
        wait = self._failures.wait(address, name)
        if wait > 0:
            raise SlowDown("too many failed sign-ins", wait)

    def _proof(self, name: str, password: str) -> bytes:
        """What stands for a name and a password in memory, and leads back to neither without this process's secret."""
        return hmac.digest(self._secret, f"{name}\0{password}".encode("utf-8", "surrogatepass"), "sha256")


def _network(address: str) -> str:
    """The address, or the /64 of an IPv6 address: whoever has one has all of it."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip), 64), strict=False))
    return str(ip)

"""An office at work, for pictures: real connections of many kinds between two hosts with many addresses.

`python -m browser.office internet` answers, `python -m browser.office desks` asks; each runs in its own namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys

from lab.network import Namespace

LAN = "192.168.88."
DESKS = [f"{LAN}{host}" for host in (10, 11, 12, 14, 17, 20, 21, 23, 31, 42, 57, 101)]
DESKS6 = [f"2001:db8:88::{host}" for host in ("10", "17", "2a", "a6b1:c3ff:fe5e:7f42")]
SITES = ["198.51.100.7", "198.51.100.32", "203.0.113.5", "203.0.113.80", "203.0.113.129", "192.0.2.44", "192.0.2.99"]
SITES6 = ["2001:db8:1::443", "2001:db8:5:a::9"]
RESOLVER = "192.0.2.53"
SILENT = "192.0.2.250"
PORTS = (22, 80, 443, 993, 5432, 8080)
TICK = 0.1

# Bits a second each way, port, connections. What is slow is many, what is fast is few, as everywhere.
KINDS = [
    (900_000, 38_000_000, 443, 1),
    (140_000, 6_200_000, 443, 2),
    (5_400_000, 110_000, 22, 1),
    (70_000, 2_400_000, 8080, 2),
    (22_000, 410_000, 443, 6),
    (9_000, 64_000, 993, 5),
    (31_000, 130_000, 5432, 4),
    (2_100, 5_800, 443, 12),
    (0, 0, 443, 18),
    (0, 0, 22, 4),
]
CALLS = sum(number for *_, number in KINDS)


def settle(client: Namespace, router: Namespace, server: Namespace) -> None:
    """Give the machines the office's addresses."""
    router.ip(f"addr add {LAN}1/24 dev lan", "addr add 2001:db8:88::1/64 dev lan nodad")
    client.ip(*(f"addr add {desk}/24 dev eth0" for desk in DESKS))
    client.ip(*(f"addr add {desk}/64 dev eth0 nodad" for desk in DESKS6))
    server.ip(*(f"addr add {site}/32 dev lo" for site in (*SITES, RESOLVER)))
    server.ip(*(f"addr add {site}/128 dev lo" for site in SITES6))
    router.ip(*(f"route add {net} via 10.9.2.2" for net in ("198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24")))
    router.ip(*(f"route add 2001:db8:{net}::/48 via fd09:2::2" for net in (1, 5)))
    server.ip(f"route add blackhole {SILENT}/32")


async def flow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bits: int) -> None:
    """Send at about `bits` a second and read what comes, until the other end goes."""

    async def drain() -> None:
        while await reader.read(1 << 20):
            pass

    reading = asyncio.create_task(drain())
    try:
        while not reading.done():
            if bits:
                writer.write(bytes(int(bits * TICK / 8 * random.uniform(0.7, 1.3)) or 1))
                await writer.drain()
            await asyncio.sleep(TICK if bits >= 10_000 else 2)
    finally:
        reading.cancel()
        writer.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The first line says how fast to answer; a negative number is how long to stay."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        bits = int(await reader.readuntil())
        if bits >= 0:
            await flow(reader, writer, bits)
        writer.write(b"bye\n")
        writer.close()


async def internet() -> None:
    loop = asyncio.get_running_loop()
    servers = [await asyncio.start_server(answer, None, port, backlog=256) for port in PORTS]
    resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    resolver.bind((RESOLVER, 53))
    resolver.setblocking(False)
    while servers:
        question, asker = await loop.sock_recvfrom(resolver, 4096)
        await loop.sock_sendto(resolver, question + bytes(random.randint(40, 300)), asker)


def pair() -> tuple[str, str]:
    """A desk and a site that can talk."""
    if random.random() < 0.2:
        return random.choice(DESKS6), random.choice(SITES6)
    return random.choice(DESKS), random.choice(SITES)


async def call(bits: int, back: int, port: int) -> None:
    """A connection that stays."""
    desk, site = pair()
    reader, writer = await asyncio.open_connection(site, port, local_addr=(desk, 0))
    writer.write(b"%d\n" % back)
    await flow(reader, writer, bits)


async def browse() -> None:
    """Short connections, one after another: some are always closing."""
    while True:
        desk, site = pair()
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(site, 443, local_addr=(desk, 0))
            writer.write(b"-1\n")
            await reader.read()
            writer.close()
        await asyncio.sleep(random.uniform(0.5, 3))


async def resolve() -> None:
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.bind((random.choice(DESKS), 0))
            asking.sendto(bytes(random.randint(28, 60)), (RESOLVER, 53))
            await asyncio.sleep(random.uniform(0.3, 2))


async def hope() -> None:
    """Somebody who does not answer."""
    while True:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            opening = asyncio.open_connection(SILENT, 443, local_addr=(random.choice(DESKS), 0))
            await asyncio.wait_for(opening, 4)


async def desks() -> None:
    pings = [
        await asyncio.create_subprocess_exec("ping", "-q", "-i", "1", site, stdout=asyncio.subprocess.DEVNULL)
        for site in (SITES[0], SITES6[0])
    ]
    calls = [call(bits, back, port) for bits, back, port, number in KINDS for _ in range(number)]
    await asyncio.gather(*calls, browse(), browse(), browse(), resolve(), resolve(), hope(), *(p.wait() for p in pings))


if __name__ == "__main__":
    random.seed(7)
    asyncio.run({"internet": internet, "desks": desks}[sys.argv[1]]())

"""Websocket clients of bad manners, all at once: `python -m reliability.crowd PORT SECONDS NUMBER STATE_DIR`.

A quarter each: who never reads what he asked for, who sends garbage, who comes and goes without end, and who asks for
heavy views as fast as he can. Prints how often each kind was let in.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from running import signed_in

HEAVY = (
    {"group": "service", "sort": "-bytes"},
    {"group": "src-address", "sort": "-connections"},
    {"filter": "udp or not 127 and bytes>1", "sort": "-dst-address", "limit": 500, "offset": 5000},
    {"filter": "src:127.0.0.0/8 -dport:1-100", "sort": "timeout", "limit": 500},
)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def masked(payload: bytes, first: int = 0x81) -> bytes:
    """A frame as a client sends it; text, unless `first` says otherwise."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([first]) + length + b"\0\0\0\0" + payload


def view(**changes: object) -> bytes:
    return masked(json.dumps({"type": "view", **changes}).encode())


async def enter(port: int, state_dir: Path) -> Streams | None:
    """A websocket; None: not let in."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in signed_in(state_dir).items())
    writer.write(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " in answer.split(b"\r\n")[0]:
        return reader, writer
    writer.close()
    return None


async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: random.Random) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    writer.transport.pause_reading()
    for _ in range(20):
        writer.write(view(limit=500, sort="-bytes"))
        await asyncio.sleep(0.5)
        if writer.is_closing():
            return


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dice: random.Random) -> None:
    for _ in range(5):
        kind = dice.randrange(6)
        if kind == 0:
            writer.write(dice.randbytes(dice.randrange(1, 2000)))
        elif kind == 1:
            writer.write(masked(dice.randbytes(100), dice.choice((0x81, 0x82, 0x80, 0x8A, 0x88, 0xF1))))
        elif kind == 2:
            writer.write(masked(b'{"type":"view","filter":"' + b"(" * 5000 + b'"}'))
        elif kind == 3:
            writer.write(b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0" + bytes(1000))
        elif kind == 4:
            writer.write(b"".join(view(filter=str(n)) for n in range(200)))
        else:
            writer.write(b"\x01\x85\0\0\0\0hello")
        await asyncio.sleep(0.05)
        if writer.is_closing():
            return


async def come_and_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dice: random.Random) -> None:
    if dice.random() < 0.5:
        writer.write(view())
    if dice.random() < 0.3:
        writer.transport.abort()


async def heavy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dice: random.Random) -> None:
    for _ in range(100):
        writer.write(view(**dice.choice(HEAVY)))
        await asyncio.sleep(0.02)
        if not await reader.read(1 << 20):
            return


KINDS: dict[str, Callable[[asyncio.StreamReader, asyncio.StreamWriter, random.Random], Awaitable[None]]] = {
    "stall": stall, "garbage": garbage, "come and go": come_and_go, "heavy": heavy,
}  # fmt: skip


async def client(number: int, port: int, end: float, entered: Counter[str], state_dir: Path) -> None:
    dice = random.Random(number)
    name = list(KINDS)[number % len(KINDS)]
    while time.monotonic() < end:
        writer = None
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + end - time.monotonic()):
                streams = await enter(port, state_dir)
                if streams is None:
                    await asyncio.sleep(0.1)
                    continue
                entered[name] += 1
                writer = streams[1]
                await KINDS[name](*streams, dice)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await asyncio.sleep(0.05)
        finally:
            if writer is not None:
                writer.transport.abort()


async def crowd(port: int, seconds: float, number: int, state_dir: Path) -> Counter[str]:
    entered: Counter[str] = Counter()
    end = time.monotonic() + seconds
    await asyncio.gather(*(client(n, port, end, entered, state_dir) for n in range(number)))
    return entered


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        port, seconds, number, state_dir = sys.argv[1:]
        print(json.dumps(asyncio.run(crowd(int(port), float(seconds), int(number), Path(state_dir)))))

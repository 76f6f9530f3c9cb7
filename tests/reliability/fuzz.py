"""Millions of frames through the programs, the reference model beside them: `make fuzz`.

In stories of a few thousand frames: all go through a program, each must pass as it was, and then the table and every
counter must be what the model says. A story that ends otherwise is cut down to the frames that matter, and kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from ctweb.datapath.build import BuildOptions, compile_datapath
from ctweb.settings import Tracking
from reliability.frames import SHAPES, Step, steps
from reliability.model import SECOND, Model
from reliability.model_packet import UDP, UDPLITE, Key
from reliability.programs import Altered, Facts, Kernel

CORPUS = Path(__file__).with_name("corpus") / "frames.jsonl"
STORY = 2000  # frames
START = 10**6 * SECOND
HOUR = 3_600_000
REPLAYED, LIVE = ("tc_ingress",), ("xdp_ingress", "tc_ingress", "tc_egress")
# On the kernel's own clock nothing may run out while a story is told.
PATIENT = Tracking(**{
    name: 1000 * HOUR for name in Tracking.__struct_fields__ if name.endswith("timeout")
})  # fmt: skip


@dataclass
class Program:
    """One program of one build. `clock`: its time is that of the frames."""

    kernel: Kernel
    name: str
    tracking: Tracking
    clock: bool

    def tell(self, story: Sequence[Step], paths: set[object] | None = None) -> tuple[list[str], list[int]]:
        """How table and counters differ from the model's after these frames; the frames that took a new path."""
        self.kernel.datapath.apply(self.tracking)
        self.kernel.clear()
        run = self.kernel.runner(self.name).run
        xdp = self.name.startswith("xdp")
        model = Model(self.tracking)
        now, new = START, []
        for number, step in enumerate(story):
            now += step.wait
            try:
                if xdp:
                    taken = run(step.frame)
                    segments = 0
                else:
                    taken = run(step.frame, now, step.gso_size, step.segments)
                    segments = step.segments or (step.gso_size and _segments(step))
            except Altered as error:
                return [str(error)], []
            if taken:
                model.see(step.frame, now, segments)
                if paths is not None and model.path not in paths:
                    paths.add(model.path)
                    new.append(number)
        return self.compare(model), new

    def compare(self, model: Model) -> list[str]:
        wrong = []
        kernel, told = self.kernel.entries(), {}
        for key, connection in model.connections.items():
            if not connection.over:
                told[packed(key)] = connection.facts
        for key in kernel.keys() | told.keys():
            ours, theirs = told.get(key), kernel.get(key)
            if ours != theirs and self._blurred(key, ours) != self._blurred(key, theirs):
                wrong.append(f"{key.hex()}\n  model   {ours}\n  program {theirs}")
        counted, expected = self.kernel.counters(), {name: n for name, n in model.counters.items() if n}
        if counted != expected:
            names = [name for name in counted.keys() | expected if counted.get(name) != expected.get(name)]
            wrong += [f"{name}: model {expected.get(name, 0)}, program {counted.get(name, 0)}" for name in names]
        return wrong

    def _blurred(self, key: bytes, facts: Facts | None) -> Facts | None:
        """Without what depends on the kernel's own clock."""
        if facts is None or self.clock:
            return facts
        swapped, packets, sizes, seen, assured, state, _ = facts
        return swapped, packets, sizes, seen, assured and key[36] not in (UDP, UDPLITE), state


def _segments(step: Step) -> int:
    """How many packets a frame of plain TCP or UDP becomes, if the kernel does not say."""
    at = 34 if step.frame[14] >> 4 == 4 else 54
    header = 8 if step.frame[at - 11 if at == 34 else 20] == UDP else (step.frame[at + 12] >> 4) * 4
    return -((at + header - len(step.frame)) // step.gso_size)


def packed(key: Key) -> bytes:
    """A model's key as the kernel's struct tuple."""
    protocol, lo, lo_port, hi, hi_port, *variant = key
    family = 4 if len(lo) == 4 else 6  # type: ignore[arg-type]
    number = {"key": 1, "call": 2}[variant[0]] if variant else 0  # type: ignore[index]
    return struct.pack("!16s16sHHBBBB", lo, hi, lo_port, hi_port, protocol, family, number, 0)


def shrink(program: Program, story: Sequence[Step]) -> list[Step]:
    """A few frames that still go wrong. What time passed before a frame that is left out passes before the next."""

    def wrong(part: Sequence[Step]) -> bool:
        return bool(program.tell(part)[0])

    low, high = 0, len(story)
    while low + 1 < high:  # the shortest beginning
        middle = (low + high) // 2
        low, high = (low, middle) if wrong(story[:middle]) else (middle, high)
    left = list(story[:high])
    size = max(1, len(left) // 2)
    while True:
        at = 0
        while at < len(left):
            waited = sum(step.wait for step in left[at : at + size])
            rest = left[at + size :]
            if rest:
                first = rest[0]
                rest = [Step(first.frame, first.wait + waited, first.gso_size, first.segments), *rest[1:]]
            if wrong(left[:at] + rest):
                left = left[:at] + rest
            else:
                at += size
        if size == 1:
            return left
        size //= 2


def kept(program: Program, story: Sequence[Step], why: object) -> str:
    """A line of the corpus."""
    return json.dumps({
        "program": program.name, "clock": program.clock, "why": str(why),
        "steps": [[step.frame.hex(), step.wait, step.gso_size, step.segments] for step in story],
    })  # fmt: skip


def read_corpus(path: Path = CORPUS) -> list[tuple[str, bool, list[Step]]]:
    """Program, clock and frames of each case."""
    found = []
    for line in path.read_text().splitlines():
        case = json.loads(line)
        found.append((case["program"], case["clock"], [Step(bytes.fromhex(f), *rest) for f, *rest in case["steps"]]))
    return found


def programs(stack: ExitStack, *, whole: bool = True) -> list[Program]:
    """Both builds, loaded until the stack is closed: tc on the frames' own clock, and all hooks as they run.

    whole: with a table made whole.
    """
    replayed = stack.enter_context(closing(compile_datapath(BuildOptions(1 << 14, replay=True, preallocate=whole))))
    live = stack.enter_context(closing(compile_datapath(BuildOptions(1 << 14, preallocate=whole))))
    first, second = Kernel(replayed), Kernel(live)
    made = [Program(first, name, Tracking(), clock=True) for name in REPLAYED]
    return made + [Program(second, name, PATIENT, clock=False) for name in LIVE]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=2_000_000, help="of each shape")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--growing", action="store_true", help="with a table that grows, not one made whole")
    parser.add_argument("--keep", type=Path, help="add a case for each way through the model that is new")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one CPU's LRU lists, whatever else runs
    failed = 0
    with ExitStack() as stack:
        tested = programs(stack, whole=not options.growing)
        paths: set[object] = set()
        for shape in options.shape or SHAPES:
            dice = random.Random(f"{options.seed} {shape}")
            began, done = time.monotonic(), 0
            while done < options.packets:
                # Half of the stories with a clock, the rest by each hook in turn.
                number = done // STORY
                program = tested[0] if number % 2 else tested[1 + number // 2 % len(LIVE)]
                story = steps(dice, shape, STORY, clock=program.clock)
                wrong, new = program.tell(story, paths)
                done += len(story)
                if wrong:
                    failed += 1
                    part = shrink(program, story)
                    print(f"{shape} by {program.name}:", *program.tell(part)[0], sep="\n")
                    print(kept(program, part, "differs"), flush=True)
                    if failed > 20:
                        return 1
                elif options.keep and new:
                    with options.keep.open("a") as file:
                        for place in new:
                            file.write(kept(program, case_of(story, place), shape) + "\n")
            speed = done / (time.monotonic() - began)
            print(
                f"{shape}: {done:,} frames, {speed:,.0f}/s, {failed} stories differ so far, {len(paths)} paths",
                flush=True,
            )
    return failed > 0


def case_of(story: Sequence[Step], place: int) -> list[Step]:
    """The frames before this one that have an address in common with it, the last of them, and it."""
    frame = story[place].frame
    width = 8 if len(frame) > 34 and frame[14] >> 4 == 4 else 32
    at = 26 if width == 8 else 22
    mine = {frame[at : at + width // 2], frame[at + width // 2 : at + width]}
    before = [step for step in story[max(0, place - 300) : place]
              if {step.frame[at : at + width // 2], step.frame[at + width // 2 : at + width]} == mine]  # fmt: skip
    return [*before[-8:], story[place]]


if __name__ == "__main__":
    sys.exit(main())

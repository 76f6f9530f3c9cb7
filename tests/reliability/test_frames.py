"""Frames of every kind through the programs, and the reference model beside them. `make fuzz` does it for hours."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings

from ctweb.settings import Tracking
from reliability.frames import SHAPES, steps
from reliability.fuzz import LIVE, REPLAYED, Program, programs, read_corpus, shrink
from reliability.strategies import stories

FRAMES = 3000
NAMES = [f"{name}-on-the-clock-of-the-frames" for name in REPLAYED] + [f"{name}-live" for name in LIVE]


@pytest.fixture(scope="module")
def all_programs() -> Iterator[list[Program]]:
    with ExitStack() as stack:
        yield programs(stack)


@pytest.fixture(params=range(len(NAMES)), ids=NAMES)
def program(request: pytest.FixtureRequest, all_programs: list[Program]) -> Program:
    return all_programs[request.param]


@pytest.mark.parametrize("shape", SHAPES)
def test_mutated_frames(program, shape):
    story = steps(random.Random(f"{shape} {program.name}"), shape, FRAMES, clock=program.clock)
    wrong, _ = program.tell(story)
    assert not wrong, [step.frame.hex() for step in shrink(program, story)]


@given(story=stories)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_frames_that_hypothesis_makes(program, story):
    assert program.tell(story)[0] == []


def test_every_case_of_the_corpus(all_programs):
    cases = read_corpus()
    assert len(cases) > 300
    for name, clock, story in cases:
        (program,) = (one for one in all_programs if (one.name, one.clock) == (name, clock))
        assert program.tell(story)[0] == []


def test_a_program_that_decides_otherwise_is_found_and_the_story_cut_down_to_why(all_programs):
    """The model is told of other settings than the program has."""
    asked = all_programs[0]
    strange = Program(asked.kernel, asked.name, Tracking(loose_tcp_tracking=False), clock=True)
    apply = strange.kernel.datapath.apply
    strange.kernel.datapath.apply = lambda _: apply(Tracking())
    try:
        story = steps(random.Random(5), "tcp", 500, clock=True)
        assert strange.tell(story)[0]
        left = shrink(strange, story)
    finally:
        del strange.kernel.datapath.apply
    assert len(left) == 1
    assert strange.tell(left)[0] == []

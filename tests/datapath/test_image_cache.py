"""Compiled datapaths are kept, and only trusted where nobody else could have put them."""

from __future__ import annotations

import os

import pytest

from ctweb.datapath.image import Code, Image
from ctweb.datapath.image_cache import KEPT, image_for


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Compiler:
    """Makes another image each time."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> Image:
        self.runs += 1
        return Image([], [Code("run", "tc", bytes([self.runs]), {})], {"": {"A": 1}}, "GPL")


def test_what_was_compiled_once_is_not_compiled_again(place):
    compiler = Compiler()
    assert image_for("source", ["-O2"], compiler) == image_for("source", ["-O2"], compiler)
    assert compiler.runs == 1
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("text", "flags"), [("other source", ["-O2"]), ("source", ["-Os"]), ("source-O2", [])])
def test_another_source_or_flag_is_compiled(text, flags):
    compiler = Compiler()
    image_for("source", ["-O2"], compiler)
    image_for(text, flags, compiler)
    assert compiler.runs == 2


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"\x80", b"\xff" * 1000])
def test_a_file_that_is_no_image_is_made_anew(place, content):
    compiler = Compiler()
    image_for("source", [], compiler)
    (file,) = place.glob("*.image")
    file.write_bytes(content)
    assert image_for("source", [], compiler) == image_for("source", [], compiler)
    assert compiler.runs == 2


def others_may_write(place):
    place.chmod(0o777)


def another_owner(place):
    os.chown(place, 65534, 65534)


@pytest.mark.parametrize("spoil", [others_may_write, another_owner])
def test_a_directory_that_others_can_write_to_is_neither_read_nor_written(place, spoil):
    compiler = Compiler()
    kept = image_for("source", [], compiler)
    spoil(place)
    assert image_for("source", [], compiler) != kept
    assert image_for("another", [], compiler) != kept
    assert len(list(place.glob("*.image"))) == 1


def test_without_a_directory_it_compiles_each_time(place):
    place.write_text("a file is in the way")
    compiler = Compiler()
    image_for("source", [], compiler)
    image_for("source", [], compiler)
    assert compiler.runs == 2


def test_only_some_are_kept(place):
    compiler = Compiler()
    for number in range(KEPT + 3):
        image_for(f"source {number}", [], compiler)
    assert len(list(place.glob("*.image"))) == KEPT
    image_for(f"source {KEPT + 2}", [], compiler)
    assert compiler.runs == KEPT + 3

"""What the README promises is what the code has, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import click
import msgspec

from ctweb.cli import main
from ctweb.config import Config
from ctweb.rules import Rule
from ctweb.settings import SETTINGS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    """The text below a heading, up to the next of its rank."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table_rows(text: str) -> list[list[str]]:
    """The cells of every table row of `text`, separators left out."""
    rows = [re.split(r" *(?<!\\)\| *", line.strip("| \n")) for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if row[0].startswith("`")]


def commands(group: click.Group, path: str = "ctweb") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_every_command():
    told = {re.split(r" [\[A-Z]", row[0].strip("`"))[0] for row in table_rows(section("Commands"))}
    assert {name for name in told if name.startswith("ctweb")} == {name for name, _ in commands(main)}


def test_every_option_and_the_commands_that_have_it():
    told = {}
    for row in table_rows(section("Commands")):
        if row[0].startswith("`--"):
            told[re.match(r"`(--[\w-]+)", row[0])[1]] = row[1]
    there: dict[str, list[str]] = {}
    for name, command in commands(main):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                there.setdefault(parameter.opts[-1], []).append(name.removeprefix("ctweb "))
    everybody = [name.removeprefix("ctweb ") for name, _ in commands(main)]
    assert told == {
        option: "all" if names == everybody else ", ".join(names) for option, names in there.items()
    }


def test_every_configuration_key():
    told = [row[0].strip("`") for row in table_rows(section("Configuration")) if row[0].strip("`") not in SETTINGS]
    keys = [field.encode_name for field in msgspec.structs.fields(Config)]
    assert [*told, "tracking"] == keys
    assert "`[tracking]`" in section("Configuration")


def test_every_setting_with_its_default_and_meaning():
    told = [row for row in table_rows(section("Configuration")) if row[0].strip("`") in SETTINGS]
    assert told == [[f"`{s.name}`", f"`{s.default}`", s.doc] for s in SETTINGS.values()]


def test_every_key_of_a_rule():
    told = [row for row in table_rows(section("Rules")) if row[0].startswith("`")]
    keys = get_type_hints(Rule, include_extras=True)
    assert told == [
        [f"`{field.encode_name}`", get_args(keys[field.name])[1].description]
        for field in msgspec.structs.fields(Rule)
    ]


def test_every_place_in_the_house():
    tree = section("The house").split("```")[1]
    told = set()
    folder = Path()
    for line in tree.strip().splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        folder = folder if indent else Path(name)
        path = folder / name if indent else Path(name)
        assert (ROOT / path).exists(), path
        told.add(str(path))
    packages = {f"ctweb/{path.parent.name}" for path in ROOT.glob("ctweb/*/__init__.py")}
    assert packages <= told


def test_links_lead_somewhere():
    for document in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document}: {target}"

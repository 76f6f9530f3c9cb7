"""What all commands share: how they fail, and where they find configuration and state."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from ctweb import config as configuration
from ctweb.config import Config, ConfigError


class Failure(click.ClickException):
    """What went wrong, in one line on stderr; exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"ctweb: {self.message}", file=file, err=file is None)


@contextmanager
def failing_in_one_line(*errors: type[Exception]) -> Iterator[None]:
    """These errors end the command, with what they say."""
    try:
        yield
    except errors as error:
        raise Failure(str(error)) from None


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command --config and --state-dir, and what comes of them as its first argument, a Config.

    The context's `obj` reads that again.
    """

    @click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"The configuration file.  [default: {configuration.DEFAULT}]",
    )
    @click.option(
        "--state-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help=f"Where changed settings and the running instance are found.  [default: {Config().state_dir}]",
    )
    @functools.wraps(command)
    def with_config(config_file: Path | None, state_dir: Path | None, **arguments: Any) -> Any:
        file = configuration.ConfigFile(config_file)

        def read() -> Config:
            return overridden(file.load(), state_dir=state_dir and state_dir.absolute())

        click.get_current_context().obj = read
        with failing_in_one_line(ConfigError):
            config = read()
        return command(config, **arguments)

    return with_config


def overridden(config: Config, **options: Any) -> Config:
    """`config` with what was given on the command line."""
    return msgspec.structs.replace(config, **{name: value for name, value in options.items() if value})

"""How `ddq-train` and `ddq-eval` talk: data on stdout, messages on stderr, one line per error, an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ddq_port import requirements
from legacy_adapters.ground.console import OneLineErrors, clear

NOT_SO, BUG = 1, 70

#: Options that every command has.
OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="Print the result and errors only."),
)


VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Print mmengine's log to stderr, too.")
LAUNCHER = click.option(
    "--launcher",
    type=click.Choice(["none", "pytorch", "slurm"]),
    default="none",
    show_default=True,
    help="What started the processes: pytorch is torchrun, slurm is srun.",
)
CFG_OPTIONS = click.option(
    "--cfg-options",
    metavar="KEY=VALUE ...",
    multiple=True,
    help="Settings of the config to replace, as in train_cfg.max_epochs=1.",
)


class WritablePath(click.Path):
    """A folder, or a file, to be written; refused at once where it cannot be, not after hours of work."""

    def __init__(self, is_file: bool = False) -> None:
        super().__init__(path_type=Path, file_okay=is_file, dir_okay=not is_file)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        place = Path(os.path.realpath(path))
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir() and not (self.file_okay and place == Path(os.path.realpath(path))):
            self.fail(f"{path} cannot be made, because {place} is a file; choose another place.", param, ctx)
        if not os.access(place, os.W_OK):
            self.fail(f"{path} cannot be written: no right to write to {place}; choose another place.", param, ctx)
        return path


class _OneLineErrors(OneLineErrors):
    def explained(self, error: Exception) -> str | None:
        """Say what is not installed; an error of the system is one of the training, and a bug here."""
        return requirements.told(error) if isinstance(error, ImportError) else None


class PairsCommand(click.Command):
    """A command whose `--cfg-options` takes all `KEY=VALUE` words that follow it, as mmdet's tools do."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each word."""
        return super().parse_args(ctx, repeated(args, "--cfg-options"))


class Command(_OneLineErrors, PairsCommand):
    """A command on its own."""


class Group(_OneLineErrors, click.Group):
    """A group of commands, one of which is meant where none is named.

    Args:
        default: its name.
    """

    command_class = PairsCommand

    def __init__(self, *args: Any, default: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default's name first, unless the first word is another command or an option of the group."""
        own = {name for option in self.get_params(ctx) for name in option.opts}
        if args and args[0] not in own and args[0] not in self.commands:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


def repeated(args: list[str], option: str) -> list[str]:
    """Put `option` before each word that belongs to it: the first one, and those after it with a `=` in them."""
    found, inside = [], False
    for number, word in enumerate(args):
        if word == "--":
            return found + args[number:]
        follows = inside and args[number - 1] != option and not word.startswith("-") and "=" in word
        found += [option, word] if follows else [word]
        inside = word == option or inside and (follows or args[number - 1] == option)
    return found


def options(*given: Callable) -> Callable:
    """Add options to a command, in the order they are given."""

    def add(command: Callable) -> Callable:
        for option in reversed(given):
            command = option(command)
        return command

    return add


def run_main(command: click.Command, name: str) -> None:
    """Run a command line; a bug ends with its traceback and an exit code of its own.

    Args:
        command: group or command.
        name: what the user calls it.
    """
    try:
        command(prog_name=name)
    except Exception:
        clear()
        traceback.print_exc()
        sys.exit(BUG)

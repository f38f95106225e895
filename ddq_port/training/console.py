"""How `ddq-train` and `ddq-eval` talk: data on stdout, messages on stderr, one line per error, an exit code."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ddq_port import requirements

DONE, NOT_SO, BAD_INPUT, BUG, INTERRUPTED = 0, 1, 2, 70, 130
_LONGEST_LINE = 2000  # characters
_ERASE = "\r\x1b[K"  # of a terminal's line
_status_shown = False  # whether the last line on stderr is one to be replaced

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


class Failure(click.ClickException):
    """An error that ends the command with its own exit code."""

    def __init__(self, message: str, exit_code: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


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


class OneLineErrors:
    """What a click command or group inherits first, to report every error as one line on stderr."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        """Run; exit with the code that the command returns, or with that of its error."""
        try:
            code = super().main(*args, standalone_mode=False, **kwargs)  # type: ignore[misc]
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = BAD_INPUT
        except click.ClickException as error:
            message(f"error: {one_line(error.format_message())}", color="red")
            code = error.exit_code
        except ImportError as error:
            told = requirements.told(error)
            if told is None:
                raise
            message(f"error: {one_line(told)}", color="red")
            code = BAD_INPUT
        except click.Abort:
            message("error: interrupted", color="red")
            code = INTERRUPTED
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else DONE)


class PairsCommand(click.Command):
    """A command whose `--cfg-options` takes all `KEY=VALUE` words that follow it, as mmdet's tools do."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each word."""
        return super().parse_args(ctx, repeated(args, "--cfg-options"))


class Command(OneLineErrors, PairsCommand):
    """A command on its own."""


class Group(OneLineErrors, click.Group):
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
        _clear()
        traceback.print_exc()
        sys.exit(BUG)


def one_line(text: str) -> str:
    """Return text with every run of white space made one space, printable and of a length to be read."""
    line = " ".join(text.split())
    line = line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE // 2]} [...] {line[-_LONGEST_LINE // 2 :]}"


def message(text: str, color: str | None = None) -> None:
    """Write a line to stderr, coloured on a terminal unless NO_COLOR is set."""
    _clear()
    colored = color is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    click.echo(click.style(text, fg=color) if colored else text, err=True)


def updates_lines() -> bool:
    """Tell whether stderr is a terminal, on which a line can be written again."""
    return sys.stderr.isatty()


def status(text: str) -> None:
    """Write a line to a terminal that the next line will replace."""
    global _status_shown
    columns = shutil.get_terminal_size().columns
    sys.stderr.write(f"{_ERASE}{text[: columns - 1]}")
    sys.stderr.flush()
    _status_shown = True


def _clear() -> None:
    global _status_shown
    if _status_shown:
        sys.stderr.write(_ERASE)
        _status_shown = False

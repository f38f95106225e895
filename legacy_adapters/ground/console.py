"""How every command line ends and writes to stderr: one line per error, an exit code. Needs click."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, Optional

import click

from .words import one_line

DONE, BAD_INPUT, INTERRUPTED = 0, 2, 130
_ERASE = "\r\x1b[K"  # of a terminal's line
_status_shown = False  # whether the last line on stderr is one to be replaced


class Failure(click.ClickException):
    """An error that ends the command with its own exit code."""

    def __init__(self, message: str, exit_code: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OneLineErrors:
    """What a click command or group inherits first, to report every error as one line on stderr."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        """Run; exit with the code that the command returns, or with that of its error."""
        try:
            code = super().main(*args, standalone_mode=False, **kwargs)  # type: ignore[misc]
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = BAD_INPUT
        except click.ClickException as error:
            message("error: " + one_line(error.format_message()), color="red")
            code = error.exit_code
        except click.Abort:
            message("error: interrupted", color="red")
            code = INTERRUPTED
        except (ImportError, OSError) as error:
            line = self.explained(error)
            if line is None:
                raise
            message("error: " + one_line(line), color="red")
            code = BAD_INPUT
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else DONE)

    def explained(self, error: Exception) -> Optional[str]:
        """Say what an error of an import or of the system means to a user; None if it is a bug."""
        return None


def message(text: str, color: Optional[str] = None) -> None:
    """Write a line to stderr, coloured on a terminal unless NO_COLOR is set."""
    clear()
    colored = color is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    click.echo(click.style(text, fg=color) if colored else text, err=True)


def updates_lines() -> bool:
    """Tell whether stderr is a terminal, on which a line can be written again."""
    return sys.stderr.isatty()


def status(text: str) -> None:
    """Write a line to a terminal that the next line will replace."""
    global _status_shown
    columns = shutil.get_terminal_size().columns
    sys.stderr.write(_ERASE + text[: columns - 1])
    sys.stderr.flush()
    _status_shown = True


def clear() -> None:
    """Take away the line that was to be replaced."""
    global _status_shown
    if _status_shown:
        sys.stderr.write(_ERASE)
        _status_shown = False

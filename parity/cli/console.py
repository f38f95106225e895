"""How the subcommands of ``ddq-parity`` talk and end: stdout, stderr, exit codes, signals."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from safetensors import SafetensorError

from converters.cli.console import of_system
from converters.errors import one_line
from legacy_adapters.ground.console import BAD_INPUT, message
from legacy_adapters.launch import SideError

T = TypeVar("T")

SIDE_CRASHED = 4
_FREE_SPACE = "Make room there, or choose another place with --out or, for temporary files, TMPDIR."
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors, in Rust, ends the message of an error of the system


def renamed(value: Any, words: Mapping[str, str]) -> Any:
    """Return text, or the texts in lists and dicts, with other words in place of those that are keys of ``words``."""
    if isinstance(value, str):
        for word, other in words.items():
            value = value.replace(word, other)
        return value
    if isinstance(value, list):
        return [renamed(item, words) for item in value]
    return {key: renamed(item, words) for key, item in value.items()} if isinstance(value, dict) else value


def written(render: Callable[[], None]) -> None:
    """Write to stdout; if the reader went away, the exit code is still the verdict."""
    try:
        render()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def done(work: Callable[[], T], bad_input: tuple[type[Exception], ...]) -> tuple[T | None, int]:
    """Return what ``work`` gives and 0, or None and the exit code of what went wrong, which is told.

    Args:
        work: to be done.
        bad_input: errors that a user's input causes.
    """
    try:
        with _ended_by_signals():
            return work(), 0
    except SideError as error:
        complain(str(error), error.details)
        return None, SIDE_CRASHED
    except SafetensorError as error:
        number = _OS_ERROR.search(str(error))
        if number is None:
            raise
        code = int(number[1])
        complain(f"Cannot read or write a .safetensors file: {os.strerror(code)}.{_advice(code)}")
        return None, BAD_INPUT
    except OSError as error:
        complain(one_line(Exception(of_system(error) + _advice(error.errno))))
        return None, BAD_INPUT
    except bad_input as error:
        complain(one_line(error))
        return None, BAD_INPUT


class OpenConsole(Console):
    """A console that leaves a closed pipe to its caller; rich would exit with 1, which means mismatch here.

    Args:
        words: what text is printed with in place of what, by what stands there.
    """

    def __init__(self, words: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._words = dict(words or {})

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, with other words where there are some."""
        super().print(*(renamed(item, self._words) for item in objects), **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def complain(text: str, details: str = "") -> None:
    """Write an error to stderr in one line, after the last lines of a traceback or log."""
    if details:
        sys.stderr.write("".join(f"  | {line}\n" for line in details.splitlines()))
    message(f"error: {text}", color="red")


def _advice(number: int | None) -> str:
    """Return what to do about an error of the system, to follow its message."""
    return f" {_FREE_SPACE}" if number == errno.ENOSPC else ""


def progress(quiet: bool) -> Callable[[str], None]:
    """Return a function that tells a step on stderr, or nothing if ``quiet``."""
    if quiet:
        return lambda step: None
    return lambda step: message(f"{step} ...")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind like an interruption, so that sides are ended and temporary folders removed."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

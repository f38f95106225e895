"""How far a check of data has come: one line on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time

import click

_TERMINAL, _LOG = 0.2, 10.0  # seconds between two lines


class ImageProgress:
    """Writes to stderr how many images were looked at; nothing where that takes a second or two.

    Args:
        quiet: write nothing.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._began: float | None = None
        self._next = 0.0
        self._shown = False

    def stage(self, text: str) -> None:
        """Tell on a terminal what is done at the moment; the line is written over by the next one."""
        if self._terminal and not self._quiet:
            click.echo(f"\r{text + ' ...' if text else '':<60}" + ("" if text else "\r"), err=True, nl=False)

    def __call__(self, done: int, of: int) -> None:
        """Tell that `done` images of `of` were looked at; the first call, with 0, is the beginning."""
        now = time.monotonic()
        if self._began is None:
            self._began, self._next = now, now + (1.0 if self._terminal else 3.0)
        if self._quiet or (now < self._next and not (self._shown and done == of)):
            return
        left = (now - self._began) / done * (of - done) if done else 0
        text = f"{done} of {of} images, {_duration(left)} left" if done < of else f"{done} of {of} images"
        click.echo(f"\r{text:<60}" if self._terminal else text, err=True, nl=not self._terminal or done == of)
        self._next, self._shown = now + (_TERMINAL if self._terminal else _LOG), True


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

"""Options of `ddq-parity curves`."""

from __future__ import annotations

from pathlib import Path

import click

from .params import NamePair, Positive

EXIT_CODES = """\b
Exit codes:
  0  match: B within the noise of repeated runs, or the same numbers
  1  mismatch
  2  usage or bad input
  3  not comparable: there are no repeated runs, their noise is too large to
     tell, a loss term is in one log only, or logs are incomplete
  70 a bug in ddq-parity itself"""

CURVES = (
    click.option(
        "--band",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="LOG",
        help="Log of a repetition of A's training with another seed; may be repeated.",
    ),
    click.option(
        "--rename", type=NamePair(), multiple=True, help="Name of a loss term in B and its name in A; may be repeated."
    ),
    click.option("--exclude", multiple=True, metavar="TERM", help="Loss term to leave out; may be repeated."),
    click.option(
        "--until",
        type=Positive(),
        help="Compare only up to this epoch, or iteration if the logs have no epochs. [default: all]",
    ),
    click.option(
        "--level",
        type=Positive(0.5),
        default=0.05,
        show_default=True,
        help="Highest chance that a training equal to A's is called a mismatch.",
    ),
    click.option(
        "--resolve",
        type=Positive(),
        default=0.1,
        show_default=True,
        help="A match requires that a loss term or AP that differs by this share would lie outside the noise.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder in which to write curves.png and curves.json.",
    ),
    click.option("--force", is_flag=True, help="Replace the files of an earlier comparison in --out."),
)

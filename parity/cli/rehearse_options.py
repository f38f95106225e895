"""Options of `ddq-parity rehearse`."""

from __future__ import annotations

from pathlib import Path

import click

from .params import Device

EXIT_CODES = """\b
Exit codes:
  0  match: every claim holds
  1  mismatch; the verdict line names the stage
  2  usage or bad input
  3  not comparable
  4  a stage failed
  70 a bug in ddq-parity itself"""

_PATH = click.Path(path_type=Path)
WHAT = (
    click.option("--config", metavar="NAME", help="Which training of the family to rehearse. [default: its first]"),
    click.option("--data", nargs=2, metavar="ANN IMAGES", type=_PATH, help="Train on this data. [default: drawn shapes]"),
    click.option("--val-data", nargs=2, metavar="ANN IMAGES", type=_PATH, help="Validate and test on this data."),
    click.option(
        "--seeds", type=click.IntRange(1), default=3, show_default=True, help="How many times to train the legacy side."
    ),
    click.option("--steps", type=click.IntRange(4), help="Number of steps of a training. [default: the config's]"),
    click.option(
        "--new-set",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change the new side's config alone, to see what a rehearsal says of it; may be repeated.",
    ),
)
HOW = (
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        help="Folder for everything. One of the same rehearsal goes on.",
    ),
    click.option(
        "--jobs", type=click.IntRange(1), default=2, show_default=True, help="How many stages to run side by side."
    ),
    click.option(
        "--threads", type=click.IntRange(1), default=1, show_default=True, help="Number of CPU threads of each stage."
    ),
    click.option("--device", type=Device(), default="cpu", show_default=True, help="Where the legacy side trains."),
    click.option("--dry-run", is_flag=True, help="Print the stages with their commands, and run none."),
)

"""Options of `ddq-parity train-legacy` and `test-legacy`."""

from __future__ import annotations

from pathlib import Path

import click

EXIT_CODES = """\b
Exit codes:
  0  done
  2  usage or bad input
  4  the legacy side crashed
  70 a bug in ddq-parity itself"""

_PATH = click.Path(path_type=Path)
DATA = click.option(
    "--data", nargs=2, metavar="ANN IMAGES", type=_PATH, required=True, help="Train on this data, in COCO format."
)
COMMON = (
    click.option(
        "--val-data", nargs=2, metavar="ANN IMAGES", type=_PATH, required=True, help="Validate or test on this data."
    ),
    click.option(
        "--work-dir", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for everything."
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting of the legacy side's config, as its own scripts take it; may be repeated.",
    ),
    click.option(
        "--trust-checkpoint",
        is_flag=True,
        help="Load a checkpoint that holds pickled objects, which executes them. Those that a training of this command "
        "wrote into --work-dir need no trust.",
    ),
    click.option("--time-limit", type=click.FloatRange(min=0, min_open=True), default=1e7, hidden=True),
)
TRAINING = (
    click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of everything random."),
    click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in --work-dir, if there is one."),
    click.option(
        "--resume-from", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Go on from this checkpoint."
    ),
    click.option(
        "--start-to",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File to write the weights to with which the training begins.",
    ),
    click.option("--stop-at", type=click.IntRange(1), help="Stop after this step, with schedules as for all."),
)

"""Options of `ddq-parity eval`."""

from __future__ import annotations

from pathlib import Path

import click

from .params import Positive, SizeList

EXIT_CODES = """\b
Exit codes:
  0  match
  1  mismatch
  2  usage or bad input
  3  not comparable: neither side detected anything; with exact tolerance also
     if threads, CPU kernels, device or torch differ
  4  a side crashed or ran out of time
  70 a bug in ddq-parity itself"""

DATA_SET = (
    click.option(
        "--ann", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Annotation file in COCO format."
    ),
    click.option(
        "--images", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of its images."
    ),
    click.option("--limit", type=click.IntRange(1), help="How many images to take, from the first on. [default: all]"),
)
WEIGHTS = (
    click.option(
        "--checkpoint",
        "--weights",
        type=click.Path(path_type=Path),
        help="Weights of either layout, .pth or .safetensors. [default: seeded weights]",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        help="Seed of the weights, without --checkpoint.",
    ),
)
DETECTIONS = (
    click.option(
        "--scale",
        type=SizeList(),
        help="Resize images to fit into this size (shorter x longer side) in place of that of the configs.",
    ),
    click.option(
        "--tolerance",
        type=click.Choice(["exact", "fixed"]),
        default="exact",
        show_default=True,
        help="What counts as equal. exact: the same bits; fixed: within --score, --box and --ap.",
    ),
    click.option(
        "--score", type=Positive(), help="Largest difference of scores, with --tolerance fixed. [default: 0.001]"
    ),
    click.option(
        "--box",
        type=Positive(),
        help="Largest difference of coordinates in pixels, with --tolerance fixed. [default: 0.5]",
    ),
    click.option(
        "--ap", type=Positive(), help="Largest difference of an AP (0 to 1), with --tolerance fixed. [default: 0.001]"
    ),
)
KEPT = (
    click.option(
        "--worst",
        type=click.IntRange(1),
        default=4,
        show_default=True,
        help="How many of the images that differ most to draw into --out.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder in which to keep detections, logs, report.json and drawings. [default: nothing is kept]",
    ),
    click.option("--force", is_flag=True, help="Replace an earlier evaluation in --out."),
)

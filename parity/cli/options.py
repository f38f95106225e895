"""Options that several subcommands of ``ddq-parity`` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from legacy_adapters import registry

from .params import CHECKS, CheckList, CountList, Device, Digest, NotNegative, SizeList

EXIT_CODES = """\b
Exit codes:
  0  match
  1  mismatch
  2  usage or bad input
  3  not comparable: nothing compared, something left out without a reason, or
     another seed or other checks; with exact tolerance also other threads,
     CPU capability, device or torch
  4  a side crashed or ran out of time
  70 a bug in ddq-parity itself"""

EVAL_EXIT_CODES = """\b
Exit codes:
  0  match
  1  mismatch
  2  usage or bad input
  3  not comparable: neither side detected anything; with exact tolerance also
     other threads, CPU capability, device or torch
  4  a side crashed or ran out of time
  70 a bug in ddq-parity itself"""
CURVES_EXIT_CODES = """\b
Exit codes:
  0  match: B within the noise of repeated runs, or the same numbers
  1  mismatch
  2  usage or bad input
  3  not comparable: no repeated runs, noise too wide to tell, a loss term on one
     side only, logs of different lengths or with holes
  70 a bug in ddq-parity itself"""

_FAMILIES = f"{', '.join(registry.own())}, another that is installed, or the folder of one"

FAMILY = (
    click.option("--family", metavar="NAME|FOLDER", required=True, help=f"What is ported: {_FAMILIES}."),
    click.option("--variant", metavar="NAME", help="Model of the family. [default: its only one]"),
)
RECORDED_FAMILY = (
    click.option(
        "--family", metavar="NAME|FOLDER", help=f"{_FAMILIES}. [default: that which the traces were recorded for]"
    ),
    click.option(
        "--variant", metavar="NAME", help="Model of it. [default: that which the traces were recorded for]"
    ),
)
GOLDEN_FAMILY = (
    click.option("--family", metavar="NAME|FOLDER", help=f"{_FAMILIES}. [default: that which FILE was recorded for]"),
)
EXCLUSIONS = (
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Records that one side alone has, as [legacy:|new:][KIND:]NAME[#SLOT] with wildcards, need no twin. May be "
        "repeated, each with a --reason.",
    ),
    click.option("--reason", multiple=True, metavar="TEXT", help="Why that is right; stands in the report."),
)
BOUNDS = (
    click.option("--rtol", type=NotNegative(), help="Of fixed. [default: 1.3e-06]"),
    click.option("--atol", type=NotNegative(), help="Of fixed. [default: 1e-05]"),
)
DEFAULT_BOUNDS = dict(rtol=1.3e-6, atol=1e-5)
FIXED_HELP = "exact: the same bits; fixed: |diff| <= atol + rtol * |legacy|"
OUTPUT = (
    click.option("--json", is_flag=True, help="Print the verdict as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="Print the verdict line only."),
)
SIZE_HELP = """Image sizes of the batch in pixels, for inference. Training passes and steps follow from them: each batch
has other sizes, some pixels a side less (at most 23; above 400 pixels 15 and 2 % of the longest side), and every other
one, the first of them included, is transposed. [default: three images]"""
TASK = (
    click.option("--size", type=SizeList(), help=SIZE_HELP),
    click.option("--objects", type=CountList(), help="Objects of each image, one number per image. [default: drawn]"),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        help="Of inputs, weights and random draws.",
    ),
)
CHECK = (
    click.option(
        "--check",
        type=CheckList(("forward", "loss", "grad", "init")),
        default="forward,loss,grad,init",
        show_default=True,
        help="What to compare; init: what building and init_weights make.",
    ),
)
TRAINING = (
    click.option(
        "--check",
        type=CheckList(CHECKS),
        help="What to compare; init: what building and init_weights make; train: some optimizer steps. [default: "
        "forward,loss,grad,init; with --ranks train]",
    ),
    click.option(
        "--steps",
        type=click.IntRange(1, 100_000),
        help="Optimizer steps of check train. [default: 5; with --ranks 4, which is also the fewest there]",
    ),
    click.option(
        "--epoch-length",
        type=click.IntRange(1),
        help="Steps after which an epoch ends, for schedules by epoch. [default: it never ends]",
    ),
    click.option(
        "--clip-order",
        type=click.Choice(["twin", "own"]),
        help="Sum norms of gradients in the legacy side's order of parameters or each side in its own. [default: twin]",
    ),
    click.option(
        "--resume-at",
        type=click.IntRange(1),
        help="Stop the legacy side's training after this step; the new side goes on from its converted checkpoint.",
    ),
    click.option(
        "--ranks",
        type=click.IntRange(1, 2),
        default=1,
        show_default=True,
        help="Train each side with so many processes on the CPU, as on as many GPUs: other images and numbers of "
        "objects for each, some of them without any; losses, averaged gradients and what the optimizer makes of them "
        "are compared on every rank.",
    ),
)
CHECKPOINT = (
    click.option(
        "--checkpoint",
        type=click.Path(path_type=Path),
        help="Weights, .pth or .safetensors, of either layout. [default: seeded, not degenerate]",
    ),
)
LEGACY = (
    click.option(
        "--legacy-repo", type=click.Path(path_type=Path), help="Checkout of the legacy code, where it needs one."
    ),
    click.option(
        "--legacy-python",
        type=click.Path(exists=True, dir_okay=False),
        help="Interpreter of the legacy side. [default: this one, with compat shims]",
    ),
    click.option(
        "--require-known-commit",
        is_flag=True,
        help="Refuse legacy code that is of no known commit or, installed with pip, not as published.",
    ),
)
NEW = (
    click.option(
        "--new-adapter",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Adapter file of the new side, to test your own port. [default: the family's]",
    ),
)
MACHINE = (
    click.option("--device", type=Device(), default="cpu", show_default=True, help="cpu or cuda[:N]."),
    click.option("--threads", type=click.IntRange(1), help="CPU threads. [default: torch's]"),
    click.option(
        "--cpu-capability",
        type=click.Choice(["default", "avx2", "avx512"]),
        help="CPU kernels. [default: torch's choice]",
    ),
    click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        default=1800.0,
        show_default=True,
        help="Seconds for each process.",
    ),
)
KEPT = (
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help="Keep traces, logs and report.json in this folder. [default: nothing is kept]",
    ),
    click.option("--force", is_flag=True, help="Replace the files of an earlier run in --out."),
)

EXPECT_DIGEST = (
    click.option(
        "--expect-digest",
        type=Digest(),
        help="Refuse a recording of the legacy side that has another digest, which the verdict tells; the first 12 "
        "digits will do.",
    ),
)


def having(*options: Callable) -> Callable:
    """Add options to a command, in the order they are given."""

    def add(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return add

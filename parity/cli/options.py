"""Options that several subcommands of ``ddq-parity`` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from legacy_adapters import registry
from legacy_adapters.job import CHECKS

from .params import CheckList, CountList, Device, Digest, NotNegative, SizeList

EXIT_CODES = """\b
Exit codes:
  0  match
  1  mismatch
  2  usage or bad input
  3  not comparable: nothing was compared, something was left out without a
     reason, or the sides were recorded with different seeds or checks; with
     exact tolerance also with different threads, CPU kernels, device or torch
  4  a side crashed or ran out of time
  70 a bug in ddq-parity itself"""

_FAMILIES = f"{', '.join(registry.own())}, another installed family, or the folder of a family"


def of_family(**more: Any) -> tuple[Callable, ...]:
    """Return the options that choose a model; ``more`` is for that of the family."""
    help_text = f"Which port to check: {_FAMILIES}."
    return (
        click.option("--family", metavar="NAME|FOLDER", required=True, help=help_text, **more),
        click.option("--variant", metavar="NAME", help="Which model of the family. [default: its only one]"),
        click.option(
            "--legacy-config",
            metavar="FILE|NAME",
            help="Of a family whose models are made of configs (mmdet2): the legacy side's, a file or a name in the code "
            "base.",
        ),
        click.option("--new-config", metavar="FILE|NAME", help="The new side's config of the same model."),
    )


FAMILY = of_family()
RECORDED_FAMILY = (
    click.option(
        "--family", metavar="NAME|FOLDER", help=f"{_FAMILIES}. [default: the one that the traces were recorded for]"
    ),
    click.option(
        "--variant",
        metavar="NAME",
        help="Which model of the family. [default: the one that the traces were recorded for]",
    ),
)
RULES = (
    click.option(
        "--rules",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Of traces that scripts recorded: what names become on the new side, a rule file (docs/rules.md). [default: the "
        "same names]",
    ),
)
GOLDEN_FAMILY = (
    click.option("--family", metavar="NAME|FOLDER", help=f"{_FAMILIES}. [default: the one that FILE was recorded for]"),
)
EXCLUSIONS = (
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Accept records that only one side has; PATTERN is [legacy:|new:][KIND:]NAME[#SLOT], with wildcards. May "
        "be repeated; give one --reason with each.",
    ),
    click.option(
        "--reason",
        multiple=True,
        metavar="TEXT",
        help="Why the records of --exclude need no twin; it is printed in the report.",
    ),
)
BOUNDS = (
    click.option("--rtol", type=NotNegative(), help="Relative tolerance, with --tolerance fixed. [default: 1.3e-06]"),
    click.option("--atol", type=NotNegative(), help="Absolute tolerance, with --tolerance fixed. [default: 1e-05]"),
)
DEFAULT_BOUNDS = dict(rtol=1.3e-6, atol=1e-5)
FIXED_HELP = "What counts as equal. exact: the same bits; fixed: |difference| <= atol + rtol * |legacy|"
OUTPUT = (
    click.option("--json", is_flag=True, help="Print the verdict as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="Print the verdict line only."),
)
SIZE_HELP = """Image sizes of the batch for inference, in pixels. The sizes for training follow from them: each batch is
a little smaller (by at most 23 pixels a side; above 400 pixels by 15 and 2 % of the longest side), and every other
batch is transposed, beginning with the first. [default: three images]"""
TASK = (
    click.option("--size", type=SizeList(), help=SIZE_HELP),
    click.option("--objects", type=CountList(), help="Number of objects in each image. [default: random]"),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        help="Seed of inputs, weights and random draws.",
    ),
)
OWN_INPUTS = (
    click.option(
        "--inputs",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Give both sides the tensors of this .safetensors file: NAME for both phases, or predict.NAME and train.NAME. "
        "[default: made-up inputs]",
    ),
    click.option(
        "--image",
        type=click.Path(path_type=Path, dir_okay=False),
        multiple=True,
        help="Give both sides a batch of this image file, resized to --size (or shrunk to 800x1333), normalised and padded. "
        "May be repeated.",
    ),
)
CHECK = (
    click.option(
        "--check",
        type=CheckList(("forward", "loss", "grad", "init")),
        default="forward,loss,grad,init",
        show_default=True,
        help="What to compare; init is what building the model and init_weights make.",
    ),
)
TRAINING = (
    click.option(
        "--check",
        type=CheckList(CHECKS),
        help="What to compare; init is what building the model and init_weights make, train is some optimizer steps. "
        "[default: forward,loss,grad,init; with --ranks: train]",
    ),
    click.option(
        "--steps",
        type=click.IntRange(1, 100_000),
        help="Number of optimizer steps of check train. [default: 5; with --ranks: 4, the fewest possible]",
    ),
    click.option(
        "--epoch-length",
        type=click.IntRange(1),
        help="Number of steps in an epoch, for schedules by epoch. [default: the epoch never ends]",
    ),
    click.option(
        "--clip-order",
        type=click.Choice(["twin", "own"]),
        help="Order in which the norms of gradients are summed: twin is the legacy side's order on both sides, own is "
        "each side's own order. [default: twin]",
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
        help="Number of processes that train each side together on the CPU, as on several GPUs. Each rank has its own "
        "images, some of them without objects. Losses, averaged gradients and optimizer steps are compared on every "
        "rank.",
    ),
)
CHECKPOINT = (
    click.option(
        "--checkpoint",
        type=click.Path(path_type=Path),
        help="Weights of either layout, .pth or .safetensors. [default: seeded weights]",
    ),
)
LEGACY = (
    click.option(
        "--legacy-repo", type=click.Path(path_type=Path), help="Checkout of the legacy code, if the family needs one."
    ),
    click.option(
        "--legacy-python",
        type=click.Path(exists=True, dir_okay=False),
        help="Python interpreter for the legacy side. [default: this one, with shims for old code]",
    ),
    click.option(
        "--require-known-commit",
        is_flag=True,
        help="Refuse legacy code of an unknown commit, and installed packages that were changed.",
    ),
)
NEW = (
    click.option(
        "--new-adapter",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Adapter file of your own port, to test that in place of the family's new side.",
    ),
)
MACHINE = (
    click.option(
        "--device", type=Device(), default="cpu", show_default=True, help="Where both sides run: cpu, cuda or cuda:N."
    ),
    click.option("--threads", type=click.IntRange(1), help="Number of CPU threads. [default: torch's choice]"),
    click.option(
        "--cpu-capability",
        type=click.Choice(["default", "avx2", "avx512"]),
        help="Which CPU kernels to use. [default: torch's choice]",
    ),
    click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        default=1800.0,
        show_default=True,
        help="Longest run time of each process, in seconds.",
    ),
)
KEPT = (
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder in which to keep traces, logs and report.json. [default: nothing is kept]",
    ),
    click.option("--force", is_flag=True, help="Replace an earlier run in --out, and files of --html and the like."),
)
_FILE = click.Path(path_type=Path, dir_okay=False)
FILES = (
    click.option(
        "--html", type=_FILE, help="Also write the verdict as a page, one file that needs neither others nor the network."
    ),
    click.option("--junit", type=_FILE, help="Also write it as JUnit's XML, a test case per stage and outer module."),
    click.option("--markdown", type=_FILE, help="Also write a short summary, for a comment on a pull request."),
)
FORCE_FILES = (click.option("--force", is_flag=True, help="Replace files of --html, --junit and --markdown."),)

EXPECT_DIGEST = (
    click.option(
        "--expect-digest",
        type=Digest(),
        help="Refuse a recording of the legacy side with another digest. Verdicts print the digest; its first "
        "12 digits are enough.",
    ),
)


def having(*options: Callable) -> Callable:
    """Add options to a command, in the order they are given."""

    def add(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return add

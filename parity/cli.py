"""Command line ``ddq-parity``."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from converters import families as mappings
from converters.console import OneLineGroup
from ddq_port import __version__
from legacy_adapters import families

from .params import AT_RISK_ULPS, CHECKS, CheckList, CountList, Device, SizeList

_EXIT_CODES = """\b
Exit codes:
  0  match
  1  mismatch
  2  usage or bad input
  3  not comparable: nothing compared, something left out without a reason, or
     another seed or other checks; with exact tolerance also other threads,
     CPU capability, device or torch
  4  a side crashed or ran out of time
  70 a bug in ddq-parity itself"""
_INTERNAL_ERROR = 70

_FAMILIES = families.names()
_VARIANTS = tuple(dict.fromkeys(variant for name in _FAMILIES for variant in mappings.variants(name)))

_FAMILY = (
    click.option("--family", type=click.Choice(_FAMILIES), required=True, help="Legacy code base."),
    click.option("--variant", type=click.Choice(_VARIANTS), required=True, help="Model."),
)
_BOUNDS = (
    click.option("--rtol", type=click.FloatRange(0), help="Of fixed. [default: 1.3e-06]"),
    click.option("--atol", type=click.FloatRange(0), help="Of fixed. [default: 1e-05]"),
)
_DEFAULT_BOUNDS = dict(rtol=1.3e-6, atol=1e-5)
_FIXED_HELP = "exact: the same bits; fixed: |diff| <= atol + rtol * |legacy|"
_OUTPUT = (
    click.option("--json", is_flag=True, help="Print the verdict as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="Print the verdict line only."),
)
_TASK = (
    click.option("--size", type=SizeList(), help="Image sizes of the batch in pixels."),
    click.option("--objects", type=CountList(), help="Objects of each image, one number per image. [default: drawn]"),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        help="Of inputs, weights and random draws.",
    ),
)
_CHECK = (
    click.option(
        "--check",
        type=CheckList(("forward", "loss", "grad")),
        default="forward,loss,grad",
        show_default=True,
        help="What to compare.",
    ),
)
_TRAINING = (
    click.option(
        "--check",
        type=CheckList(CHECKS),
        default="forward,loss,grad",
        show_default=True,
        help="What to compare; train: some optimizer steps.",
    ),
    click.option("--steps", type=click.IntRange(1, 100_000), help="Optimizer steps of check train. [default: 5]"),
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
)
_CHECKPOINT = (
    click.option(
        "--checkpoint",
        type=click.Path(path_type=Path),
        help="Weights, .pth or .safetensors, of either layout. [default: seeded, not degenerate]",
    ),
)
_LEGACY = (
    click.option(
        "--legacy-repo", type=click.Path(path_type=Path), help="Checkout of the legacy code, where it needs one."
    ),
    click.option(
        "--legacy-python",
        type=click.Path(exists=True, dir_okay=False),
        help="Interpreter of the legacy side. [default: this one, with compat shims]",
    ),
)
_NEW = (
    click.option(
        "--new-adapter",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Adapter file of the new side, to test your own port. [default: ddq_port's]",
    ),
)
_MACHINE = (
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
_KEPT = (
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help="Keep traces, logs and report.json in this folder. [default: nothing is kept]",
    ),
    click.option("--force", is_flag=True, help="Replace the files of an earlier run in --out."),
)
GOLDEN = Path(__file__).with_name("goldens") / "ddq_detr.tiny_4scale.npz"


def _with(*options: Callable) -> Callable:
    """Add options to a command, in the order they are given."""

    def add(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group(
    cls=OneLineGroup,
    epilog=_EXIT_CODES,
    context_settings=dict(help_option_names=["-h", "--help"], auto_envvar_prefix="DDQ_PARITY"),
)
@click.version_option(__version__, prog_name="ddq-parity")
def cli() -> None:
    """Prove that a port computes what the legacy code computes.

    Data goes to stdout, messages to stderr. Every option has an environment variable, for example
    DDQ_PARITY_RUN_SEED=1.
    """


@cli.command(epilog=_EXIT_CODES)
@_with(*_FAMILY, *_LEGACY, *_CHECKPOINT, *_NEW, *_TASK, *_TRAINING)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Of weights, inputs and everything computed.",
)
@click.option(
    "--tolerance",
    type=click.Choice(["exact", "fixed", "derived"]),
    default="exact",
    show_default=True,
    help=f"{_FIXED_HELP}; derived: measured on the legacy code, implies --replay.",
)
@_with(*_BOUNDS)
@click.option(
    "--replay",
    is_flag=True,
    help="Force the legacy side's decisions (NMS, top-k, matching) and random draws on the new side.",
)
@click.option(
    "--isolate",
    is_flag=True,
    help="Run the new side once more, every module on what its legacy twin was given: shows each one's own error.",
)
@_with(*_MACHINE, *_KEPT, *_OUTPUT)
def run(json: bool, **settings: Any) -> None:
    """Run both sides on the same weights and inputs; compare."""
    from . import commands

    _needs_out(**settings)
    sys.exit(commands.run(as_json=json, **_task(**_bounds(**settings))))


@cli.command(epilog=_EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_with(*_FAMILY, *_LEGACY, *_CHECKPOINT, *_TASK, *_CHECK, *_MACHINE)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Do not tell the steps.")
def capture(**settings: Any) -> None:
    """Record the legacy side into golden FILE (.npz), to check against where the legacy code is not at hand.

    The legacy side runs seven times, to measure its own rounding.
    """
    from . import commands

    sys.exit(commands.capture(**_task(**settings)))


@cli.command(epilog=_EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_with(*_CHECKPOINT, *_NEW, *_MACHINE, *_KEPT, *_OUTPUT)
def check(json: bool, **settings: Any) -> None:
    """Compare the new side with golden FILE, under its decisions and with derived tolerance."""
    from . import commands

    _needs_out(**settings)
    sys.exit(commands.check(as_json=json, **settings))


@cli.command(epilog=_EXIT_CODES)
@_with(*_NEW, *_MACHINE, *_KEPT, *_OUTPUT)
def demo(json: bool, **settings: Any) -> None:
    """Check a tiny DDQ-DETR against what the official code computed, recorded in this package."""
    from . import commands

    _needs_out(**settings)
    sys.exit(commands.check(file=GOLDEN, checkpoint=None, as_json=json, **settings))


@cli.command(epilog=_EXIT_CODES)
@click.argument("legacy", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@_with(*_FAMILY)
@click.option(
    "--tolerance", type=click.Choice(["exact", "fixed"]), default="exact", show_default=True, help=f"{_FIXED_HELP}."
)
@_with(*_BOUNDS)
@click.option("--verify", is_flag=True, help="First check every tensor of both traces against its digest.")
@_with(*_OUTPUT)
def compare(json: bool, **arguments: Any) -> None:
    """Compare two traces kept by `run --out`."""
    from . import commands

    sys.exit(commands.compare(as_json=json, **_bounds(**arguments)))


@cli.command(epilog=_EXIT_CODES)
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the script. [default: RUN/reproducer]"
)
@click.option("--force", is_flag=True, help="Replace an earlier script in --out.")
@_with(*_OUTPUT)
def bisect(json: bool, **arguments: Any) -> None:
    """Find what computes something else by itself in RUN, a folder kept by `run --out`.

    Runs the new side in isolation, names every place whose own computation differs, and writes a short script that
    shows the first with one module alone.
    """
    from . import commands

    sys.exit(commands.bisect(as_json=json, **arguments))


@cli.command(
    epilog="""\b
Exit codes:
  0  audited
  1  a decision breaks its own rule on the numbers it rests on
  2  usage or bad input
  3  the trace holds no decision
  70 a bug in ddq-parity itself"""
)
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--ulps",
    type=click.FloatRange(0),
    default=AT_RISK_ULPS,
    show_default=True,
    help="At risk is what numbers so many units in the last place off would turn.",
)
@click.option("--worst", type=click.IntRange(1), default=20, show_default=True, help="List so many of the closest.")
@_with(*_OUTPUT)
def audit(json: bool, **arguments: Any) -> None:
    """Tell how close each decision (NMS, top-k, matching) of a TRACE kept by `run --out` came to being otherwise.

    Decisions at risk may fall otherwise on another machine, although nothing is wrong.
    """
    from . import commands

    sys.exit(commands.audit(as_json=json, **arguments))


def _task(size: tuple[tuple[int, int], ...] | None, check: tuple[str, ...], **settings: Any) -> dict[str, Any]:
    """Fill in the default sizes and rename what has another name on the command line."""
    tiny = settings["variant"].startswith("tiny")
    sizes = size or (((128, 160), (96, 128)) if tiny else ((480, 640), (384, 512)))
    objects = settings["objects"]
    if objects is not None and len(objects) != len(sizes):
        raise click.BadParameter(f"--objects gives {len(objects)} numbers for {len(sizes)} images; give one per image.")
    training = _training("train" in check, **{name: settings.pop(name, None) for name in _TRAINING_OPTIONS})
    return dict(sizes=sizes, checks=check, **training, **settings)


_TRAINING_OPTIONS = ("steps", "epoch_length", "clip_order", "resume_at")


def _training(asked: bool, **given: Any) -> dict[str, Any]:
    """Fill in the defaults of check train; refuse its options without it, for they would do nothing."""
    idle = [name for name, value in given.items() if value is not None and not asked]
    if idle:
        raise click.BadParameter(f"--{idle[0].replace('_', '-')} needs check train; add it to --check.")
    defaults = dict(steps=5 if asked else 0, epoch_length=None, clip_order="twin", resume_at=0)
    return {name: defaults[name] if value is None else value for name, value in given.items()}


def _bounds(**settings: Any) -> dict[str, Any]:
    """Fill in the default bounds; refuse bounds for a tolerance that has others or none, for they would do nothing."""
    for name, default in _DEFAULT_BOUNDS.items():
        if settings[name] is None:
            settings[name] = default
        elif settings["tolerance"] != "fixed":
            tolerance = settings["tolerance"]
            raise click.BadParameter(f"--{name} is of --tolerance fixed, not {tolerance}; pass --tolerance fixed.")
    return settings


def _needs_out(out: Path | None, force: bool, **_: Any) -> None:
    """Refuse ``--force`` where there is nothing to replace."""
    if force and out is None:
        raise click.BadParameter("--force needs --out, the folder whose files it replaces; pass --out or leave it out.")


def main() -> None:
    """Run the command line; a bug of this tool must not look like a verdict."""
    gc.set_threshold(50_000)  # importing torch makes so many objects that collecting them takes a tenth of the start
    try:
        cli(prog_name="ddq-parity")
    except Exception:
        traceback.print_exc()
        sys.exit(_INTERNAL_ERROR)

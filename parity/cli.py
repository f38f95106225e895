"""Command line ``ddq-parity``."""

from __future__ import annotations

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

from .params import CheckList, CountList, Device, SizeList

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
_TOLERANCE = (
    click.option(
        "--tolerance",
        type=click.Choice(["exact", "fixed"]),
        default="exact",
        show_default=True,
        help="exact: the same bits; fixed: |diff| <= atol + rtol * |legacy|.",
    ),
    click.option("--rtol", type=click.FloatRange(0), default=1.3e-6, show_default=True, help="Of fixed."),
    click.option("--atol", type=click.FloatRange(0), default=1e-5, show_default=True, help="Of fixed."),
)
_OUTPUT = (
    click.option("--json", is_flag=True, help="Print the verdict as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="Print the verdict line only."),
)
_SETTINGS = (
    click.option("--size", type=SizeList(), help="Image sizes of the batch in pixels."),
    click.option("--objects", type=CountList(), help="Objects of each image, one number per image. [default: drawn]"),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        help="Of inputs, weights and random draws.",
    ),
    click.option("--check", type=CheckList(), default="forward,loss,grad", show_default=True, help="What to compare."),
    click.option("--device", type=Device(), default="cpu", show_default=True, help="Of both sides: cpu or cuda[:N]."),
    click.option("--threads", type=click.IntRange(1), help="CPU threads of both sides. [default: torch's]"),
    click.option(
        "--cpu-capability",
        type=click.Choice(["default", "avx2", "avx512"]),
        help="Kernels of both sides. [default: torch's choice]",
    ),
    *_TOLERANCE,
    click.option(
        "--replay",
        is_flag=True,
        help="Force the legacy side's decisions (NMS, top-k, matching) and random draws on the new side.",
    ),
    click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        default=1800.0,
        show_default=True,
        help="Seconds for each side.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help="Keep traces, logs and report.json in this folder. [default: nothing is kept]",
    ),
    click.option("--force", is_flag=True, help="Replace the files of an earlier run in --out."),
    *_OUTPUT,
)


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
@_with(*_FAMILY)
@click.option("--legacy-repo", type=click.Path(path_type=Path), help="Checkout of the legacy code, where it needs one.")
@click.option(
    "--legacy-python",
    type=click.Path(exists=True, dir_okay=False),
    help="Interpreter of the legacy side. [default: this one, with compat shims]",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Weights, .pth or .safetensors, of either layout. [default: seeded, not degenerate]",
)
@click.option(
    "--new-adapter",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Adapter file of the new side, to test your own port. [default: ddq_port's]",
)
@_with(*_SETTINGS)
def run(**settings: Any) -> None:
    """Run both sides on the same weights and inputs; compare."""
    _execute(**settings)


@cli.command(epilog=_EXIT_CODES)
@_with(*_SETTINGS)
def demo(**settings: Any) -> None:
    """Prove a tiny DDQ-DETR against MMDetection 3.3.0's own."""
    fixed = dict.fromkeys(("legacy_repo", "legacy_python", "checkpoint", "new_adapter"))
    _execute(family="mmdet_ddq", variant="tiny_4scale", **fixed, **settings)


@cli.command(epilog=_EXIT_CODES)
@click.argument("legacy", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@_with(*_FAMILY, *_TOLERANCE, *_OUTPUT)
def compare(json: bool, **arguments: Any) -> None:
    """Compare two traces kept by `run --out`."""
    from . import commands

    sys.exit(commands.compare(as_json=json, **arguments))


def _execute(size: tuple[tuple[int, int], ...] | None, check: tuple[str, ...], json: bool, **settings: Any) -> None:
    from . import commands

    tiny = settings["variant"].startswith("tiny")
    sizes = size or (((128, 160), (96, 128)) if tiny else ((480, 640), (384, 512)))
    objects = settings["objects"]
    if objects is not None and len(objects) != len(sizes):
        raise click.BadParameter(f"--objects gives {len(objects)} numbers for {len(sizes)} images; give one per image.")
    sys.exit(commands.run(sizes=sizes, checks=check, as_json=json, **settings))


def main() -> None:
    """Run the command line; a bug of this tool must not look like a verdict."""
    try:
        cli(prog_name="ddq-parity")
    except Exception:
        traceback.print_exc()
        sys.exit(_INTERNAL_ERROR)

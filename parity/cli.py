"""Command line ``ddq-parity``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from converters.console import OneLineGroup
from ddq_port import __version__

_EXIT_CODES = """\b
Exit codes: 0 match, 1 mismatch, 2 usage or bad input, 3 not comparable
(nothing compared, something left out without a reason, different threads or
CPU capability), 4 a side crashed or ran out of time."""

FAMILIES = ("ddq_detr", "mmdet_ddq")
VARIANTS = ("r50_4scale", "tiny_4scale")
CHECKS = ("forward", "loss", "grad")


class SizeList(click.ParamType):
    """Image sizes as ``HxW,HxW``."""

    name = "HxW,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        sizes = []
        for item in value.lower().split(","):
            height, cross, width = item.partition("x")
            if not (cross and height.strip().isdigit() and width.strip().isdigit()):
                self.fail(f"{item!r} is not a size; expected e.g. 480x640,384x512.", param, ctx)
            sizes.append((int(height), int(width)))
            if min(sizes[-1]) < 32:
                self.fail(f"{item!r} is too small; expected at least 32 pixels a side.", param, ctx)
        return tuple(sizes)


class CheckList(click.ParamType):
    """Some of forward, loss, grad, with commas."""

    name = "CHECK,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        asked = [item.strip() for item in value.split(",")]
        unknown = [item for item in asked if item not in CHECKS]
        if unknown:
            self.fail(f"{unknown[0]!r} is not a check; expected some of {', '.join(CHECKS)}.", param, ctx)
        return tuple(check for check in CHECKS if check in asked)


def _device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    kind, colon, index = value.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and index.isdigit())):
        raise click.BadParameter(f"{value!r} is not a device; expected cpu, cuda or cuda:N.")
    return value


def _run_options(command: Callable) -> Callable:
    """Add the options that ``run`` and ``demo`` share."""
    for option in reversed(
        (
            click.option("--size", "sizes", type=SizeList(), help="Image sizes of the batch in pixels."),
            click.option("--seed", type=int, default=0, show_default=True, help="Of inputs, weights and random draws."),
            click.option(
                "--check",
                "checks",
                type=CheckList(),
                default="forward,loss,grad",
                show_default=True,
                help="What to compare.",
            ),
            click.option(
                "--device", default="cpu", show_default=True, callback=_device, help="Of both sides: cpu or cuda[:N]."
            ),
            click.option("--threads", type=click.IntRange(1), help="CPU threads of both sides. [default: torch's]"),
            click.option(
                "--cpu-capability",
                type=click.Choice(["default", "avx2", "avx512"]),
                help="Kernels of both sides. [default: torch's choice for this machine]",
            ),
            click.option(
                "--tolerance",
                type=click.Choice(["exact", "fixed"]),
                default="exact",
                show_default=True,
                help="exact: the same bits; fixed: |diff| <= atol + rtol * |legacy|.",
            ),
            click.option("--rtol", type=click.FloatRange(0), default=1.3e-6, show_default=True, help="Of fixed."),
            click.option("--atol", type=click.FloatRange(0), default=1e-5, show_default=True, help="Of fixed."),
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
            click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON."),
            click.option("-q", "--quiet", is_flag=True, help="Print the verdict line only."),
        )
    ):
        command = option(command)
    return command


@click.group(
    cls=OneLineGroup,
    context_settings=dict(help_option_names=["-h", "--help"], auto_envvar_prefix="DDQ_PARITY"),
    help="Prove that a port computes what the legacy code computes.\n\n" + _EXIT_CODES,
)
@click.version_option(__version__, prog_name="ddq-parity")
def main() -> None:
    pass


@main.command(help="Run the legacy code and the port on the same weights and inputs; compare all.\n\n" + _EXIT_CODES)
@click.option("--family", type=click.Choice(FAMILIES), required=True, help="Legacy code base.")
@click.option("--variant", type=click.Choice(VARIANTS), required=True, help="Model.")
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
@_run_options
def run(**kwargs: Any) -> None:
    _execute(**kwargs)


@main.command(help="Prove a small DDQ-DETR against MMDetection 3.3.0's own, run live.\n\n" + _EXIT_CODES)
@_run_options
def demo(**kwargs: Any) -> None:
    _execute(
        family="mmdet_ddq",
        variant="tiny_4scale",
        legacy_repo=None,
        legacy_python=None,
        checkpoint=None,
        new_adapter=None,
        **kwargs,
    )


@main.command(help="Compare two traces kept by `run --out`.\n\n" + _EXIT_CODES)
@click.argument("legacy", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--family", type=click.Choice(FAMILIES), required=True, help="Legacy code base.")
@click.option("--variant", type=click.Choice(VARIANTS), required=True, help="Model.")
@click.option("--tolerance", type=click.Choice(["exact", "fixed"]), default="exact", show_default=True)
@click.option("--rtol", type=click.FloatRange(0), default=1.3e-6, show_default=True, help="Of fixed.")
@click.option("--atol", type=click.FloatRange(0), default=1e-5, show_default=True, help="Of fixed.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print the verdict line only.")
def compare(**kwargs: Any) -> None:
    from . import commands

    sys.exit(commands.compare(**kwargs))


def _execute(sizes: tuple[tuple[int, int], ...] | None, **kwargs: Any) -> None:
    from . import commands

    tiny = kwargs["variant"] == "tiny_4scale"
    default = ((128, 160), (96, 128)) if tiny else ((480, 640), (384, 512))
    sys.exit(commands.run(sizes=sizes or default, **kwargs))

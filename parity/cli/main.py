"""Command line ``ddq-parity``."""

from __future__ import annotations

import gc
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from converters.cli.console import OneLineGroup
from ddq_port import __version__, requirements
from legacy_adapters import registry

from ..sides import places
from . import (
    curves_options,
    eval_options,
    new_family,
    preprocess_command,
    rehearse_options,
    whole_options,
    zoo_command,
)  # fmt: skip
from .early import (
    bounds_options,
    excluded,
    input_options,
    needs_detector,
    needs_out,
    refusals,
    refuse_early,
    refuse_files,
    resolved,
    task_options,
    with_files,
)  # fmt: skip
from .options import (
    BOUNDS,
    CHECK,
    CHECKPOINT,
    EXCLUSIONS,
    EXIT_CODES,
    EXPECT_DIGEST,
    FAMILY,
    FILES,
    FIXED_HELP,
    FORCE_FILES,
    GOLDEN_FAMILY,
    KEPT,
    LEGACY,
    MACHINE,
    NEW,
    OUTPUT,
    OWN_INPUTS,
    RECORDED_FAMILY,
    RULES,
    TASK,
    TRAINING,
    having,
    of_family,
)  # fmt: skip
from .output import check_new_file, check_script_folder
from .params import AT_RISK_ULPS, NotNegative

_INTERNAL_ERROR = 70


@click.group(
    cls=OneLineGroup,
    epilog=EXIT_CODES,
    context_settings=dict(help_option_names=["-h", "--help"], auto_envvar_prefix="DDQ_PARITY"),
)
@click.version_option(__version__, prog_name="ddq-parity")
def cli() -> None:
    """Prove that a port computes what the legacy code computes.

    Data goes to stdout, messages to stderr. Every option has an environment variable, for example
    DDQ_PARITY_RUN_SEED=1.
    """


@cli.command(epilog=EXIT_CODES)
@having(*FAMILY, *LEGACY, *CHECKPOINT, *NEW, *TASK, *OWN_INPUTS, *TRAINING)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Precision of weights, inputs and everything computed.",
)
@click.option(
    "--amp",
    type=click.Choice(["bf16", "fp16"]),
    help="Run both models under torch's autocast to this type; weights stay float32. [default: no autocast]",
)
@click.option(
    "--tolerance",
    type=click.Choice(["exact", "fixed", "derived"]),
    default="exact",
    show_default=True,
    help=f"{FIXED_HELP}; derived: as close as the legacy code's own rounding explains (implies --replay).",
)
@having(*BOUNDS)
@click.option(
    "--replay",
    is_flag=True,
    help="Let the new side go on with the legacy side's decisions (NMS, top-k, matching) and random draws.",
)
@click.option(
    "--isolate",
    is_flag=True,
    help="Run the new side once more, giving each module its legacy twin's inputs; this shows each module's own error.",
)
@having(*EXCLUSIONS, *MACHINE, *KEPT, *FILES, *OUTPUT)
def run(json: bool, exclude: tuple[str, ...], reason: tuple[str, ...], **settings: Any) -> None:
    """Run both sides on the same weights and inputs, and compare them."""
    settings = with_files(task_options(**bounds_options(**input_options(**settings))))
    settings["exclusions"] = excluded(exclude, reason)
    refuse_early(**settings)
    del settings["force"]

    from . import commands

    sys.exit(commands.run(as_json=json, **settings))


@cli.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@having(*FAMILY, *LEGACY, *CHECKPOINT, *TASK, *CHECK, *MACHINE)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Do not print the steps.")
def capture(**settings: Any) -> None:
    """Record the legacy side into the golden file FILE (.npz).

    `check FILE` then compares the new side with it where the legacy code is not available. The legacy side runs seven
    times, to measure its own rounding.
    """
    force = settings.pop("force")
    settings = task_options(**settings)
    refuse_early(**settings)
    with refusals():
        check_new_file(settings["file"], force)

    from . import commands

    sys.exit(commands.capture(**settings))


@cli.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@having(*GOLDEN_FAMILY, *EXPECT_DIGEST, *CHECKPOINT, *NEW, *MACHINE, *KEPT, *FILES, *OUTPUT)
def check(json: bool, **settings: Any) -> None:
    """Compare the new side with the golden file FILE.

    The new side goes on with the decisions in FILE; the tolerance is derived from the rounding measured in it.
    """
    settings = with_files(settings)
    refuse_early(golden=settings["file"], **settings)
    del settings["force"]

    from . import commands

    sys.exit(commands.check(as_json=json, **settings))


@cli.command(epilog=EXIT_CODES)
@having(*NEW, *MACHINE, *KEPT, *FILES, *OUTPUT)
def demo(json: bool, **settings: Any) -> None:
    """Check a small model against recorded numbers of its official code."""
    settings = with_files(settings)
    refuse_early(**settings)
    del settings["force"]

    from . import commands

    sys.exit(commands.check(file=demo_file(), checkpoint=None, as_json=json, **settings))


@cli.command(epilog=EXIT_CODES)
@click.argument("legacy", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@having(*RECORDED_FAMILY, *RULES)
@click.option(
    "--tolerance", type=click.Choice(["exact", "fixed"]), default="exact", show_default=True, help=f"{FIXED_HELP}."
)
@having(*BOUNDS)
@click.option("--verify", is_flag=True, help="First check every tensor of both traces against its recorded digest.")
@having(*EXPECT_DIGEST, *EXCLUSIONS, *FILES, *FORCE_FILES, *OUTPUT)
def compare(json: bool, force: bool, exclude: tuple[str, ...], reason: tuple[str, ...], **arguments: Any) -> None:
    """Compare two traces that `run --out RUN` kept: RUN/legacy and RUN/new."""
    arguments = dict(with_files(bounds_options(**arguments)), exclusions=excluded(exclude, reason))
    refuse_files(arguments["files"], force)
    with refusals():
        places.check_trace(arguments["legacy"], places.LEGACY)
        places.check_trace(arguments["new"], places.NEW)

    from . import trace_commands

    sys.exit(trace_commands.compare(as_json=json, **arguments))


@cli.command(epilog=EXIT_CODES)
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder in which to write the script. [default: RUN/reproducer]",
)
@click.option("--force", is_flag=True, help="Replace an earlier script in --out, and files of --html and the like.")
@having(*FILES, *OUTPUT)
def bisect(json: bool, **arguments: Any) -> None:
    """Find each module of a kept run that is wrong by itself.

    RUN is a folder that `run --out` kept. The new side runs once more, with each module on its legacy twin's inputs.
    Every place whose own computation differs is named, and a short script is written that shows the first of them with
    one module alone, or with the whole model where one module does not show it. Threads, device and precision are those
    of the kept run, so there are no options for them.
    """
    force = arguments.pop("force")
    arguments = with_files(arguments)
    arguments["out"] = arguments["out"] or arguments["run"] / "reproducer"
    with refusals():
        arguments["files"].check(force)
        places.check_run(arguments["run"])
        check_script_folder(arguments["out"], force)

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
    type=NotNegative(finite=False),
    default=AT_RISK_ULPS,
    show_default=True,
    help="A decision is at risk if numbers that differ by this many units in the last place would change it.",
)
@click.option(
    "--worst", type=click.IntRange(1), default=20, show_default=True, help="How many of the closest decisions to list."
)
@having(*OUTPUT)
def audit(json: bool, **arguments: Any) -> None:
    """Show how close each decision of a trace is to a tie.

    TRACE is a folder that `run --out RUN` kept, such as RUN/new. Decisions are NMS, top-k and matching. A decision at
    risk may turn out differently on another machine, although nothing is wrong.
    """
    with refusals():
        places.check_trace(arguments["trace"])

    from . import trace_commands

    sys.exit(trace_commands.audit(as_json=json, **arguments))


@cli.command(epilog=curves_options.EXIT_CODES)
@click.argument("log_a", type=click.Path(path_type=Path))
@click.argument("log_b", type=click.Path(path_type=Path))
@having(*curves_options.CURVES, *OUTPUT)
def curves(json: bool, **arguments: Any) -> None:
    """Compare the loss terms and APs of two trainings by their logs.

    LOG_A, the reference, and LOG_B are logs of mmengine or mmdet 2.x (JSON or text), or work dirs. Logging intervals
    may differ. B matches if it lies within the noise of the runs given with --band. Without --band, differences are
    only listed.
    """
    needs_out(**arguments)

    from . import curves_command

    sys.exit(curves_command.run(as_json=json, **arguments))


@cli.command("eval", epilog=eval_options.EXIT_CODES)
@having(*eval_options.DATA_SET, *of_family(is_eager=True, callback=needs_detector), *LEGACY, *eval_options.WEIGHTS)
@having(*NEW, *eval_options.DETECTIONS, *MACHINE, *eval_options.KEPT, *OUTPUT)
def evaluate(json: bool, scale: tuple[tuple[int, int], ...] | None, tolerance: str, **arguments: Any) -> None:
    """Detect objects in a data set with both sides and compare.

    Each side uses its own test pipeline. All detections and both APs are compared. The images of the annotation file
    are looked up in --images by their names.
    """
    given = {name: arguments.pop(name) for name in ("score", "box", "ap")}
    asked = [name for name, value in given.items() if value is not None]
    if asked and tolerance == "exact":
        raise click.BadParameter(f"--{asked[0]} goes with --tolerance fixed; pass that.")
    names = ("family", "variant", "legacy_config", "new_config")
    arguments["port"] = resolved(*(arguments.pop(name) for name in names))
    if scale is not None and len(scale) != 1:
        raise click.BadParameter(f"--scale gives {len(scale)} sizes; give one, such as 480x640.")
    refuse_early(marker=places.EVALUATION, **arguments)
    with refusals():
        places.check_file(arguments["ann"], "an annotation file", "JSON in COCO's format, with --ann")
        if not arguments["images"].is_dir():
            raise NotADirectoryError(
                f"{arguments['images']} does not exist; expected the folder of the images, --images."
            )
    del arguments["force"]

    from ..evaluation.evaluation import Bounds
    from . import evaluation_command

    defaults = dict(score=1e-3, box=0.5, ap=1e-3)
    bounds = Bounds(exact=tolerance == "exact", **{name: given[name] or defaults[name] for name in defaults})
    size = (scale[0][1], scale[0][0]) if scale else None
    sys.exit(evaluation_command.run(as_json=json, scale=size, bounds=bounds, **arguments))


@cli.command(epilog=rehearse_options.EXIT_CODES)
@having(FAMILY[0], *rehearse_options.WHAT, *LEGACY, *rehearse_options.HOW, *OUTPUT)
def rehearse(json: bool, data: Any, val_data: Any, **arguments: Any) -> None:
    """Rehearse the whole reproduction in small: train both sides, carry weights over, test, compare curves.

    Stages run in order. Each is a command of its own, which is printed, and can be typed by hand. What is done is not
    done again, so a rehearsal that was stopped goes on when it is started again. report.html in --out tells what holds.
    """
    if (data is None) != (val_data is None):
        raise click.BadParameter("--data and --val-data go together; pass both or none.")
    with refusals():
        requirements.check()

    from . import rehearse_command

    sys.exit(rehearse_command.run(as_json=json, data=data, val_data=val_data, **arguments))


@cli.command("train-legacy", epilog=whole_options.EXIT_CODES)
@having(*FAMILY, *LEGACY, whole_options.DATA, *whole_options.COMMON, *whole_options.TRAINING, *MACHINE[:3], *OUTPUT)
def train_legacy(json: bool, **arguments: Any) -> None:
    """Train the legacy side with its own runner, hooks, evaluator and checkpoints, on today's torch.

    Data, augmentation and draws follow from --seed and the step, as `rehearse` sets them on the new side, so that both
    may be compared step by step: steps.jsonl in --work-dir holds the losses with all their bits.
    """
    _whole("train", json, arguments)


@cli.command("test-legacy", epilog=whole_options.EXIT_CODES)
@having(*FAMILY, *LEGACY, *whole_options.COMMON, *MACHINE[:3])
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="Checkpoint of the legacy layout.",
)
@having(*OUTPUT)
def test_legacy(json: bool, **arguments: Any) -> None:
    """Test a checkpoint with the legacy side's own test loop and evaluator."""
    _whole("test", json, arguments)


def _whole(kind: str, as_json: bool, arguments: dict[str, Any]) -> None:
    names = ("family", "variant", "legacy_config", "new_config")
    arguments["port"] = resolved(*(arguments.pop(name) for name in names))
    refuse_early(**{name: value for name, value in arguments.items() if name not in ("settings", "checkpoint")})

    from . import whole_command

    sys.exit(getattr(whole_command, kind)(as_json=as_json, **arguments))


cli.add_command(new_family.command)
cli.add_command(preprocess_command.command)
cli.add_command(zoo_command.command)


def demo_file() -> Path:
    """Return the golden file that comes with this package."""
    return next(family.demo for family in registry.every() if family.demo is not None)


def main() -> None:
    """Run the command line; a bug of this tool must not look like a verdict."""
    gc.set_threshold(1_000_000)  # importing torch makes so many objects that collecting them takes a tenth of the start
    try:
        cli(prog_name="ddq-parity")
    except Exception:
        traceback.print_exc()
        sys.exit(_INTERNAL_ERROR)
    finally:
        gc.freeze()  # and so it does at the end, where Python collects once more

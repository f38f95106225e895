"""The command line `ddq-train`. Each command parses, calls a module that is imported only then, and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddq_port import __version__, requirements
from ddq_port.training.output.console import (
    CFG_OPTIONS,
    LAUNCHER,
    OUTPUT,
    VERBOSE,
    Group,
    WritablePath,
    options,
    run_main,
)
from legacy_adapters.ground.packages import MMDET

_EXIT_CODES = """\b
Exit codes:
  0  done
  1  the preflight found a mismatch, a number is not finite, memory ran
     out, the data have errors, or the demo missed its AP
  2  usage or bad input
  70 a bug: the traceback says where"""

_FOLDER = WritablePath()
_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(
    cls=Group,
    default="run",
    epilog=_EXIT_CODES,
    context_settings=dict(help_option_names=["-h", "--help"], auto_envvar_prefix="DDQ_TRAIN"),
)
@click.version_option(__version__, prog_name="ddq-train")
def cli() -> None:
    """Train detectors over mmengine's Runner. `ddq-train CONFIG` is short for `ddq-train run CONFIG`.

    Results go to stdout, messages and the progress to stderr. Every option has an environment variable, for
    example DDQ_TRAIN_RUN_SEED=1.
    """


@cli.command(epilog=_EXIT_CODES)
@click.argument("config")
@click.option("--work-dir", type=_FOLDER, help="Folder for logs and checkpoints. [default: work_dirs/CONFIG]")
@click.option(
    "--resume",
    metavar="[CKPT]",
    is_flag=False,
    flag_value="auto",
    help="Go on from a checkpoint; without a name, from the newest one in the work dir, if there is one.",
)
@click.option(
    "--override-schedule",
    is_flag=True,
    help="With --resume, take the learning rates and schedules of CONFIG where the checkpoint has others.",
)
@click.option(
    "--data",
    nargs=2,
    metavar="ANN IMAGES",
    type=_PATH,
    help="Train on this data: annotation file in COCO format and folder of its images. The model gets its classes.",
)
@click.option("--val-data", nargs=2, metavar="ANN IMAGES", type=_PATH, help="Validate on this data.")
@click.option(
    "--check-data/--no-check-data",
    default=True,
    show_default=True,
    help="First check annotation files and images; errors end the command.",
)
@click.option("--load-from", metavar="CKPT", help="Weights to start from, .pth or .safetensors.")
@click.option("--partial", is_flag=True, help="Accept --load-from weights that fit only a part of the model.")
@click.option(
    "--allow-other-classes",
    is_flag=True,
    help="Accept a checkpoint whose classes have other names, if their number is that of the data.",
)
@click.option(
    "--backbone-weights", metavar="FILE", type=_FILE, help="File with weights of the backbone, in place of a download."
)
@click.option("--amp", is_flag=True, help="Train with mixed precision.")
@click.option(
    "--amp-dtype", type=click.Choice(["fp16", "bf16"]), default="fp16", show_default=True, help="Type that --amp uses."
)
@click.option("--fast", is_flag=True, help="Compute with fast numerics: the same functions in less time and memory.")
@click.option("--auto-scale-lr", is_flag=True, help="Scale the learning rate with the total batch (GPUs x images).")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Seed of everything random. [default: random]")
@click.option("--deterministic", is_flag=True, help="Use deterministic kernels.")
@click.option(
    "--ema", is_flag=True, help="Keep a running average of the weights; it is evaluated and saved as the weights."
)
@click.option(
    "--ema-momentum",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.0002,
    show_default=True,
    help="Share of the new weights in the average of --ema at every step.",
)
@click.option("--tensorboard", is_flag=True, help="Also write files for TensorBoard.")
@click.option(
    "--preflight/--no-preflight",
    default=None,
    help="First compare the code on this device with recorded numbers of the legacy code; a mismatch ends the command. "
    "[default: on, if there are such numbers for the model]",
)
@options(LAUNCHER, CFG_OPTIONS, *OUTPUT, VERBOSE)
def run(amp: bool, amp_dtype: str, ema: bool, ema_momentum: float, **arguments: Any) -> int:
    """Train with CONFIG, a file or the name of an installed config."""
    requirements.check()
    from ddq_port.training import run

    return run.command(amp=amp_dtype if amp else None, ema=ema_momentum if ema else None, **arguments)


@cli.command(epilog=_EXIT_CODES)
@click.option(
    "--work-dir",
    type=_FOLDER,
    default="work_dirs/demo",
    show_default=True,
    help="New folder for images, logs, checkpoint and pictures.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Seed of the training.")
@click.option("--steps", type=click.IntRange(2), help="Number of training steps. [default: enough for AP 0.80]")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Number of CPU threads; another number gives slightly different results.",
)
@click.option(
    "--load-from",
    metavar="CKPT",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Weights to start from, for fine-tuning.",
)
@click.option("--fast", is_flag=True, help="Compute with fast numerics; the results differ as those of other seeds do.")
@options(*OUTPUT, VERBOSE)
def demo(**arguments: Any) -> int:
    """Train a tiny DDQ-DETR from scratch on the CPU, evaluate it and draw what it sees.

    It makes its own images of coloured, overlapping shapes. Without --steps, an AP below 0.80 is exit code 1.
    """
    requirements.check()
    from ddq_port.training import demo

    return demo.command(**arguments)


@cli.command(epilog=_EXIT_CODES)
@click.argument("folder", type=_FOLDER)
def shapes(folder: Path) -> int:
    """Draw the data set of `ddq-train demo` into FOLDER, without training on it.

    Nothing is done if they are there. Annotation files are FOLDER/annotations/train.json and val.json, images are in FOLDER/train
    and FOLDER/val.
    """
    requirements.check()
    from ddq_port.training import demo

    return demo.draw_data(folder)


@cli.command("check-data", epilog=_EXIT_CODES)
@click.argument("ann_file", metavar="ANN", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the images. [default: images are not checked]",
)
@click.option(
    "--config",
    metavar="CONFIG",
    help="Config (a file or the name of an installed one) whose image loader and filters are used. [default: mmdet's "
    "loader; images with a side below 32 pixels are left out, as in the installed configs]",
)
@click.option("--fast", is_flag=True, help="Read only the header of every image, instead of loading it.")
@click.option(
    "--read-images/--no-read-images",
    default=True,
    show_default=True,
    help="Load every image, or only check that the file exists.",
)
@click.option(
    "--fix",
    metavar="OUT",
    type=_FILE,
    help="Write a new annotation file in which everything is repaired that needs no guess, and check it.",
)
@options(*OUTPUT)
def check_data(**arguments: Any) -> int:
    """Find errors in a data set of COCO format before a training does.

    ANN is the annotation file. mmdet reads it, the image loader of the training loads every image, and mmdet evaluates
    the annotations themselves, which must give AP 1. An error makes a training or an evaluation crash or come out
    wrong. A warning is about what is left out or cannot be learnt. A note needs no action.
    """
    requirements.check((*MMDET, "PIL", "pycocotools"))
    from ddq_port.training.checks import check_data

    return check_data.command(**arguments)


def main() -> None:
    """Run the command line; the entry point of `ddq-train`."""
    run_main(cli, "ddq-train")

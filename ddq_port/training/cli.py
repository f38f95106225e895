"""The command line `ddq-train`. Each command parses, calls a module that is imported only then, and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddq_port import __version__
from ddq_port.training.console import OUTPUT, Group, options

_EXIT_CODES = """\b
Exit codes:
  0  done
  1  what was asked about is not so: the preflight found a mismatch, the loss
     is not finite, the AP was missed, the data have errors
  2  usage or bad input
  70 a bug: the traceback says where"""


@click.group(
    cls=Group,
    default="run",
    epilog=_EXIT_CODES,
    context_settings=dict(help_option_names=["-h", "--help"], auto_envvar_prefix="DDQ_TRAIN"),
)
@click.version_option(__version__, prog_name="ddq-train")
def cli() -> None:
    """Train detectors over mmengine's Runner. `ddq-train CONFIG` is short for `ddq-train run CONFIG`.

    Results go to stdout, messages and the training's log to stderr. Every option has an environment variable, for
    example DDQ_TRAIN_RUN_SEED=1.
    """


@cli.command(epilog=_EXIT_CODES)
@click.argument("config")
@options(*OUTPUT)
def run(**arguments: Any) -> int:
    """Train with CONFIG, a file or the name of an installed config."""
    from ddq_port.training import run

    return run.command(**arguments)


@cli.command(epilog=_EXIT_CODES)
@options(*OUTPUT)
def demo(as_json: bool, quiet: bool, **arguments: Any) -> int:
    """Train a tiny DDQ-DETR on generated images, evaluate it and draw what it sees."""
    from ddq_port.training import demo

    return demo.command(as_json=as_json, quiet=quiet, **arguments)


@cli.command("check-data", epilog=_EXIT_CODES)
@click.argument("ann_file", metavar="ANN", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder that file names are relative to. [default: images are not looked at]",
)
@click.option(
    "--read-images/--no-read-images",
    default=True,
    show_default=True,
    help="Read the size of every image from its file, or only ask whether the file is there.",
)
@options(*OUTPUT)
def check_data(**arguments: Any) -> int:
    """Look for what is wrong in a COCO-format data set, before a training finds it.

    ANN is the annotation file. An error makes a training crash or learn something wrong; a warning is left out of it
    or cannot be learnt; a note is in order. Exit code 1 means errors.
    """
    from ddq_port.training import check_data

    return check_data.command(**arguments)


def main() -> None:
    """Run the command line; the entry point of `ddq-train`."""
    cli(prog_name="ddq-train")

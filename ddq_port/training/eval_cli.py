"""The command line `ddq-eval`."""

from __future__ import annotations

from typing import Any

import click

from ddq_port import __version__, requirements
from ddq_port.training.output.console import (
    CFG_OPTIONS,
    LAUNCHER,
    OUTPUT,
    VERBOSE,
    Command,
    WritablePath,
    options,
    run_main,
)

_EXIT_CODES = """\b
Exit codes:
  0  done
  1  out of memory, a number that is not finite, or errors in the data
  2  usage or bad input, weights that do not fit the config included
  70 a bug: the traceback says where"""
_FOLDER = WritablePath()


@click.command(
    cls=Command,
    epilog=_EXIT_CODES,
    context_settings=dict(help_option_names=["-h", "--help"], auto_envvar_prefix="DDQ_EVAL"),
)
@click.argument("config")
@click.argument("checkpoint")
@click.option(
    "--out", type=WritablePath(is_file=True), help="Write the predictions to this file, as COCO results (JSON)."
)
@click.option("--show-dir", type=_FOLDER, help="Folder for images with the predictions drawn into them.")
@click.option("--classwise", is_flag=True, help="Also print the AP of each class.")
@click.option(
    "--allow-other-classes",
    is_flag=True,
    help="Accept a checkpoint whose classes have other names; class N stays class N.",
)
@click.option(
    "--check-data/--no-check-data",
    default=True,
    show_default=True,
    help="First check the annotation file; errors end the command.",
)
@click.option("--fast", is_flag=True, help="Compute with fast numerics: the same functions in less time and memory.")
@click.option("--work-dir", type=_FOLDER, help="Folder in which to keep mmengine's log. [default: it is not kept]")
@click.option("--force", is_flag=True, help="Replace --out, and accept a --show-dir that is not empty.")
@options(LAUNCHER, CFG_OPTIONS, *OUTPUT, VERBOSE)
@click.version_option(__version__, prog_name="ddq-eval")
def cli(**arguments: Any) -> int:
    """Evaluate CHECKPOINT (.pth or .safetensors) on the test data of CONFIG.

    CONFIG is a file or the name of an installed config.

    Metrics go to stdout, messages and the progress to stderr. Every option has an environment variable, for example
    DDQ_EVAL_CLASSWISE=1.
    """
    requirements.check()
    from ddq_port.training import evaluate

    return evaluate.command(**arguments)


def main() -> None:
    """Run the command line; the entry point of `ddq-eval`."""
    run_main(cli, "ddq-eval")


if __name__ == "__main__":
    main()

"""The command line `ddq-export`."""

from __future__ import annotations

from typing import Any

import click

from ddq_port import __version__, requirements
from ddq_port.training.output.console import CFG_OPTIONS, OUTPUT, Command, WritablePath, options, run_main

_EXIT_CODES = """\b
Exit codes:
  0  done
  1  the file was written and finds other objects than the model
  2  usage or bad input, a model that cannot be exported included
  70 a bug: the traceback says where"""


class Size(click.ParamType):
    """Height and width in pixels, as in 800x1216."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read it."""
        if isinstance(value, tuple):
            return value
        try:
            height, width = map(int, value.lower().split("x"))
        except ValueError:
            self.fail(f"{value} is no size; expected HxW in pixels, as in 800x1216.", param, ctx)
        if min(height, width) < 1:
            self.fail(f"{value} has no pixels; expected HxW in pixels, as in 800x1216.", param, ctx)
        return height, width


@click.command(
    cls=Command,
    epilog=_EXIT_CODES,
    context_settings=dict(help_option_names=["-h", "--help"], auto_envvar_prefix="DDQ_EXPORT"),
)
@click.argument("config")
@click.argument("checkpoint")
@click.argument("out", type=WritablePath(is_file=True))
@click.option("--size", type=Size(), help="Size of the images. [default: any, for models with a ResNet]")
@click.option(
    "--check/--no-check", default=True, show_default=True, help="Run the file and compare what it finds with the model."
)
@click.option("--force", is_flag=True, help="Replace OUT.")
@options(CFG_OPTIONS, *OUTPUT)
@click.version_option(__version__, prog_name="ddq-export")
def cli(**arguments: Any) -> int:
    """Write the DDQ-DETR of CONFIG with the weights of CHECKPOINT as one file, OUT.

    OUT ends in .onnx or .pt2 (torch.export). CONFIG is a file or the name of an installed config; CHECKPOINT is a .pth or
    .safetensors. All selections are inside; what takes the file scales images, and boxes back.
    """
    requirements.check()
    from ddq_port.export import command

    return command.command(**arguments)


def main() -> None:
    """Run the command line; the entry point of `ddq-export`."""
    run_main(cli, "ddq-export")


if __name__ == "__main__":
    main()

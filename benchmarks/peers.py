"""Side by side with other tools: the same errors, planted for each of them.

From the root of the repository, in an environment with what the tests need::

    pip install --no-deps pytest-torch==1.1.1
    python -m benchmarks.peers faults
"""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.group(context_settings=dict(help_option_names=["-h", "--help"]))
def cli() -> None:
    """Plant the same errors for this toolkit and for other tools, and print what each of them says."""


@cli.command()
@click.option("--each", type=click.IntRange(1), help="Errors of each group, at most. [default: 64 in all]")
@click.option("--rewrites", type=click.IntRange(0), default=16, show_default=True, help="Number of harmless rewrites.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default="peers.json", show_default=True,
    help="File of every finding, written after each; what it holds is not planted again.",
)
def faults(each: int | None, rewrites: int, out: Path) -> None:
    """Errors in a port of DDQ-DETR, and harmless rewrites of it: pytest-torch beside this toolkit."""
    try:
        import pytest_torch.divergence  # noqa: F401
    except ImportError as error:
        raise click.ClickException(f"{error}; pip install --no-deps pytest-torch==1.1.1") from error
    from .peer_faults import measure, table

    click.echo(table(measure(each, rewrites, out, lambda step: click.echo(step, err=True))))


if __name__ == "__main__":
    sys.exit(cli())

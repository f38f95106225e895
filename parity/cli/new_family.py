"""What ``ddq-parity new-family`` does: write a family that works, to begin from."""

from __future__ import annotations

import re
from pathlib import Path

import click

import legacy_adapters

from ..sides.settings import SettingsError
from .early import refusals
from .output import whole_folder

_TEMPLATE = Path(legacy_adapters.__file__).with_name("template")
_NAME = "NAME"


def write(folder: Path) -> tuple[str, ...]:
    """Write the template into ``folder`` and return the names of its files.

    Raises:
        SettingsError: if the folder holds something, or its name cannot be that of a family.
        OSError: if it cannot be written.
    """
    name = folder.resolve().name
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise SettingsError(
            f"{name!r} cannot be the name of a family; choose a folder named with letters, digits and _."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder} exists and holds something; choose a folder that does not exist, or is empty.")
    files = sorted(path for path in _TEMPLATE.iterdir() if path.suffix == ".py")
    with whole_folder(folder) as made:
        for path in files:
            text = path.read_text(encoding="utf-8").replace(f'"{_NAME}"', f'"{name}"')
            (made / path.name).write_text(text, encoding="utf-8")
    return tuple(path.name for path in files)


@click.command("new-family", epilog="""\b
Exit codes:
  0  written
  2  usage or bad input
  70 a bug in ddq-parity itself""")  # fmt: skip
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-q", "--quiet", is_flag=True, help="Do not say what comes next.")
def command(folder: Path, quiet: bool) -> None:
    """Write a template of a family into FOLDER.

    The template works as it is. Put the old code and your port into it, step by step.
    """
    with refusals():
        files = write(folder)
    if not quiet:
        click.echo(f"wrote {', '.join(files)} into {folder}")
        click.echo(f"try it:    ddq-parity run --family {folder}")
        click.echo("then put the old code into legacy.py, your port into new.py, their names into rules.py")

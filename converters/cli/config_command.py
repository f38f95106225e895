"""`ddq-convert config`: carry a config over, or compare two by what they mean."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.console import UNFIT, exit_codes
from converters.errors import OutputExistsError
from legacy_adapters import registry
from legacy_adapters.family import Family, FamilyError
from legacy_adapters.ground import files
from legacy_adapters.ground.console import DONE, message

if TYPE_CHECKING:
    from converters.configs.kinds import Migration


@click.command(
    epilog="""\b
Exit codes:
  0  written; with --check: nothing differs in meaning
  1  written, but it does not build; with --check: something differs
  2  usage or bad input (missing file, not a config, NEW exists)
"""
)
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path())
@click.option("--check", is_flag=True, help="Write nothing: compare OLD with NEW, which exists, and run nothing.")
@click.option("--family", metavar="NAME|FOLDER", help="Family whose configs they are. [default: the one that has some]")
@click.option("--no-build", is_flag=True, help="Do not build the model of the new config to see whether it can be.")
@click.option("--json", "as_json", is_flag=True, envvar="DDQ_CONVERT_CONFIG_JSON", help="Print the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors and the last line (and JSON with --json).")
@click.pass_context
def config(
    context: click.Context,
    old: str,
    new: str,
    check: bool,
    family: str | None,
    no_build: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write config OLD in the words of the new version to NEW; or compare the two.

    What cannot be translated is listed, with the reason. NEW is never replaced. With --check NEW may be any config of
    the new version, for example one that was written by hand: each setting that means something else is told, with its
    key in both files, both values, and what it does to results. Defaults of the classes count as written.
    """
    with exit_codes():
        of = _family(family)
        migration = registry.called(of, "configs")
        if check:
            is_fine = _check(migration, old, new, as_json, quiet)
        else:
            is_fine = _write(migration, of.reference, old, new, no_build, as_json, quiet)
    context.exit(DONE if is_fine else UNFIT)


def _family(name: str | None) -> Family:
    """Return the family that carries configs over.

    Raises:
        FamilyError: if the family has nothing for it, or none is named and several have.
    """
    able: list[Family] = [registry.get(name)] if name else [one for one in registry.every() if one.configs is not None]
    if len(able) != 1:
        names = ", ".join(one.name for one in able)
        found = (
            f"Several families carry configs over, {names}; pass --family."
            if able
            else "No family carries configs over."
        )
        raise FamilyError(found)
    if able[0].configs is None:
        raise FamilyError(f"Family {able[0].name} does not carry configs over; its models are listed by name.")
    return able[0]


def _check(migration: Migration, old: str, new: str, as_json: bool, quiet: bool) -> bool:
    from converters.cli import render_configs

    found = migration.compare(old, new)
    if as_json:
        click.echo(json.dumps(render_configs.as_dict(found), indent=2))
    elif quiet:
        click.echo(render_configs.verdict(found))
    else:
        click.echo("\n".join(render_configs.comparison_lines(found)))
    return not found.differences


def _write(migration: Migration, family: str, old: str, new: str, no_build: bool, as_json: bool, quiet: bool) -> bool:
    from converters.cli import render_configs
    from converters.configs.source import source

    path = Path(new)
    if os.path.lexists(path):
        raise OutputExistsError(f"{new} exists; name another file. A config is never replaced.")
    if path.suffix != ".py":
        raise FamilyError(f"{new} does not end in .py; a config is a Python file.")
    made = migration.translate(old)
    text = source(
        f"Written by `ddq-convert config` from {Path(old).name}.", made.config, render_configs.variables(made.config)
    )
    wrong: tuple[str, ...] = ()
    if not no_build:
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "config.py"
            draft.write_text(text, "utf-8")
            wrong = migration.vet(str(draft))
    try:
        files.write_whole(path, text, replace=False)
    except FileExistsError as error:
        raise OutputExistsError(f"{new} exists; name another file. A config is never replaced.") from error
    if not quiet:
        for line in render_configs.remark_lines(made.remarks):
            message(line)
    if as_json:
        remarks = [remark.as_dict() for remark in made.remarks]
        click.echo(
            json.dumps(
                dict(written=new, builds=None if no_build else not wrong, faults=list(wrong), remarks=remarks), indent=2
            )
        )
    else:
        click.echo(render_configs.written(family, old, new, made, wrong, no_build))
    return not wrong

"""The command `ddq-convert suggest`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from converters.cli.console import UNFIT, exit_codes
from legacy_adapters.ground.console import BAD_INPUT, DONE, Failure, message

_EXIT_CODES = """\b
Exit codes:
  0  every key of A and of B has a rule
  1  something is open or on one side only, or running both models does not
     prove the rules
  2  usage or bad input (missing file, not a checkpoint, output exists)
"""


@click.command(epilog=_EXIT_CODES)
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option(
    "--models",
    is_flag=True,
    help="A and B are Python files with `build()`, which returns an nn.Module, and perhaps `inputs()`, which returns "
    "what it is called with. Both models are run to tell what names do not tell, and to prove the rules.",
)
@click.option(
    "--out", metavar="FILE", type=click.Path(), help="Write the rules to FILE: .py, or JSON under another name."
)
@click.option("--key", "keys", metavar="K", multiple=True, help="Key of the state dict in A; give it again for B.")
@click.option("--prefix", "prefixes", metavar="P", multiple=True, help="Prefix of its keys in A; give it again for B.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option(
    "--json", "as_json", is_flag=True, envvar="DDQ_CONVERT_SUGGEST_JSON", help="Print the rules and all else as JSON."
)
@click.option("-q", "--quiet", is_flag=True, help="Print only errors (and JSON with --json).")
@click.option("-v", "--verbose", is_flag=True, help="List everything that is open or on one side only.")
@click.pass_context
def suggest(
    context: click.Context, a: str, b: str, models: bool, out: str | None, keys: tuple[str, ...],
    prefixes: tuple[str, ...], force: bool, as_json: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Propose rules from the keys of checkpoint A to those of checkpoint B.

    Equal numbers decide, where both hold the same weights; otherwise names, shapes and structure, where they leave one
    possibility. What is not certain is listed and has no rule.
    """
    path = None if out is None else Path(out)
    if path is not None and path.exists() and not force:
        raise Failure(f"The file {path} exists; pass --force to replace it.", BAD_INPUT)
    with exit_codes():
        from converters.suggesting import suggestion, telling
        from legacy_adapters.ground.files import write_whole

        if models:
            from converters.suggesting import models as by_models

            found = by_models.suggest_models(a, b)
        else:
            found = suggestion.suggest_files(a, b, _each(keys), _each(prefixes))
        if path is not None and found.proposals:
            write_whole(path, telling.file_text(found, path.suffix))
        is_old = path is not None and not found.proposals and path.exists()
        if is_old:
            path.unlink()  # rules of another run would look like those of this one
    if path is not None and not found.proposals:
        message(f"note: nothing is known, so {path} was {'removed' if is_old else 'not written'}")
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2, sort_keys=True))
    elif not quiet:
        click.echo(
            "\n".join([*telling.lines(found, verbose), telling.verdict(found, path if found.proposals else None)])
        )
    context.exit(DONE if found.is_complete else UNFIT)


def _each(given: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Return what is said of A and of B."""
    one, two, *_ = (*given, None, None)
    return one, two

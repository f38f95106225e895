"""``ddq-parity zoo``: its options, and what it does."""

from __future__ import annotations

import json as json_format
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from converters.errors import listed
from ddq_port import requirements
from legacy_adapters import registry
from legacy_adapters.family import Family, FamilyError

from .early import refusals
from .options import LEGACY, OUTPUT, having

EXIT_CODES = """\b
Exit codes:
  0  every config that both sides can run matches, or does once known
     deviations of the new code base are undone
  1  some config differs
  2  usage or bad input
  3  none differs, but some ran out of time or failed, or none matches
  70 a bug in ddq-parity itself"""
REPORT, TABLE = "zoo.json", "zoo.md"


@click.command("zoo", epilog=EXIT_CODES)
@click.option("--family", metavar="NAME|FOLDER", required=True, help="Family whose legacy side has the configs: mmdet2.")
@having(LEGACY[0])
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of results; goes on from what is there.")
@click.option("--all", "every", is_flag=True, help="Try all configs. [default: one for each kind of model]")
@click.option("--only", multiple=True, metavar="PATTERN", help="Try configs whose name fits, with wildcards. May be repeated.")
@click.option("--list", "lists", is_flag=True, help="Print what would be tried, and nothing else.")
@click.option(
    "--check", default="forward", show_default=True, metavar="CHECK,...", help="What to compare: forward, loss, grad."
)
@click.option("--whole-width", is_flag=True, help="Leave all layers as wide as they are. [default: a quarter, where it can be set]")
@click.option(
    "--exact-only", is_flag=True,
    help="Compare bit by bit alone, which is quick; what differs in rounding then counts as a difference.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of weights and inputs.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Number of CPU threads of a side.")
@click.option(
    "--limit", type=click.FloatRange(min=0, min_open=True), default=1800.0, show_default=True,
    help="Longest time of one config, in seconds.",
)  # fmt: skip
@having(*OUTPUT)
def command(json: bool, quiet: bool, **arguments: Any) -> None:
    """Try the configs that come with a legacy code base, one after the other.

    Each is written in the words of the new version, as `ddq-convert config` does; both models are built, given the same
    weights and small images, and compared: first bit by bit, then under derived tolerance, then with known deviations of
    the new code base undone. Each is tried in a process of its own. A walk that was stopped goes on when it is started
    again with the same --out, which takes zoo.json and the table zoo.md.
    """
    with refusals():
        requirements.check()
        family = registry.get(arguments.pop("family"))
        repo, checks = arguments.pop("legacy_repo"), _checks(arguments.pop("check"))
        sys.exit(_run(family, repo, checks, json, quiet, **arguments))


def _checks(text: str) -> tuple[str, ...]:
    checks = tuple(word.strip() for word in text.split(",") if word.strip())
    wrong = [word for word in checks if word not in ("forward", "loss", "grad")]
    if wrong or not checks:
        raise click.BadParameter(f"--check {text} is none of forward, loss, grad.")
    return checks


def _run(
    family: Family, repo: Path | None, checks: tuple[str, ...], as_json: bool, quiet: bool, *, out: Path | None, every: bool,
    only: tuple[str, ...], lists: bool, whole_width: bool, exact_only: bool, seed: int, threads: int, limit: float,
) -> int:  # fmt: skip
    if family.zoo is None:
        raise FamilyError(f"Family {family.name} has no zoo of configs; its models are listed by name.")
    if repo is None:
        raise FamilyError(f"The configs of family {family.name} lie in its legacy code; name it with --legacy-repo.")
    family.check_repo(repo)

    def is_wanted(name: str) -> bool:
        return not only or any(fnmatchcase(name, pattern.removesuffix(".py") + ".py") for pattern in only)

    entries = registry.called(family, "zoo").entries(repo.resolve(), is_wanted)
    chosen = [one for one in entries if only or every or one.is_pick]
    if not chosen:
        raise FamilyError(f"No config in {repo} fits {listed(only) if only else 'a model'}; --list --all names them.")
    if lists:
        click.echo("\n".join(f"{one.name}  {one.architecture}" for one in chosen))
        return 0
    if out is None:
        raise click.BadParameter("Pass --out FOLDER, which takes the results.")
    out.mkdir(parents=True, exist_ok=True)

    from ..zoo import result, table, walking
    from ..zoo.request import Request
    from ..zoo.result import Result

    requests = [
        Request(
            family.reference, str(repo.resolve()), one.name, one.architecture, not whole_width, checks, seed, threads, limit,
            exact_only, one.lacking,
        )
        for one in chosen
    ]  # fmt: skip

    def say(place: str, one: Result, was_there: bool) -> None:
        if not quiet and not as_json:
            click.echo("\n".join(table.lines(one)))
        if not quiet:
            told = "done before" if was_there else f"{one.seconds:.0f} s"
            click.echo(f"[{place}] {one.name}: {told}", err=True)

    found = walking.walk(requests, out, limit, say)
    from legacy_adapters.ground.files import write_whole

    data = json_format.dumps(table.as_dict(found), indent=1) + "\n"
    write_whole(out / REPORT, data)
    write_whole(out / TABLE, table.markdown(found))
    click.echo(data if as_json else table.closing_line(found), nl=not as_json)
    return {result.MATCH: 0, result.MISMATCH: 1, result.INCOMPARABLE: 3}[table.verdict(found)]

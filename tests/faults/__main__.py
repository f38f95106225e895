"""Measure the fault suite: ``python -m tests.faults``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .fault import PLACES, Fault, Rewrite


@click.command()
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes to measure in.")
@click.option("--place", type=click.Choice(PLACES), help="Only what is planted there.")
@click.option("--fault", "names", multiple=True, help="Only this fault or rewrite; may be repeated.")
@click.option("--added", is_flag=True, help="Of the faults only those that were added to the first suite.")
@click.option("--faults/--no-faults", "with_faults", default=True, help="Measure the faults.")
@click.option("--rewrites/--no-rewrites", "with_rewrites", default=True, help="Measure the harmless rewrites.")
@click.option("--clean/--no-clean", "with_clean", default=True, help="Do the clean runs.")
@click.option("--log", type=click.Path(path_type=Path), help="Add a line of JSON for each fault to this file.")
@click.option("-v", "--verbose", is_flag=True, help="List the kinds and the quiet faults, too.")
def main(
    workers: int,
    place: str | None,
    names: tuple[str, ...],
    added: bool,
    with_faults: bool,
    with_rewrites: bool,
    with_clean: bool,
    log: Path | None,
    verbose: bool,
) -> None:
    """Plant every fault and make every harmless rewrite, do the clean runs, print the figures.

    Exit code 0 if every fault is detected, 95 % of all and 97 % of the added ones are named at the very place, none is
    diagnosed as something else, and neither a rewrite nor a clean run raised an alarm, else 1.
    """
    from .catalogue import FAULTS, NEW, PLANTED, REWRITES
    from .clean import cases
    from .suite import Summary, check_all, measure_all, pool

    unknown = [name for name in names if name not in PLANTED]
    if unknown:
        raise click.BadParameter(f"There is no fault or rewrite {unknown[0]!r}.", param_hint="--fault")

    def wanted(one: Fault | Rewrite) -> bool:
        return place in (None, one.place) and (not names or one.name in names)

    faults = [one for one in FAULTS.values() if with_faults and wanted(one) and (not added or one.name in NEW)]
    rewrites = [one for one in REWRITES.values() if with_rewrites and wanted(one)]
    with pool(workers) as started:
        measured = measure_all(started, [*faults, *rewrites], _tell, log)
        runs, alarms = check_all(started, cases() if with_clean else [], _tell)
    summary = Summary(faults, measured, runs, alarms, rewrites, NEW)
    for line in summary.lines():
        click.echo(line)
    if verbose:
        click.echo("kinds")
        for line in summary.kinds():
            click.echo(line)
        click.echo("quiet: " + ", ".join(summary.quiet))
    sys.exit(0 if summary.good else 1)


def _tell(step: str) -> None:
    click.echo(step, err=True)


if __name__ == "__main__":
    main()

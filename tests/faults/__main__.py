"""Measure the fault suite: ``python -m tests.faults``."""

from __future__ import annotations

import sys

import click

from .fault import MODEL, TRACE, TRAINING, WEIGHTS


@click.command()
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes to measure in.")
@click.option(
    "--place", type=click.Choice([MODEL, WEIGHTS, TRACE, TRAINING]), help="Only faults that are planted there."
)
@click.option("--fault", "names", multiple=True, help="Only this fault; may be repeated.")
@click.option("--faults/--no-faults", "with_faults", default=True, help="Measure the faults.")
@click.option("--clean/--no-clean", "with_clean", default=True, help="Do the clean runs.")
@click.option("-v", "--verbose", is_flag=True, help="List the kinds and the quiet faults, too.")
def main(
    workers: int, place: str | None, names: tuple[str, ...], with_faults: bool, with_clean: bool, verbose: bool
) -> None:
    """Plant every fault under exact and derived tolerance, do the clean runs, print the figures.

    Exit code 0 if every fault is detected, 95 % are named at the very place and no clean run raised an alarm, else 1.
    """
    from .catalogue import FAULTS
    from .clean import cases
    from .suite import Summary, check_all, measure_all, pool

    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise click.BadParameter(f"There is no fault {unknown[0]!r}.", param_hint="--fault")
    chosen = [f for f in FAULTS.values() if place in (None, f.place) and (not names or f.name in names)]
    with pool(workers) as started:
        measured = measure_all(started, chosen if with_faults else [], _tell)
        runs, alarms = check_all(started, cases() if with_clean else [], _tell)
    summary = Summary(chosen if with_faults else [], measured, runs, alarms)
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

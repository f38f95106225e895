"""What ``ddq-parity rehearse`` does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from converters.rules.ports import port
from ddq_port.data.own import OwnDataError
from legacy_adapters import registry
from legacy_adapters.family import FamilyError, Rehearsal
from legacy_adapters.ground.console import message
from legacy_adapters.ground.files import write_whole

from ..rehearsal import judging, new_configs, plan, report
from ..rehearsal.running import StageError, environment_of, run_all
from ..rehearsal.setup import Setup
from ..runs.run import check_legacy
from ..sides.settings import Machine, Sources
from ..sides.sides import with_layouts
from ..verdict.outcome import EXIT_CODES
from .console import SIDE_CRASHED, complain, done, written
from .trace_commands import INPUT_ERRORS

MARKER = "rehearsal.json"
_LAYOUTS_WITHIN = 600.0  # seconds


def run(
    *, family: str, config: str | None, data: tuple[Path, Path] | None, val_data: tuple[Path, Path] | None, seeds: int,
    steps: int | None, new_set: tuple[str, ...], out: Path, jobs: int, threads: int, device: str, dry_run: bool,
    legacy_repo: Path | None, legacy_python: str | None, require_known_commit: bool, as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Run all stages that are not done, print the verdict and return the exit code.

    Args:
        family: name or folder.
        config: name of a rehearsal of the family; None for the first.
        data: as in :class:`Setup`, like ``val_data``, ``seeds``, ``jobs``, ``threads`` and ``device``; None for shapes.
        val_data: see there.
        seeds: see there.
        steps: see there; None for the rehearsal's own.
        new_set: see there.
        out: folder of everything.
        jobs: see there.
        threads: see there.
        device: see there.
        dry_run: print the stages only.
        legacy_repo: as in :class:`Sources`, like the next two.
        legacy_python: see there.
        require_known_commit: see there.
        as_json: print JSON.
        quiet: print the verdict line only.
    """

    def say(text: str) -> None:
        if not quiet:
            message(text)

    def work() -> int:
        sources = Sources(legacy_repo, legacy_python, None, None, require_known_commit)
        found = registry.get(family)
        check_legacy(found, sources)
        machine = Machine(device, threads, None, _LAYOUTS_WITHIN)
        rehearsal = _rehearsal(found.name, found.rehearsals, config)
        folder = out.absolute()
        drawn = folder / "data"
        setup = Setup(
            folder=folder, port=with_layouts(port(family, rehearsal.variant.name), sources, machine), rehearsal=rehearsal,
            repo=legacy_repo and legacy_repo.resolve(), python=legacy_python,
            data=_absolute(data) or (drawn / "annotations" / "train.json", drawn / "train"),
            val_data=_absolute(val_data) or (drawn / "annotations" / "val.json", drawn / "val"),
            draws=data is None, seeds=seeds, steps=steps or rehearsal.steps, jobs=jobs, threads=threads, device=device,
            new_settings=new_set, expected_ap=rehearsal.expected_ap if data is None and steps is None else None,
        )  # fmt: skip
        if dry_run:
            for stage in plan.stages(setup):
                print(f"# {stage.name}: {stage.title}\n{stage.line}")
            return 0
        return _rehearse(setup, say, as_json, quiet)

    code, failed = done(work, (*INPUT_ERRORS, OwnDataError, ValueError))
    return failed if code is None else code


def _rehearse(setup: Setup, say: Any, as_json: bool, quiet: bool) -> int:
    _claim(setup.folder)
    stages, environment = plan.stages(setup), environment_of(setup.threads, setup.device)
    try:
        if setup.draws:  # the configs of the new side name the classes of the data
            run_all(setup.folder, stages[:1], 1, environment, lambda text: None)
        new_configs.write(setup)
        marks = run_all(setup.folder, stages, setup.jobs, environment, say)
    except StageError as error:
        complain(str(error), error.details)
        return SIDE_CRASHED
    found = judging.findings(setup)
    report.write(setup, stages, marks, found)
    line = judging.closing_line(found, marks)

    def render() -> None:
        if as_json:
            sys.stdout.write((setup.folder / report.DATA).read_text())
            return
        for finding in [] if quiet else found:
            print(f"{finding.outcome:<12} {finding.stage}: {finding.claim}: {finding.evidence}")
        print(line)

    written(render)
    say(f"wrote {setup.folder / report.PAGE}")
    return EXIT_CODES[judging.outcome(found)]


def _rehearsal(family: str, known: tuple[Rehearsal, ...], name: str | None) -> Rehearsal:
    for rehearsal in known:
        if name in (None, rehearsal.name):
            return rehearsal
    names = ", ".join(rehearsal.name for rehearsal in known) or "none"
    raise FamilyError(f"Family {family} has no rehearsal{f' {name}' if name else ''}; known are {names}.")


def _claim(folder: Path) -> None:
    """Make the folder of a rehearsal, or refuse one that holds something else."""
    marker = folder / MARKER
    if folder.is_dir() and any(folder.iterdir()) and not marker.is_file():
        raise FileExistsError(f"{folder} is not empty and holds no rehearsal; choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(marker, json.dumps(dict(kind="rehearsal")) + "\n")


def _absolute(pair: tuple[Path, Path] | None) -> tuple[Path, Path] | None:
    return None if pair is None else (pair[0].absolute(), pair[1].absolute())

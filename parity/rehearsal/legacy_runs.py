"""Whole trainings and tests of the legacy side, in a process of its own: `ddq-parity train-legacy` and `test-legacy`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from converters.rules.ports import Port
from legacy_adapters.ground.words import counted
from legacy_adapters.job import Job
from legacy_adapters.launch import RefusedError, run_side
from legacy_adapters.whole import own_files
from legacy_adapters.whole.request import OUTCOME, TEST, TRAIN, Outcome, WholeTest, WholeTraining

from ..sides.settings import Machine, Sources
from ..sides.shared import foreign
from ..sides.sides import legacy_code

SIDE = "legacy"


def train(
    port: Port, sources: Sources, machine: Machine, request: WholeTraining, resume: bool, say: Callable[[str], None]
) -> Outcome:
    """Train the legacy side in ``request.work_dir`` and return what came out.

    Args:
        port: the model.
        sources: legacy code.
        machine: where.
        request: what to train; its options are filled in here.
        resume: go on from the newest checkpoint of the work dir, if there is one; a training that is done is not
            repeated.
        say: is told from where the training goes on.

    Raises:
        RefusedError: if the work dir holds another training, or the family's adapter cannot train as a whole.
        legacy_adapters.launch.SideError: if it crashes.
    """
    folder = Path(request.work_dir)
    if not resume and request.resume is None and folder.is_dir() and any(folder.glob("iter_*.pth")):
        raise RefusedError(f"{folder} holds checkpoints of a training; pass --resume, or choose another --work-dir.")
    if resume:
        if (folder / OUTCOME).is_file():
            say(f"{folder} holds a training that is done")
            return outcome_of(folder)
        if (own := own_files.newest(str(folder))) is not None:
            say(f"goes on from {own}")
            request = replace(request, resume=own, trusted=True)
    return _run(port, sources, machine, TRAIN, request)


def test(port: Port, sources: Sources, machine: Machine, request: WholeTest) -> Outcome:
    """Test a checkpoint of the legacy layout by the legacy side; arguments and errors as of :func:`train`."""
    return _run(port, sources, machine, TEST, request)


def outcome_of(folder: Path) -> Outcome:
    """Return what a training or test left in its work dir.

    Raises:
        OSError: if it is not done.
    """
    told = json.loads((folder / OUTCOME).read_text())
    return Outcome(told["metrics"], told["steps"], told["checkpoint"])


def provenance_of(folder: Path) -> dict[str, Any]:
    """Return which code a training or test ran, and where."""
    return json.loads((folder / OUTCOME).read_text())["provenance"]


def lines(outcome: Outcome) -> list[str]:
    """Say what came out; the first line tells what was done."""
    done = f"TRAINED {counted(outcome.steps, 'step')}" if outcome.steps else "TESTED"
    return [f"{done} -> {outcome.checkpoint}", *(f"{name:<22} {value:.4g}" for name, value in outcome.metrics.items())]


def _run(port: Port, sources: Sources, machine: Machine, kind: str, request: WholeTraining | WholeTest) -> Outcome:
    code, folder = legacy_code(port, sources), Path(request.work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OUTCOME).unlink(missing_ok=True)
    request = replace(request, options=code.options)
    job = Job(
        family=port.family.name,
        variant=port.variant.name,
        adapter=str(code.adapter),
        title=code.title,
        options=code.options,
        weights="",
        inputs="",
        trace="",
        status=str(folder / "status.json"),
        checks=(),
        seed=0,
        threads=machine.threads,
        cpu_capability=machine.cpu_capability,
        device=machine.device,
        foreign=foreign(port.family, sources.new_side(port.family).adapter, sources.legacy_repo),
        whole=dict(kind=kind, request=asdict(request)),
    )
    run_side(SIDE, job, folder, code.python, machine.time_limit, code.other_python)
    return outcome_of(folder)

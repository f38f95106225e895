"""What ``ddq-parity train-legacy`` and ``ddq-parity test-legacy`` do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from converters.rules.ports import Port
from legacy_adapters.ground.console import message
from legacy_adapters.whole.request import Outcome, WholeTest, WholeTraining

from ..rehearsal import legacy_runs
from ..runs.run import check_legacy
from ..sides.settings import Sources
from ..sides.sides import check_device
from .commands import machine_of
from .console import done, written
from .trace_commands import INPUT_ERRORS


def train(
    *, port: Port, data: tuple[Path, Path], val_data: tuple[Path, Path], work_dir: Path, seed: int, resume: bool,
    resume_from: Path | None, start_to: Path | None, stop_at: int | None, settings: tuple[str, ...],
    trust_checkpoint: bool, legacy_repo: Path | None, legacy_python: str | None, require_known_commit: bool,
    as_json: bool, quiet: bool, **machine: Any,
) -> int:  # fmt: skip
    """Train the legacy side and print what came out. Return the exit code.

    Args:
        port: the model.
        data: as in :class:`WholeTraining`, like ``val_data``, ``work_dir``, ``seed``, ``start_to``, ``stop_at`` and
            ``settings``.
        val_data: see there.
        work_dir: see there.
        seed: see there.
        resume: go on from the newest checkpoint of the work dir.
        resume_from: go on from this one.
        start_to: see :class:`WholeTraining`.
        stop_at: see there.
        settings: see there.
        trust_checkpoint: load ``resume_from`` although it holds objects.
        legacy_repo: as in :class:`Sources`, like the next two.
        legacy_python: see there.
        require_known_commit: see there.
        as_json: print JSON.
        quiet: print the outcome only.
        **machine: the fields of :class:`Machine`.
    """
    request = WholeTraining(
        options={}, work_dir=_absolute(work_dir), data=_pair(data), val_data=_pair(val_data), seed=seed, stop_at=stop_at,
        device=machine["device"], resume=_absolute(resume_from), trusted=trust_checkpoint, start_to=_absolute(start_to),
        settings=settings,
    )  # fmt: skip
    sources, where = Sources(legacy_repo, legacy_python, None, None, require_known_commit), machine_of(machine)

    def work() -> Outcome:
        check_legacy(port.family, sources)
        check_device(where)
        return legacy_runs.train(port, sources, where, request, resume, lambda text: None if quiet else message(text))

    return _told(work, as_json)


def test(
    *, port: Port, val_data: tuple[Path, Path], work_dir: Path, checkpoint: Path, settings: tuple[str, ...],
    trust_checkpoint: bool, legacy_repo: Path | None, legacy_python: str | None, require_known_commit: bool,
    as_json: bool, quiet: bool, **machine: Any,
) -> int:  # fmt: skip
    """Test a checkpoint by the legacy side and print what came out; arguments as of :func:`train`."""
    request = WholeTest(
        options={}, work_dir=_absolute(work_dir), val_data=_pair(val_data), checkpoint=_absolute(checkpoint),
        device=machine["device"], trusted=trust_checkpoint, settings=settings,
    )  # fmt: skip
    sources, where = Sources(legacy_repo, legacy_python, None, None, require_known_commit), machine_of(machine)

    def work() -> Outcome:
        check_legacy(port.family, sources)
        check_device(where)
        return legacy_runs.test(port, sources, where, request)

    return _told(work, as_json)


def _told(work: Callable[[], Outcome], as_json: bool) -> int:
    outcome, code = done(work, INPUT_ERRORS)
    if outcome is None:
        return code
    text = json.dumps(asdict(outcome), indent=1, sort_keys=True) if as_json else "\n".join(legacy_runs.lines(outcome))
    written(lambda: print(text, file=sys.stdout))
    return 0


def _pair(data: tuple[Path, Path]) -> tuple[str, str]:
    return str(data[0].absolute()), str(data[1].absolute())


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())

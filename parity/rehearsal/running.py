"""Run the stages of a rehearsal, some side by side, and tell how far they are."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from legacy_adapters.ground.words import counted
from legacy_adapters.whole import steplog

from .stages import LOGS, Mark, Stage, begin, keys, read_marks, ready, write_mark

_POLL, _SAY_EVERY = 0.2, 30.0  # seconds
_TAIL = 12  # lines of a log
_PR_SET_PDEATHSIG = 1


class StageError(Exception):
    """A stage failed.

    Attributes:
        details: the last lines of its log.
    """

    def __init__(self, stage: Stage, code: int, log: Path) -> None:
        super().__init__(
            f"Stage {stage.name} ended with exit code {code}, expected {' or '.join(map(str, stage.accepts))}; its log "
            f"is {log}. Mend what it tells and start the rehearsal again: it goes on from here."
        )
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        self.details = "\n".join([line for line in lines if line.strip()][-_TAIL:])


@dataclass
class _Running:
    stage: Stage
    process: subprocess.Popen
    began: float
    first: int  # step that it went on from


def run_all(
    folder: Path, stages: Sequence[Stage], jobs: int, threads: int, say: Callable[[str], None]
) -> dict[str, Mark]:
    """Do what is not done yet. Return the marks of all stages.

    Args:
        folder: of the rehearsal, which exists.
        stages: in an order in which they can be done.
        jobs: how many to run side by side.
        threads: of each, on the CPU.
        say: is told what begins, how far it is, what is done.

    Raises:
        StageError: of the first stage that fails; those beside it are ended.
    """
    done, names = read_marks(folder, stages), keys(stages)
    for stage in stages:
        if stage.name in done:
            say(f"{stage.name}: done before, {done[stage.name].seconds:.0f} s")
    running: list[_Running] = []
    (folder / LOGS).mkdir(exist_ok=True)
    told = time.monotonic()
    try:
        while len(done) < len(stages):
            for stage in ready(stages, done, [item.stage.name for item in running])[: jobs - len(running)]:
                say(f"{stage.name}: {stage.title}\n  {stage.line}")
                begin(folder, stage, names[stage.name])
                running.append(_begin(folder, stage, threads))
            time.sleep(_POLL)
            for item in [item for item in running if item.process.poll() is not None]:
                running.remove(item)
                seconds = time.monotonic() - item.began
                done[item.stage.name] = _ended(folder, item, names[item.stage.name], seconds)
                say(f"{item.stage.name}: done in {seconds:.0f} s, {len(done)} of {counted(len(stages), 'stage')}")
            if running and time.monotonic() - told >= _SAY_EVERY:
                told = time.monotonic()
                say(progress(stages, done, [(item.stage, item.first, told - item.began) for item in running], jobs))
    finally:
        for item in running:
            _end(item.process)
    return done


def progress(
    stages: Sequence[Stage], done: Mapping[str, Mark], running: Sequence[tuple[Stage, int, float]], jobs: int
) -> str:
    """Say in a line how far the stages are that run, and how long all of them will take.

    The estimate counts the steps of trainings alone, at the pace of those that run; everything else is short.

    Args:
        stages: all.
        done: those that are done.
        running: each with the step it went on from and the seconds since.
        jobs: how many run side by side.
    """
    parts, taken, seconds, left = [], 0, 0.0, 0
    at = {stage.name: steplog.count(str(stage.follow)) if stage.follow else 0 for stage, _, _ in running}
    for stage, first, since in running:
        if stage.steps:
            parts.append(f"{stage.name} step {at[stage.name]} of {stage.steps}")
            taken, seconds = taken + max(at[stage.name] - max(first, stage.first), 0), seconds + since
        else:
            parts.append(stage.name)
    for stage in stages:
        if stage.name not in done and stage.steps:
            left += stage.steps - max(stage.first, at.get(stage.name, 0))
    line = ", ".join(parts)
    if not (taken and left):
        return line
    beside = min(jobs, sum(stage.steps > 0 for stage in stages if stage.name not in done))
    return f"{line}; about {left * seconds / taken / beside / 60:.0f} min left for all trainings"


def _begin(folder: Path, stage: Stage, threads: int) -> _Running:
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(threads)
    first = steplog.count(str(stage.follow)) if stage.follow else 0
    with open(folder / LOGS / f"{stage.name}.log", "ab") as log:
        process = subprocess.Popen(
            stage.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
            start_new_session=True, preexec_fn=_end_with_parent,
        )  # fmt: skip
    return _Running(stage, process, time.monotonic(), first)


def _ended(folder: Path, item: _Running, key: str, seconds: float) -> Mark:
    code, log = item.process.returncode, folder / LOGS / f"{item.stage.name}.log"
    if code not in item.stage.accepts or not all(path.exists() for path in item.stage.writes):
        raise StageError(item.stage, code, log)
    mark = Mark(key, code, round(seconds, 1))
    write_mark(folder, item.stage, mark)
    return mark


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def _end_with_parent() -> None:
    """Let the kernel terminate a stage whose rehearsal was killed, so that none goes on beside the next one (Linux)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):
        pass

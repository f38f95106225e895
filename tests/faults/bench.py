"""Measure a fault: what the parity engine says of it under exact and under derived tolerance."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from legacy_adapters.launch import SideError
from parity.comparing.compare import DERIVED, EXACT, Comparison
from parity.comparing.pairing import NEW, DuplicateRecordError
from parity.traces.trace import Trace, TraceError
from parity.verdict.verdict import MATCH, Verdict

from .edits import Edit
from .fault import CHECKPOINT, PACKAGE, REFUSED, TRACE, VARIABLE, WEIGHTS, Fault, Rewrite
from .ground import Ground, NewSide, task_of

TOLERANCES = (EXACT, DERIVED)
CRASH = "CRASH"
MISSED, MISNAMED, NAMED = "missed", "misnamed", "named"
SILENT, ALARM = "silent", "false alarm"
#: What the adapter can plant by itself while it builds the model and the training.
ADAPTER = Path(__file__).with_name("adapter.py")
ROOT = Path(__file__).parents[2]
_COMMAND_LIMIT = 600.0  # seconds


@dataclass(frozen=True)
class Finding:
    """What the engine said of one fault under one tolerance.

    Attributes:
        outcome: the verdict; ``REFUSED`` if the trace was not accepted as input; ``CRASH`` if the side crashed.
        where: first place that was named; empty if none was.
        message: the sentence that goes with it, or why it was refused.
        diagnoses: kind and text of what the difference is said to be, and where in the tensor.
    """

    outcome: str
    where: str
    message: str
    diagnoses: tuple[tuple[str, str], ...] = ()

    def judged(self, fault: Fault | Rewrite) -> str:
        """Tell whether ``fault`` was missed (it did not end as such a fault must), misnamed, or named.

        A rewrite stays silent, or it is a false alarm.
        """
        if isinstance(fault, Rewrite):
            return SILENT if self.outcome == MATCH else ALARM
        if self.outcome != fault.outcome:
            return MISSED
        if not self.where:  # a trace that is refused, or compared with another task's, has no first difference
            found = fault.place in (TRACE, CHECKPOINT) and fault.where in self.message
        else:
            found = self.where == fault.where and fault.says in self.message
        return NAMED if found else MISNAMED


@dataclass(frozen=True)
class Measurement:
    """All that was seen of one fault.

    Attributes:
        name: of the fault.
        findings: by tolerance.
        shift: by how much mean and standard deviation of the first differing record moved, the larger of the two;
            None if they cannot be compared.
        seconds: that it took.
    """

    name: str
    findings: Mapping[str, Finding]
    shift: float | None
    seconds: float


def tolerances_of(fault: Fault | Rewrite) -> tuple[str, ...]:
    """Return the tolerances under which a fault must be named, or a rewrite must stay silent."""
    return (DERIVED,) if isinstance(fault, Rewrite) and not fault.keeps_bits else TOLERANCES


class Bench:
    """Measures faults in ``folder``; a setting is recorded when it is first needed.

    Use it after :func:`tests.warm.execute.use_forks`, else every side takes a process from scratch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._grounds: dict[tuple[str, str], Ground] = {}

    def measure(self, fault: Fault | Rewrite) -> Measurement:
        """Plant ``fault`` and compare under both tolerances, a rewrite that rounds otherwise under derived only."""
        start = time.monotonic()
        seen = {tolerance: self.see(fault, tolerance) for tolerance in tolerances_of(fault)}
        findings = {tolerance: finding for tolerance, (finding, _) in seen.items()}
        _, shift = seen.get(EXACT, (None, None))
        return Measurement(fault.name, findings, shift, time.monotonic() - start)

    def see(self, fault: Fault | Rewrite, tolerance: str) -> tuple[Finding, float | None]:
        """Plant ``fault`` and compare; return what was found and, of live traces, the shift of :class:`Measurement`."""
        try:
            if fault.place == PACKAGE:
                return self._command(fault, tolerance), None
            if fault.place == CHECKPOINT:
                return self._degenerate(fault, tolerance), None
            ground = self._ground(fault.setting, tolerance)
            with self._planted(ground, fault) as new:
                verdict = ground.judge(new)
                return _finding(verdict), _shift(verdict, ground.legacy, new.trace) if tolerance == EXACT else None
        except (TraceError, DuplicateRecordError) as error:
            return Finding(REFUSED, "", str(error)), None
        except SideError as error:
            return Finding(CRASH, "", f"{error} {error.details}"), None
        except Exception:  # an error of the engine is a finding, too, and must not end the other measurements
            return Finding(CRASH, "", traceback.format_exc()), None

    def _command(self, fault: Fault, tolerance: str) -> Finding:
        """Run ``ddq-parity run`` in processes from scratch, with a copy of the package that has the fault."""
        work = self.folder / "work"
        try:
            shutil.copytree(ROOT / "ddq_port", work / "ddq_port", ignore=shutil.ignore_patterns("__pycache__"))
            fault.apply(work / "ddq_port")
            return _commanded(fault, tolerance, work, python_path=work)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _degenerate(self, fault: Fault, tolerance: str) -> Finding:
        """Run both sides on changed weights."""
        work = self.folder / "work"
        work.mkdir()
        try:
            weights = _weights(self._ground(fault.setting, EXACT), fault, work, counters=True)
            ground = Ground.live(task_of(fault.setting), tolerance, work / "ground", checkpoint=weights)
            with ground.run() as new:
                return _finding(ground.judge(new))
        except SideError:  # of the legacy side, on what it had computed: `run` goes on with what it recorded
            return _commanded(fault, tolerance, work, "--checkpoint", str(weights))
        finally:
            shutil.rmtree(work)

    def _ground(self, setting: str, tolerance: str) -> Ground:
        key = (setting, tolerance)
        if key not in self._grounds:
            self._grounds[key] = Ground.record(setting, tolerance, self.folder / "-".join(key))
        return self._grounds[key]

    @contextmanager
    def _planted(self, ground: Ground, fault: Fault | Rewrite) -> Iterator[NewSide]:
        work = self.folder / "work"
        work.mkdir()
        try:
            if fault.place == TRACE:
                yield _edited(ground.clean, fault, work / "edited")
            elif fault.place == WEIGHTS:
                with ground.run(weights=str(_weights(ground, fault, work))) as new:
                    yield new
            else:
                with mock.patch.dict(os.environ, {VARIABLE: fault.name}), ground.run(adapter=str(ADAPTER)) as new:
                    yield new
        finally:
            shutil.rmtree(work)


def _commanded(fault: Fault, tolerance: str, folder: Path, *more: str, python_path: Path = ROOT) -> Finding:
    """Say what ``ddq-parity run`` finds in the setting of a fault, in processes from scratch that start in ``folder``."""
    task = task_of(fault.setting)
    sizes = ",".join(f"{height}x{width}" for height, width in task.sizes)
    command = [sys.executable, "-m", "parity", "run", "--family", task.port.family.name, "--variant", task.port.variant.name]
    command += ["--size", sizes, "--threads", "1", "--tolerance", tolerance, "--json", *more]
    path = os.pathsep.join([str(python_path), str(ROOT)])
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        timeout=_COMMAND_LIMIT, check=False,
    )  # fmt: skip
    if not done.stdout.startswith("{"):
        return Finding(CRASH, "", done.stderr)
    verdict = json.loads(done.stdout)
    first = verdict["first_divergence"] or {"where": "", "message": " ".join(verdict["reasons"])}
    said = tuple((one["kind"], one["text"]) for one in verdict.get("diagnoses", ()))
    return Finding(verdict["verdict"], first["where"], first["message"], said)


def _edited(clean: NewSide, fault: Fault, folder: Path) -> NewSide:
    edit = Edit(clean.trace)
    fault.apply(edit)
    edit.write(folder)
    trace = Trace.load(folder)
    trace.verify()
    return NewSide(trace, clean.reference)


def _weights(ground: Ground, fault: Fault, work: Path, counters: bool = False) -> Path:
    """Write changed weights; with the ``counters`` of batches, which a checkpoint has and seeded weights have not."""
    state = load_file(str(ground.sides.folder / f"{NEW}.weights.safetensors"))
    fault.apply(state)
    if counters:
        means = [name for name in state if name.endswith("running_mean")]
        state |= {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in means}
    save_file(state, str(work / "weights.safetensors"))
    return work / "weights.safetensors"


def _finding(verdict: Verdict) -> Finding:
    divergence = verdict.divergence
    if divergence is None:
        return Finding(verdict.outcome, "", " ".join(verdict.reasons))
    said = tuple((str(one.kind), one.text) for one in verdict.explanation.diagnoses)
    return Finding(verdict.outcome, divergence.where, divergence.message, said)


def _shift(verdict: Verdict, legacy: Trace, new: Trace) -> float | None:
    first: Comparison | None = verdict.divergence.comparison if verdict.divergence else None
    if first is None:
        return None
    return shift(legacy.tensor(first.pair.legacy), new.tensor(first.pair.new))


def shift(expected: Tensor, found: Tensor) -> float | None:
    """Return by how much mean and standard deviation differ, the larger of the two.

    Both absolute and in standard deviations of ``expected``, whichever is more, so that neither small numbers nor
    large ones hide a change. None for fewer than two elements, other shapes and dtypes, and what is not finite.
    """
    if expected.numel() < 2 or (expected.shape, expected.dtype) != (found.shape, found.dtype):
        return None
    one, two = expected.double(), found.double()
    moved = max(abs((one.mean() - two.mean()).item()), abs((one.std() - two.std()).item()))
    spread = one.std().item()
    worst = max(moved, moved / spread) if spread else float("inf")
    return worst if worst < float("inf") else None

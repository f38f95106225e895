"""Make a mistake on the new side and see what the parity engine says of it, beside a real MMDetection 2.x."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from unittest import mock

import torch

from converters.errors import ConversionError
from converters.rules.ports import Port, port
from legacy_adapters.family import of_configs
from legacy_adapters.inputs import PREDICT
from legacy_adapters.job import Job
from legacy_adapters.launch import SideError, run_side
from parity.comparing.compare import EXACT, FIXED, Tolerance
from parity.comparing.pairing import LEGACY, NEW
from parity.evaluation.coco import load
from parity.evaluation.evaluation import Bounds
from parity.evaluation.evaluation import judge as judge_images
from parity.evaluation.run import EvalTask, evaluate
from parity.sides.settings import Machine, Sources, Task
from parity.sides.sides import Sides, prepare
from parity.traces.trace import Trace
from parity.verdict.verdict import ended, judge
from tests.parity.image_set import write_image_set

from .mistake import IMAGES, REFUSED, STEPS, VARIABLE, Mistake

ADAPTER = Path(__file__).with_name("adapter.py")
MACHINE = Machine(device="cpu", threads=1, cpu_capability=None, time_limit=600.0)
_SIZES = ((64, 96), (80, 64))
#: Another order of what scales boxes is a last bit; powers of two hide it, so that only mistakes differ.
_SCALES = torch.tensor([[2.0, 0.5], [0.25, 4.0]], dtype=torch.float64)
_BOUNDS = Bounds(exact=False, score=1e-4, box=1e-2, ap=1.0)
MISSED, MISNAMED, NAMED, CRASH = "missed", "misnamed", "named", "CRASH"


@dataclass(frozen=True)
class Finding:
    """What was said of a mistake: outcome, the place that was named, the sentence that goes with it."""

    outcome: str
    where: str
    message: str

    def judged(self, mistake: Mistake) -> str:
        """Tell whether a mistake was missed, misnamed or named."""
        if self.outcome != mistake.outcome:
            return MISSED
        if mistake.outcome == REFUSED:
            return NAMED if mistake.where in self.message else MISNAMED
        return NAMED if self.where == mistake.where and mistake.says in self.message else MISNAMED


class Bench:
    """Measures mistakes in ``folder``; the legacy side of a detector is recorded when it is first needed.

    Args:
        folder: for everything that is written.
        repo: folder with mmdet 2.x and mmcv 1.x.
    """

    def __init__(self, folder: Path, repo: Path) -> None:
        self.folder, self.sources = folder, Sources(legacy_repo=repo, new_adapter=ADAPTER)
        self._grounds: dict[tuple[str, str], _Ground] = {}

    def see(self, mistake: Mistake) -> Finding:
        """Make a mistake and compare."""
        if mistake.outcome == REFUSED:
            return self._refused(mistake)
        with mock.patch.dict(os.environ, {VARIABLE: mistake.name}):
            try:
                return self._ground(mistake).see()
            except SideError as error:
                return Finding(CRASH, "", f"{error} {error.details}")

    def clean(self, mistake: Mistake) -> Finding:
        """Compare in the setting of a mistake, but without it."""
        with mock.patch.dict(os.environ, {VARIABLE: ""}):
            return self._ground(mistake).see()

    def _ground(self, mistake: Mistake) -> _Ground:
        key = mistake.detector, mistake.setting
        if key not in self._grounds:
            kind = _Images if mistake.setting == IMAGES else _Traces
            folder = self.folder / "-".join(key)
            folder.mkdir()
            with mock.patch.dict(os.environ, {VARIABLE: ""}):
                self._grounds[key] = kind(mistake, self.sources, folder)
        return self._grounds[key]

    def _refused(self, mistake: Mistake) -> Finding:
        """Give both sides their configs, the new one with the mistake, as a user does; nothing must run."""
        from mmengine.config import Config

        variant = port("mmdet2", mistake.detector).variant
        config = Config.fromfile(variant.new["config"])
        mistake.change(config)
        file = self.folder / f"{mistake.name}.py"
        config.dump(str(file))
        task = _task(port("mmdet2", of_configs(variant.legacy["config"], str(file))), mistake)
        try:
            prepare(task, replace(self.sources, new_adapter=None), MACHINE)
        except ConversionError as error:
            return Finding(REFUSED, "", str(error))
        return Finding("accepted", "", "")


class _Traces:
    """The legacy side's trace of one detector, and the new side that is compared with it."""

    def __init__(self, mistake: Mistake, sources: Sources, folder: Path) -> None:
        self.task = _task(port("mmdet2", mistake.detector), mistake)
        prepared = prepare(self.task, sources, MACHINE)
        given = {phase: dict(tensors) for phase, tensors in prepared.given.items()}
        given[PREDICT]["scale_factors"] = _SCALES
        self.sides = Sides(self.task, sources, MACHINE, replace(prepared, given=given), folder)
        self.legacy: Trace = self.sides.legacy()
        # learning rates of a warm-up round otherwise; nothing else may differ, be it in a last bit
        self.tolerance = Tolerance(FIXED, 0.0, 0.0) if mistake.setting == STEPS else Tolerance(EXACT)

    def see(self) -> Finding:
        new = self.sides.new(beside=str(self.legacy.folder), twin=self.legacy.records)
        port = self.task.port
        verdict = ended(judge(self.legacy, new, port.mapping, port.exclusions, self.tolerance))
        if verdict.divergence is None:
            return Finding(verdict.outcome, "", " ".join(verdict.reasons))
        return Finding(verdict.outcome, verdict.divergence.where, verdict.divergence.message)


class _Images:
    """What the legacy side finds in image files, and the new side that is compared with it."""

    def __init__(self, mistake: Mistake, sources: Sources, folder: Path) -> None:
        self.folder, self.images = folder, load(*write_image_set(folder / "set", categories=7), None)
        self.categories = tuple(2 * label + 1 for label in range(7))
        task = EvalTask(port("mmdet2", mistake.detector), 0, None)
        evaluate(task, sources, MACHINE, _BOUNDS, self.images, self.categories, folder, lambda step: None)

    @cached_property
    def _job(self) -> Job:
        return Job.load(str(self.folder / f"{NEW}.job.json"))

    @cached_property
    def _legacy(self) -> Path:
        return self.folder / f"{LEGACY}.detections.jsonl"

    def see(self) -> Finding:
        found = self.folder / "mistaken.jsonl"
        job = replace(self._job, detections=str(found), status=str(self.folder / "mistaken.status.json"))
        run_side("mistaken", job, self.folder, os.sys.executable, MACHINE.time_limit, other_python=False)
        files = {LEGACY: self._legacy, NEW: found}
        verdict = judge_images(files, self.images, self.categories, _BOUNDS)
        message = " ".join(verdict.reasons)
        return Finding(verdict.outcome, "the pipelines" if "other inputs" in message else "", message)


_Ground = _Traces | _Images


def _task(of: Port, mistake: Mistake) -> Task:
    steps = dict(checks=("train",), steps=3) if mistake.setting == STEPS else dict(checks=("forward", "loss", "grad"))
    return Task(of, sizes=_SIZES, objects=(3, 4), seed=0, **steps)


@cache
def repo() -> Path | None:
    """Return the folder with MMDetection 2.x that the environment names; None without one."""
    return Path(os.environ["DDQ_MMDET2_REPO"]) if os.environ.get("DDQ_MMDET2_REPO") else None

"""A detector of one side of :mod:`benchmarks.models`, and how it is run and timed."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import ddq_port.models  # noqa: F401  (registers the detectors; supplies mmcv._ext before mmdet asks)
from converters.rules.ports import port
from ddq_port import configs
from legacy_adapters import mmdet3, worker
from legacy_adapters.inputs import Batch
from parity.comparing.pairing import LEGACY, NEW
from parity.sides.prepare import seeded_batch
from parity.sides.sides import both_layouts, num_classes

from .names import FAST, FLOOR, INFERENCE, MMDET, OBJECTS
from .products import Products, replay

_FAMILY = "mmdet_ddq"


class Runner:
    """A detector with seeded weights that runs jobs.

    Args:
        side: one of :data:`benchmarks.names.SIDES`.
        variant: of the model.
        device: of torch.
        queries: matching queries; None takes the config's.
    """

    def __init__(self, side: str, variant: str, device: str, queries: int | None) -> None:
        self.side, self.device = side, device
        of = port(_FAMILY, variant)
        self.classes = num_classes(of)
        torch.manual_seed(0)
        self.model = mmdet3.build_from(_config(side, of.variant, queries))
        layout = LEGACY if side == MMDET else NEW
        worker._load_weights(self.model, dict(both_layouts(of, 0, None)[layout]))
        self.model.to(device)
        self._calls: dict[tuple, Counter[tuple]] = {}

    def run(self, what: str, size: tuple[int, int], images: int) -> dict[str, float]:
        """Run a job once; return ``seconds``, ``cpu_seconds`` and ``peak_gb``."""
        batch = seeded_batch((size,) * images, 0, self.classes, (OBJECTS,) * images)
        batch = Batch.from_tensors(batch.to_tensors(), self.device, torch.float32)
        work = self._inference if what == INFERENCE else self._step
        if self.side == FLOOR:
            key = (what, size, images)
            if key not in self._calls:
                with Products() as products:
                    work(batch)
                self._calls[key] = products.calls
            start = time.process_time()
            seconds = replay(self._calls[key], self._synchronise)
            return dict(seconds=seconds, cpu_seconds=time.process_time() - start, peak_gb=0.0)
        return self._timed(lambda: work(batch))

    def _inference(self, batch: Batch) -> None:
        self.model.eval()
        with torch.no_grad():
            mmdet3.predict(self.model, batch)

    def _step(self, batch: Batch) -> None:
        self.model.train()
        torch.manual_seed(0)
        mmdet3.losses(self.model, batch)[1].backward()
        self.model.zero_grad(set_to_none=True)

    def _timed(self, work: Callable[[], Any]) -> dict[str, float]:
        gc.collect()
        _reset_peak(self.device)
        self._synchronise()
        start, cpu = time.perf_counter(), time.process_time()
        work()
        self._synchronise()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return dict(seconds=seconds, cpu_seconds=cpu, peak_gb=_peak(self.device))

    def _synchronise(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def _config(side: str, variant: Any, queries: int | None) -> Any:
    if side == MMDET:
        import mmdet.models  # noqa: F401  (registers its modules)

        config = mmdet3.merged_config(mmdet3.packaged_config(variant.legacy["config"]), variant.legacy["overrides"])
    else:
        config = configs.load(Path(variant.new["config"]).stem)
        config.model.numerics = "fast" if side in (FAST, FLOOR) else "legacy"
    if queries is not None:
        config.model.num_queries = queries
    return config


def _reset_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM


def _peak(device: str) -> float:
    """Return the largest resident size of this process since the last reset, or the memory of the GPU, in GB."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e9
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM"))

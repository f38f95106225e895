"""Measurements of the GPU check, each in a process of its own: ``python -m tools.gpu_parts MEASUREMENT --help``.

Figures are lines on stdout that begin with ``FIGURES``. Weights and images are seeded, those of ``ddq-parity``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from converters.rules.ports import port
from ddq_port import configs
from legacy_adapters import mmdet3, worker
from legacy_adapters.inputs import Batch
from legacy_adapters.loading import load_adapter
from legacy_adapters.targets import ddq_detr as target
from parity.comparing.pairing import LEGACY, NEW
from parity.sides.prepare import seeded_batch
from parity.sides.settings import Sources
from parity.sides.sides import both_layouts, legacy_code, new_code, num_classes

from .gpu_run import FIGURES

FAMILY = "mmdet_ddq"
OURS, FAST, MMDET = "ours", "fast", "mmdet"
#: The port's own adapter for its fast numerics.
_FAST_ADAPTER = target.LAYOUTS.parent / "fast.py"
PACKAGES = ("torch", "torchvision", "triton", "numpy", "scipy", "mmcv-lite", "mmdet", "mmengine", "pycocotools",
            "opencv-python-headless", "opencv-python", "safetensors", "click", "rich", "pytest", "shapely")  # fmt: skip
#: Parts of a path that tell a detector's code from torch's.
_CODE = ("/ddq_port/", "/mmdet/", "/mmcv/", "/mmengine/", "/legacy_adapters/")
_OBJECTS = 7  # of each image, as COCO has on average
_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Subject:
    """A detector with seeded weights, and the functions that run it."""

    adapter: ModuleType
    model: torch.nn.Module


@dataclass(frozen=True)
class Setting:
    """What is measured, and where.

    Attributes:
        code: ``ours``, ``fast`` (the same with fast numerics) or ``mmdet``.
        variant: of the model.
        device: of torch.
        sizes: (h, w) of each image.
        seconds: for one training; the time of latencies follows from their number.
        iterations: of a training, at most.
        rounds: of a latency.
        batches: sizes of batches whose latency is taken.
    """

    code: str
    variant: str
    device: str
    sizes: tuple[tuple[int, int], ...]
    seconds: float
    iterations: int
    rounds: int
    batches: tuple[int, ...]

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")


def tell(**figures: Any) -> None:
    """Print figures for the report."""
    print(FIGURES + json.dumps(figures), flush=True)


def environment(setting: Setting) -> None:
    """Tell machine and versions."""
    smi = shutil.which("nvidia-smi")
    query = ["--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
    text = subprocess.run([smi, *query], capture_output=True, text=True, check=False).stdout if smi else ""
    tell(
        gpu=torch.cuda.get_device_name() if setting.on_gpu else None,
        capability=torch.cuda.get_device_capability() if setting.on_gpu else None,
        nvidia_smi=text.strip(),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        python=platform.python_version(),
        cpus=os.cpu_count(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        free_gb={path: round(shutil.disk_usage(path).free / 1e9) for path in ("/tmp", "/dev/shm")},
        packages={name: _version(name) for name in PACKAGES},
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def build(setting: Setting) -> Subject:
    """Build the detector of the setting, with seeded weights, on its device."""
    ours = setting.code != MMDET
    of = port(FAMILY, setting.variant)
    sources = Sources(new_adapter=_FAST_ADAPTER if setting.code == FAST else None)
    code = new_code(of, sources) if ours else legacy_code(of, sources)
    adapter = load_adapter(str(code.adapter))
    torch.manual_seed(0)
    model = adapter.build(code.options, setting.device)
    worker._load_weights(model, dict(both_layouts(of, 0, None)[NEW if ours else LEGACY]))
    return Subject(adapter, model.to(setting.device))


def batch_of(setting: Setting, sizes: tuple[tuple[int, int], ...]) -> Batch:
    """Return a seeded batch on the setting's device."""
    classes = num_classes(port(FAMILY, setting.variant))
    batch = seeded_batch(sizes, 0, classes, (_OBJECTS,) * len(sizes))
    return Batch.from_tensors(batch.to_tensors(), setting.device, torch.float32)


def repeat(setting: Setting) -> None:
    """Compare two equal runs: detections, losses, gradients; then again where torch is asked for determinism.

    As in ``ddq-parity``, there is no TF32 and no autotuned or nondeterministic cuDNN kernel.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    worker._set_numerics(torch.get_num_threads())
    subject, batch = build(setting), batch_of(setting, setting.sizes)
    one, two = _results(subject, batch), _results(subject, batch)
    tell(what="repeat", torch_deterministic=False, **_differences(one, two))
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        one, two = _results(subject, batch), _results(subject, batch)
    reasons = Counter(str(warning.message).split(". ")[0][:200] for warning in caught)
    tell(what="repeat", torch_deterministic=True, **_differences(one, two), warnings=dict(reasons))


def _results(subject: Subject, batch: Batch) -> dict[str, Tensor]:
    """Return detections, loss terms and gradients of one run, on the CPU."""
    model, results = subject.model, {}
    model.eval()
    with torch.no_grad():
        for index, detections in enumerate(subject.adapter.predict(model, batch)):
            results |= {f"detections.{index}.{name}": value for name, value in detections.items()}
    model.train()
    model.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    terms, total = subject.adapter.losses(model, batch)
    total.backward()
    results |= {f"losses.{name}": torch.as_tensor(value) for name, value in terms.items() if "loss" in name}
    results["losses.total"] = total
    results |= {f"gradients.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach().cpu().clone() for name, value in results.items()}


def _differences(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> dict[str, Any]:
    """Count tensors that differ, by kind, with the largest difference beside the largest element of its tensor."""
    ratios = {name: _ratio(one[name], two[name]) for name in one if not torch.equal(one[name], two[name])}
    kinds = Counter(name.split(".")[0] for name in one)
    differing = Counter(name.split(".")[0] for name in ratios)
    worst = sorted(ratios, key=ratios.__getitem__, reverse=True)
    return dict(
        tensors=dict(kinds),
        differing=dict(differing),
        median_relative=statistics.median(ratios.values()) if ratios else 0.0,
        worst={name: ratios[name] for name in worst[:10]},
    )


def _ratio(one: Tensor, two: Tensor) -> float:
    largest = float(one.double().abs().max())
    return float((one.double() - two.double()).abs().max()) / largest if largest else float("inf")


def syncs(setting: Setting) -> None:
    """Count where the GPU is waited for: inference, forward with losses, backward, after one run of each."""
    subject, batch = build(setting), batch_of(setting, setting.sizes)
    for warm in (True, False):
        places = {name: Counter() for name in ("inference", "loss", "backward")}
        subject.model.eval()
        with torch.no_grad(), _counting(places["inference"], setting.on_gpu):
            subject.adapter.predict(subject.model, batch)
        subject.model.train()
        with _counting(places["loss"], setting.on_gpu):
            _, total = subject.adapter.losses(subject.model, batch)
        with _counting(places["backward"], setting.on_gpu):
            total.backward()
        if not warm:
            for name, counts in places.items():
                figures = dict(count=counts.total(), places=dict(counts.most_common()))
                tell(what="syncs", code=setting.code, during=name, **figures)


@contextmanager
def _counting(places: Counter[str], on_gpu: bool) -> Iterator[None]:
    """Count torch's warnings of synchronisations by the innermost line of a detector's code."""

    def count(message: Warning | str, *_: Any, **__: Any) -> None:
        if "called a synchronizing" in str(message):
            places[_place()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count
        if on_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            if on_gpu:
                torch.cuda.set_sync_debug_mode("default")


def _place() -> str:
    """Return FILE:LINE FUNCTION of the innermost frame in a detector's code."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        part = next((part for part in _CODE if part in path), None)
        if part is not None:
            return f"{part[1:]}{path.rpartition(part)[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def speed(setting: Setting) -> None:
    """Take latencies and times of training steps with torch's defaults (TF32 in convolutions only), fp32 and bf16."""
    subject = build(setting)
    for precision in _PRECISIONS:
        for count in setting.batches:
            _attempt(_latency, setting, subject, precision, count)
    for precision in _PRECISIONS:
        _attempt(_training, setting, subject, precision)


def _attempt(measure: Callable[..., dict[str, Any]], setting: Setting, subject: Subject, precision: str,
             *more: int) -> None:  # fmt: skip
    """Tell what a measurement gives, or the error of torch it ended with; the next one goes on without its memory."""
    about = dict(what=measure.__name__.strip("_"), code=setting.code, precision=precision)
    if setting.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        tell(**about, **measure(setting, subject, precision, *more))
    except (RuntimeError, TypeError, ValueError) as error:
        tell(**about, arguments=more, error=f"{type(error).__name__}: {error}"[:500])
    subject.model.zero_grad(set_to_none=True)
    gc.collect()
    if setting.on_gpu:
        torch.cuda.empty_cache()


def _latency(setting: Setting, subject: Subject, precision: str, count: int) -> dict[str, Any]:
    batch = batch_of(setting, setting.sizes[:1] * count)
    dtype = _PRECISIONS[precision]
    subject.model.eval()
    seconds = []
    with torch.no_grad(), _autocast(setting, dtype):
        for _ in range(5 + setting.rounds):
            seconds.append(_timed(lambda: subject.adapter.predict(subject.model, batch), setting.on_gpu))
    return dict(batch=count, **_summary(seconds[5:]), peak_gb=_peak(setting))


def _autocast(setting: Setting, dtype: torch.dtype | None) -> AbstractContextManager:
    return nullcontext() if dtype is None else torch.autocast(setting.device.split(":")[0], dtype=dtype)


def _training(setting: Setting, subject: Subject, precision: str) -> dict[str, Any]:
    """Train on one batch of two images as mmengine does, with AdamW and clipping of the port's config."""
    batch = batch_of(setting, setting.sizes[:1] * 2)
    config = configs.load(configs.VARIANTS[setting.variant])
    if precision == "bf16":
        config.optim_wrapper.update(type="ddq_port.AmpOptimWrapper", dtype="bfloat16")
    subject.model.train()
    training = mmdet3.training(subject.model, config, None)
    losses: list[Tensor] = []

    def step() -> None:
        with training.context():
            _, total = subject.adapter.losses(subject.model, batch)
        training.update(total)
        losses.append(total.detach())

    seconds, end = [], time.monotonic() + setting.seconds
    while len(seconds) < setting.iterations and (time.monotonic() < end or len(seconds) < 4):
        seconds.append(_timed(step, setting.on_gpu))
    warm = min(10, len(seconds) // 3)
    ends = dict(first_loss=float(losses[0]), last_loss=float(losses[-1]))
    return dict(batch=2, warm_up=warm, **_summary(seconds[warm:]), **ends, peak_gb=_peak(setting))


def _timed(work: Callable[[], Any], on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _summary(seconds: list[float]) -> dict[str, Any]:
    figures = dict(median_ms=statistics.median(seconds), least_ms=min(seconds), most_ms=max(seconds))
    return dict(rounds=len(seconds), **{name: round(value * 1e3, 2) for name, value in figures.items()})


def _peak(setting: Setting) -> float | None:
    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if setting.on_gpu else None


MEASUREMENTS: dict[str, Callable[[Setting], None]] = dict(
    environment=environment, repeat=repeat, syncs=syncs, speed=speed
)


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", choices=tuple(MEASUREMENTS))
    parser.add_argument("--code", choices=(OURS, FAST, MMDET), default=OURS)
    parser.add_argument("--variant", default="r50_4scale", choices=tuple(configs.VARIANTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", default="800x1333", help="of the images, HxW[,HxW]")
    parser.add_argument("--seconds", type=float, default=20.0, help="for one training")
    parser.add_argument("--iterations", type=int, default=200, help="of a training, at most")
    parser.add_argument("--rounds", type=int, default=20, help="of a latency")
    parser.add_argument("--batches", default="1,8", help="sizes of batches whose latency is taken")
    given = parser.parse_args()
    sizes = tuple((int(h), int(w)) for h, w in (size.split("x") for size in given.size.split(",")))
    setting = Setting(
        code=given.code, variant=given.variant, device=given.device, sizes=sizes, seconds=given.seconds,
        iterations=given.iterations, rounds=given.rounds, batches=tuple(map(int, given.batches.split(","))),
    )  # fmt: skip
    MEASUREMENTS[given.measurement](setting)


if __name__ == "__main__":
    main()

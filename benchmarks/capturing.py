"""Time plain inference, the same inference captured, and a plain write of as many bytes; one JSON object on stdout.

``python -m benchmarks.capturing JOB.json ROUNDS``: the job is one of a side, see :mod:`legacy_adapters.job`. Leaves the
trace of the last round.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from legacy_adapters import worker
from legacy_adapters.bases.detection import METHODS
from legacy_adapters.inputs import PREDICT, Batch, of_phase, placed
from legacy_adapters.job import Job
from legacy_adapters.loading import load_adapter
from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.taps import installed
from legacy_adapters.recording.trace_writer import TraceWriter

_BLOCK = 1 << 24


def main(job_path: str, rounds: int) -> None:
    """Take turns, so that what else the machine does falls on all alike; the first turn of the plain one is dropped."""
    job = Job.load(job_path)
    torch.set_num_threads(job.threads)
    adapter = load_adapter(job.adapter)
    batch = adapter.batch(placed(of_phase(load_file(job.inputs), PREDICT), job.device, torch.float32))
    plain = _model(adapter, job)
    _seconds(partial(_predict, adapter, plain, batch))
    found: dict[str, list[float]] = dict(plain=[], captured=[], written=[])
    for _ in range(rounds):
        shutil.rmtree(job.trace, ignore_errors=True)
        wrapped = _model(adapter, job)
        recorder = _recorder(job, wrapped)
        before = _size(job.trace)
        found["plain"].append(_seconds(partial(_predict, adapter, plain, batch)))
        found["captured"].append(_seconds(partial(_capture, job, adapter, wrapped, batch, recorder)))
        size = _size(job.trace) - before
        found["written"].append(_seconds(partial(_write, Path(job.trace + ".plain"), size)))
    json.dump(dict(found, bytes=size), sys.stdout)


def _model(adapter: object, job: Job) -> torch.nn.Module:
    model = adapter.build(job.options, job.device)
    worker._load_weights(model, load_file(job.weights))
    return model.eval()


def _seconds(work: Callable[[], None]) -> float:
    os.sync()  # what was written before is not to be paid for now
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _predict(adapter: object, model: torch.nn.Module, batch: Batch) -> list:
    torch.manual_seed(0)
    with torch.no_grad():
        return adapter.predict(model, batch)


def _recorder(job: Job, model: torch.nn.Module) -> Recorder:
    """Return a recorder that has recorded the weights, as a worker does before it runs a model."""
    recorder = Recorder(TraceWriter(job.trace), methods=METHODS)
    recorder.attach(model)
    with recorder.in_phase("weights"):
        for name, tensor in sorted(model.state_dict().items()):
            recorder.add("param", name, 0, tensor)
    return recorder


def _size(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).iterdir())


def _capture(job: Job, adapter: object, model: torch.nn.Module, batch: Batch, recorder: Recorder) -> None:
    with installed(adapter.taps(model), recorder, None, True), recorder.in_phase("predict"):
        for index, result in enumerate(_predict(adapter, model, batch)):
            recorder.add("tap", "result", index, result)
    provenance = dict(worker._environment(job), **adapter.provenance(job.options))
    parameters = dict(model.named_parameters())
    recorder.writer.finish(provenance, dict(recorder.coverage(), **worker._gradient_coverage(parameters, set())))


def _write(path: Path, size: int) -> None:
    block = memoryview(os.urandom(_BLOCK))
    with open(path, "wb", buffering=0) as file:
        for start in range(0, size, _BLOCK):
            file.write(block[: size - start])
    path.unlink()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""Ranks of a side: joined, put together into one trace, ended together when one fails. A toy in place of a model."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from legacy_adapters.inputs import Batch
from legacy_adapters.job import Job
from legacy_adapters.launch import SideError, run_side
from legacy_adapters.origin import ReportedError
from legacy_adapters.training import ranks
from legacy_adapters.training.phases import on_rank, phase_of, rank_of, step_of
from parity.traces.trace import Trace

#: Divides its loss by the mean of a number over all ranks; ``options`` name what goes wrong on rank 1 in step 2.
ADAPTER = """
import os, time
import torch
from torch import distributed as dist
from legacy_adapters.training.steps import Training

fault, taken = None, []

class Toy(torch.nn.Linear):
    def forward(self, images, count, wrong):
        if wrong == "sleeps":
            time.sleep(600)
        if wrong != "skips":
            dist.all_reduce(count)
        return super().forward(images.mean((2, 3))).square().sum() / (count / 2).clamp(min=1)

def build(options, device):
    global fault
    fault = options["fault"]
    return Toy(3, 2)

def provenance(options): return dict(code_base="toy", modules={})
def taps(model): return []
def distributed(model, options): return torch.nn.parallel.DistributedDataParallel(model)

def losses(model, batch):
    taken.append(batch)  # its length is the step
    wrong = fault if (dist.get_rank(), len(taken)) == (1, 2) else None
    if wrong == "dies": os._exit(9)
    if wrong == "raises": raise ValueError("no such class")
    count = torch.tensor([float(sum(map(len, batch.gt_labels)))])
    loss = model(batch.images, count, wrong)
    return {"loss": loss}, loss.sum()

class Plain(Training):
    def __init__(self, model): self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    def watch(self, backward_done, clip): self.backward_done = backward_done
    def advance(self, epoch_ended): pass
    def update(self, total):
        self.optimizer.zero_grad()
        total.backward()
        self.backward_done()
        self.optimizer.step()

def training(model, options, epoch_length): return Plain(model)
"""
COUNTS = (3, 4, 2, 0)  # of objects: step 1 on rank 0, step 1 on rank 1, ...


def batch(number, count):
    images = torch.full((1, 3, 32, 32), float(number))
    box = torch.tensor([[1.0, 2.0, 8.0, 9.0]])
    return Batch(images, ((32, 32),), ((32, 32),), ((1.0, 1.0),), [box.repeat(count, 1)], [torch.zeros(count).long()])


@pytest.fixture
def toy(tmp_path):
    """Return a function that trains a toy with two ranks for two steps, and gives the trace."""
    (tmp_path / "adapter.py").write_text(ADAPTER)
    save_file({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path / "weights.safetensors")
    whole = {f"{phase}.{k}": v for phase in ("predict", "train") for k, v in batch(9, 1).to_tensors().items()}
    save_file(whole, tmp_path / "inputs.safetensors")
    files = tuple(str(tmp_path / f"step{number}.safetensors") for number in range(4))
    for number, file in enumerate(files):
        save_file(batch(number, COUNTS[number]).to_tensors(), file)

    def call(fault="", patience=60.0, time_limit=400.0):
        job = Job(
            "toy", "tiny", str(tmp_path / "adapter.py"), {"fault": fault}, str(tmp_path / "weights.safetensors"),
            str(tmp_path / "inputs.safetensors"), str(tmp_path / "toy"), str(tmp_path / "status.json"), ("train",),
            seed=0, threads=1, cpu_capability=None, device="cpu", step_inputs=files, ranks=2, patience=patience,
        )  # fmt: skip
        run_side("toy", job, tmp_path, sys.executable, time_limit, other_python=False)
        return Trace.load(tmp_path / "toy")

    return call


def test_two_ranks_leave_one_trace_in_which_nothing_stands_before_its_cause(toy, tmp_path):
    trace = toy()
    values = {(r.phase, r.kind, r.name): trace.tensor(r) for r in trace.records}
    steps = [[(step_of(r.phase), r.kind in ("grad", "state"), rank_of(r.phase)) for r in trace.records if r.kind == k]
             for k in ("loss", "grad")]  # fmt: skip
    assert steps == [sorted(steps[0]), sorted(steps[1])] and {rank for *_, rank in steps[0]} == {0, 1}
    kinds = [(r.kind, rank_of(r.phase)) for r in trace.records if step_of(r.phase) == 1]
    assert kinds.index(("loss", 1)) < kinds.index(("grad", 0)) < kinds.index(("grad", 1))
    for step in (1, 2):
        zero, one = phase_of(step, 0), phase_of(step, 1)
        assert not torch.equal(values[zero, "loss", "total"], values[one, "loss", "total"])
        for name in ("weight", "bias"):
            for kind in ("grad", "state"):
                assert torch.equal(values[zero, kind, name], values[one, kind, name])
    # rank 0 has images of zeros, rank 1 of ones; outputs are 0 and 3, their squares go by the mean of 3 and 4 objects
    assert torch.allclose(values["step 1 on rank 0", "grad", "bias"], torch.full((2,), (0 + 2 * 3 / 3.5) / 2))
    assert trace.provenance["ranks"] == 2
    assert trace.provenance["wrapper"]["name"] == "DistributedDataParallel"
    objects = {phase_of(step, rank): [COUNTS[2 * (step - 1) + rank]] for step in (1, 2) for rank in (0, 1)}
    assert trace.provenance["objects"] == objects
    assert {r.phase for r in trace.records if r.kind == "param"} == {on_rank("weights", 0), on_rank("weights", 1)}
    assert not list((tmp_path / "toy").glob("meeting*"))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("dies", r"rank 1 of 2 ended without a report \(exit code 9\)"),
        ("raises", r"crashed in the detector \(step 2 on rank 1\): ValueError: no such class"),
        ("skips", r"\(step 2 on rank .\): (?=.*sums a tensor of shape \[1\] over all ranks in the det).*ends its forward"),
    ],
)
def test_rank_that_fails_ends_the_side_and_is_named(toy, fault, says):
    with pytest.raises(SideError, match=says) as caught:
        toy(fault)
    assert "\n" not in str(caught.value)


def test_rank_that_never_comes_is_not_waited_for_without_end(toy):
    start = time.monotonic()
    with pytest.raises(SideError, match=r"\(step 2 on rank 0\): .* rank 1 did not come to it within 15 s"):
        toy("sleeps", patience=15.0)
    assert time.monotonic() - start < 300


def works(tmp_path, *works):
    """Run ranks that do something else than a worker, and return the error that is reported."""
    job = Job("toy", "tiny", "", {}, "", "", str(tmp_path / "trace"), "", ("train",), seed=0, threads=1,
              cpu_capability=None, device="cpu", ranks=len(works), patience=1.0)  # fmt: skip

    def work(path):
        job = json.loads(Path(path).read_text())
        return works[job["rank"]](Path(job["status"]))

    with pytest.raises(ReportedError) as caught:
        ranks.run(job, work)
    return caught.value.told["error"]


def reports(error, after=0.0):
    def work(status):
        time.sleep(after)
        status.write_text(json.dumps(dict(error=error, place="", traceback="")))
        return 1

    return work


def test_first_rank_to_report_is_the_cause(tmp_path):
    assert works(tmp_path, reports("connection lost", after=0.5), reports("no such class")) == "no such class"


def test_rank_that_is_killed_because_of_another_one_is_not_the_cause(tmp_path):
    assert works(tmp_path, lambda status: time.sleep(600), reports("no such class")) == "no such class"


def test_rank_that_died_without_a_report_is_the_cause(tmp_path):
    died = works(tmp_path, reports("connection lost"), lambda status: os._exit(9))
    assert died == "rank 1 of 2 ended without a report (exit code 9)"

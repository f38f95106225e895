"""The worker records a toy detector in this interpreter and in an old one, of which nothing but torch is asked."""

import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from legacy_adapters.job import CHECKS, Job
from legacy_adapters.launch import run_side
from parity.sides.prepare import seeded_batch
from parity.traces.trace import Trace

OLD = os.environ.get("DDQ_OLD_PYTHON", "")
ADAPTER = Path(__file__).with_name("toy_adapter.py")
SHAPES = {
    "backbone.0.weight": (4, 3, 3, 3), "backbone.0.bias": (4,),
    "backbone.1.weight": (4,), "backbone.1.bias": (4,), "backbone.1.running_mean": (4,), "backbone.1.running_var": (4,),
    "bbox_head.cls_branch.weight": (3, 4), "bbox_head.cls_branch.bias": (3,),
    "bbox_head.reg_branch.weight": (4, 4), "bbox_head.reg_branch.bias": (4,),
}  # fmt: skip


def recorded(folder, python, **changes):
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}
    save_file(weights, str(folder / "weights"))
    batches = [seeded_batch(((40, 64), (48, 56)), seed, 3) for seed in range(3)]
    named = zip(("predict", "train"), batches)
    save_file({f"{phase}.{k}": v for phase, batch in named for k, v in batch.to_tensors().items()}, str(folder / "inputs"))
    save_file(batches[2].to_tensors(), str(folder / "step"))
    job = Job(
        family="toy", variant="toy", adapter=str(ADAPTER), options={}, weights=str(folder / "weights"),
        inputs=str(folder / "inputs"), trace=str(folder / "toy"), status=str(folder / "status"), checks=CHECKS, seed=0,
        threads=1, cpu_capability=None, device="cpu", step_inputs=(str(folder / "step"),) * 2, **changes,
    )  # fmt: skip
    run_side("toy", job, folder, python, 120.0, other_python=True)
    return Trace.load(folder / "toy", checked=True)


def test_every_check_is_recorded(tmp_path):
    trace = recorded(tmp_path / "here", sys.executable)
    assert {record.phase for record in trace.records} == {
        "init", "weights", "predict", "labels", "train", "step 1", "step 2",
    }  # fmt: skip
    assert {"module_in", "module_out", "in_grad", "out_grad", "method_in", "method_out", "tap", "basis", "random", "loss",
            "grad", "state", "update", "setting", "clip", "optim_state", "param", "init"} == {
        record.kind for record in trace.records
    }  # fmt: skip
    assert trace.provenance["code_base"] == "toy" and "stopped" not in trace.provenance


@pytest.mark.skipif(not OLD, reason="DDQ_OLD_PYTHON is not set (a Python from 3.8 on with torch, numpy and safetensors)")
def test_an_old_interpreter_records_the_same(tmp_path):
    here = recorded(tmp_path / "here", sys.executable)
    there = recorded(tmp_path / "there", OLD, gradient_flow=here.provenance["gradient_flow"])
    assert there.provenance["python"] != here.provenance["python"]
    flow = there.provenance["gradient_flow"]  # which old torch cannot record
    ours = {key: record for key, record in here.by_key.items() if flow or record.kind not in ("in_grad", "out_grad")}
    others = {key for key in ours.keys() ^ there.by_key.keys() if key[1] not in ("setting", "update", "clip")}
    assert not others  # options of the optimizer have other names in other versions
    for key in ("predict", "module_out", "bbox_head", 0, "0"), ("train", "loss", "total", 0, ""):
        assert torch.allclose(here.tensor(ours[key]), there.tensor(there.by_key[key]), rtol=1e-4, atol=1e-6)

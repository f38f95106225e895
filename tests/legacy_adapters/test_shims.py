"""Code written for older libraries runs on today's; what stands in for what is missing is told, and only that is put there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from legacy_adapters.job import Job
from legacy_adapters.launch import RefusedError, run_side
from parity.sides.prepare import seeded_batch
from parity.traces.trace import Trace

from ..warm.execute import python
from .old_code_base import SHAPES, write

ADAPTER = Path(__file__).with_name("old_adapter.py")


def recorded(folder, config, repo):
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    save_file({name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}, str(folder / "weights"))
    batches = {phase: seeded_batch(((40, 64), (48, 56)), seed, 7) for seed, phase in enumerate(("predict", "train"))}
    tensors = {f"{phase}.{name}": value for phase, batch in batches.items() for name, value in batch.to_tensors().items()}
    save_file(tensors, str(folder / "inputs"))
    job = Job(
        family="old", variant="old", adapter=str(ADAPTER), options=dict(config=str(config), repo=str(repo)),
        weights=str(folder / "weights"), inputs=str(folder / "inputs"), trace=str(folder / "trace"),
        status=str(folder / "status"), checks=("forward", "loss", "grad"), seed=0, threads=1, cpu_capability=None,
        device="cpu",
    )  # fmt: skip
    run_side("legacy", job, folder, sys.executable, 120.0, other_python=False)
    return Trace.load(folder / "trace", checked=True)


def test_an_old_code_base_runs_and_says_what_was_put_in_place(tmp_path):
    trace = recorded(tmp_path / "run", write(tmp_path / "repo"), tmp_path / "repo")
    assert trace.provenance["code_base"] == "mmdet 2.22.0" and "stopped" not in trace.provenance
    shims = trace.provenance["shims"]
    assert {"numpy.int", "numpy.float", "Tensor.cuda"} <= set(shims)
    assert "mmcv 1.3.17 for mmdet, which refuses 1.7.2" in shims
    # the code base goes on with the version that there is
    assert trace.provenance["modules"]["mmcv"]["version"] == "1.7.2"
    total = next(record for record in trace.records if (record.kind, record.name) == ("loss", "total"))
    assert trace.tensor(total).isfinite()


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        (dict(mmcv="2.1.0"), "needs mmcv 1.x, found mmcv 2.1.0 at"),
        (dict(mmcv="1.2.0"), "mmdet cannot be imported: MMCV==1.2.0 is used but incompatible."),
        (dict(mmcv="1.4.0", mmdet="3.3.0"), "a code base of MMDetection 2.x, found mmdet 3.3.0 at"),
        (dict(detector="Other"), "cannot be built: Other is not in the models registry."),
    ],
)
def test_what_cannot_be_the_legacy_side_is_refused_in_one_line(tmp_path, packages, message):
    config = write(tmp_path / "repo", **packages)
    with pytest.raises(RefusedError, match=message) as refused:
        recorded(tmp_path / "run", config, tmp_path / "repo")
    assert "\n" not in str(refused.value)


def test_a_config_that_is_not_there_is_refused(tmp_path):
    write(tmp_path / "repo")
    with pytest.raises(RefusedError, match="There is no config nothing.py; looked for it in .*repo/configs"):
        recorded(tmp_path / "run", "nothing.py", tmp_path / "repo")


def test_a_config_of_the_other_version_is_refused(tmp_path):
    config = write(tmp_path / "repo")
    config.write_text(config.read_text() + "optim_wrapper = dict()\n")
    with pytest.raises(RefusedError, match="is one of MMDetection 3.x, for it has `optim_wrapper`"):
        recorded(tmp_path / "run", config, tmp_path / "repo")


#: Installs the shims where everything is there that they stand for, and prints what they put in place.
NOTHING_MISSING = """
import sys, types
import numpy
for name in ("int", "bool", "float", "object", "str", "complex"):
    vars(numpy)[name] = "its own"
sys.modules["torchvision"] = own = types.ModuleType("torchvision")
from yapf.yapflib import yapf_api
yapf_api.FormatCode = lambda text, verify=False: text
from legacy_adapters import shims
shims.install("cuda:0")
import torchvision
print(shims.IN_PLACE, torchvision is own, numpy.int)
"""


def test_nothing_is_put_where_something_is():
    ran = python("-c", NOTHING_MISSING, kind="plain")
    assert ran.stdout.split("\n")[0] == "[] True its own", ran.stderr


def test_a_torchvision_that_is_broken_gives_way_to_an_empty_one(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("from . import ops\n")
    (tmp_path / "torchvision" / "ops.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom legacy_adapters import shims\nshims.install('cpu')\n"
    ran = python("-c", code + "import torchvision; print('torchvision' in shims.IN_PLACE, torchvision.__version__)", kind="plain")
    assert ran.stdout == "True 0.0.0\n", ran.stderr


def test_tensors_that_are_asked_for_on_a_gpu_are_made_on_the_cpu():
    code = "from legacy_adapters import shims\nshims.install('cpu')\nimport torch\n"
    made = "torch.zeros(2, device='cuda'), torch.arange(3, device=torch.device('cuda:0')), torch.tensor([1.0], device='cuda')"
    ran = python("-c", code + f"print([tensor.device.type for tensor in ({made})])", kind="plain")
    assert ran.stdout == "['cpu', 'cpu', 'cpu']\n", ran.stderr

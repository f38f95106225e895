"""The legacy side's stand-in for ``mmcv._ext``: its NMS, its continuous operators, and what it does not import."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ddq_port.ops import nms as ported
from legacy_adapters import standin
from legacy_adapters.standin.nms import nms
from legacy_adapters.tasks import probes

ROOT = Path(__file__).parents[2]
GOLDENS = sorted((ROOT / "tests" / "golden" / "nms").glob("*.npz"))
PRELUDE = "from legacy_adapters import standin; standin.install(); standin.install()\n"


def run_python(code: str, *path: Path) -> str:
    """Run ``code`` with ``path`` and the repository on its path; return the last line of its output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("file", GOLDENS, ids=lambda file: file.stem)
def test_nms_decides_as_the_compiled_operator(file):
    with np.load(file) as data:
        boxes, scores = torch.from_numpy(data["boxes"]), torch.from_numpy(data["scores"])
        threshold, offset = float(data["iou_threshold"]), int(data["offset"])
        order, expected = torch.from_numpy(data["order"]).long(), torch.from_numpy(data["keep_nms"]).long()
    if not torch.equal(scores.sort(0, descending=True)[1], order):
        pytest.skip("this machine's sort puts equal scores in another order than the recording one's")
    assert torch.equal(nms(boxes, scores, threshold, offset), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("offset", [0, 1])
def test_nms_decides_as_the_port(dtype, offset):
    generator = torch.Generator().manual_seed(offset)
    centre, size = torch.rand(700, 2, generator=generator) * 60, torch.rand(700, 2, generator=generator) * 30 + 5
    boxes, scores = torch.cat([centre - size / 2, centre + size / 2], 1).to(dtype), torch.rand(700, generator=generator)
    found = nms(boxes, scores, 0.6, offset)
    assert 10 < len(found) < 600 and found.dtype == torch.int64
    assert torch.equal(found, ported.nms(boxes, scores, 0.6, offset))


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 1 / 3])
def test_probe_tells_above_from_at_the_threshold(threshold):
    few, many = probes.boxes_at_threshold(threshold, 60, torch.zeros(1))
    assert len(few[0]) < 300 and len(many[0]) > probes.MANY
    for boxes, scores in (few, many):
        assert len(scores.unique()) == len(scores) and torch.equal(boxes, boxes.round())
        kept = nms(boxes, scores, threshold, 0)
        assert len(kept) > 60
        below = nms(boxes, scores, float(np.nextafter(np.float32(threshold), np.float32(0))), 0)
        assert len(below) < len(kept), "no overlap is the threshold itself"


def test_nms_of_all_tokens_of_a_large_image_takes_seconds():
    with np.load(GOLDENS[0].with_name("n22223_80.npz")) as data:
        boxes, scores = torch.from_numpy(data["boxes"]), torch.from_numpy(data["scores"])
    start = time.process_time()
    nms(boxes, scores, 0.8, 0)
    assert time.process_time() - start < 10


def test_reference_is_not_the_ports():
    # merged with the port's, an error of that would be on both sides
    assert nms.__module__ != ported.nms.__module__ and "ddq_port" not in Path(sys.modules[nms.__module__].__file__).parts


@pytest.mark.parametrize("path", standin.SHARED, ids=lambda path: Path(path).stem)
def test_continuous_operators_are_the_ports_files(path):
    own = importlib.import_module(f"ddq_port.ops.{Path(path).stem}")
    loaded = standin.load_shared(path)
    assert loaded.__file__ == own.__file__ and loaded is not own and standin.load_shared(path) is loaded
    assert sorted(standin.SHARED[path]) == loaded.__all__ == own.__all__


def test_code_base_is_imported_without_the_port():
    code = PRELUDE + (
        "import sys, mmdet.models, mmcv._ext as ext\n"
        "import torch, mmcv.ops\n"
        "print(sorted(n for n in sys.modules if n.split('.')[0] == 'ddq_port'), ext.nms.__module__,"
        " [type(f).__name__ for f in sys.meta_path].count('StandinFinder'))"
    )
    assert run_python(code) == "[] legacy_adapters.standin.nms 1"


def test_file_is_executed_when_one_of_its_operators_is_called():
    code = PRELUDE + (
        "import sys, torch, mmcv.ops\n"
        "held = lambda: sorted(n for n in sys.modules if n.startswith(standin.PRIVATE_NAME))\n"
        "before = held()\n"
        "mmcv.ops.roi_align(torch.ones(1, 2, 4, 4), torch.tensor([[0., 0, 0, 3, 3]]), 2)\n"
        "print(before, held())"
    )
    assert run_python(code) == "[] ['legacy_adapters.standin._roi_align']"


def test_compiled_extension_wins(tmp_path):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    (tmp_path / "mmcv" / "_ext.py").write_text("nms = 'the real one'\n")
    assert run_python(PRELUDE + "import mmcv._ext; print(mmcv._ext.nms)", tmp_path) == "the real one"


def test_absent_operator_raises_when_called(tmp_path):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    code = PRELUDE + (
        "import mmcv._ext as ext\ntry:\n    ext.carafe_naive_forward(1, 2)\nexcept NotImplementedError as error:\n    print(error)"
    )
    said = run_python(code, tmp_path)
    assert said.startswith("mmcv operator `carafe_naive_forward` is not in the legacy side's stand-in for mmcv._ext")

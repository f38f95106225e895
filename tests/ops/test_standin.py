"""When the stand-in answers for ``mmcv._ext``, and when it stays away. Each case runs in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ddq_port

ROOT = str(Path(ddq_port.__file__).parents[1])


def run_python(code: str, *path: Path) -> str:
    """Run ``code`` in a child interpreter with ``path`` before the repository on its path; return its last line."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), ROOT])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture()
def fake_mmcv(tmp_path: Path) -> Path:
    """A package named ``mmcv`` without extension, shaped like any version's source tree."""
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "1.4.7"\n')
    return tmp_path


def test_import_is_light() -> None:
    code = "import sys, ddq_port; print(sorted({'torch', 'numpy', 'mmcv', 'mmengine', 'mmdet'} & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_import_takes_milliseconds() -> None:
    code = "import time; t = time.perf_counter(); import ddq_port; print(time.perf_counter() - t)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.02


def test_finder_is_last_and_installed_once() -> None:
    code = (
        "import sys, importlib, ddq_port, ddq_port.ops.standin as s\n"
        "s.install(); importlib.reload(s); s.install(); importlib.reload(ddq_port)\n"
        "names = [type(f).__name__ for f in sys.meta_path]\n"
        "print(names.count('StandinFinder'), names[-1])"
    )
    assert run_python(code) == "1 StandinFinder"


def test_real_extension_wins(fake_mmcv: Path) -> None:
    (fake_mmcv / "mmcv" / "_ext.py").write_text("nms = 'the real one'\n")
    code = "import ddq_port, mmcv._ext; from ddq_port.ops import standin; print(mmcv._ext.nms, standin.is_active())"
    assert run_python(code, fake_mmcv) == "the real one False"


def test_broken_extension_is_reported_not_replaced(fake_mmcv: Path) -> None:
    (fake_mmcv / "mmcv" / "_ext.py").write_text("raise ImportError('undefined symbol')\n")
    code = "import ddq_port\ntry:\n    import mmcv._ext\nexcept ImportError as error:\n    print(error)"
    assert run_python(code, fake_mmcv) == "undefined symbol"


def test_any_version_without_extension_gets_the_standin(fake_mmcv: Path) -> None:
    code = (
        "import ddq_port, importlib\n"
        "from ddq_port.ops import mmcv_ext, standin\n"
        "before = standin.is_active()\n"
        "ext = importlib.import_module('mmcv._ext')\n"
        "print(before, standin.is_active(), ext.nms is mmcv_ext.nms, hasattr(ext, 'psamask_forward'), ext.__name__)"
    )
    assert run_python(code, fake_mmcv) == "False True True True mmcv._ext"


def test_other_missing_modules_stay_missing(fake_mmcv: Path) -> None:
    code = (
        "import ddq_port\n"
        "for name in ('mmcv._flow_warp_ext', 'mmcv.ops', '_ext'):\n"
        "    try:\n        __import__(name)\n"
        "    except ModuleNotFoundError:\n        continue\n"
        "    raise SystemExit(name)\n"
        "print('missing')"
    )
    assert run_python(code, fake_mmcv) == "missing"


def test_mmcv_ops_imports_and_reports_environment() -> None:
    code = (
        "import ddq_port, torch, mmcv.ops\n"
        "from mmcv.utils import collect_env\n"
        "boxes = torch.tensor([[0., 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])\n"
        "_, keep = mmcv.ops.batched_nms(boxes, torch.tensor([.5, .9, .1]), torch.ones(3),"
        " dict(type='nms', iou_threshold=.5))\n"
        "print(keep.tolist(), 'MMCV Compiler' in collect_env())"
    )
    assert run_python(code) == "[1, 2] True"


def test_missing_operator_raises_when_called(fake_mmcv: Path) -> None:
    code = (
        "import ddq_port, mmcv._ext as ext\n"
        "try:\n    ext.carafe_naive_forward(1, 2)\nexcept NotImplementedError as error:\n    print(error)"
    )
    message = run_python(code, fake_mmcv)
    assert message.startswith("mmcv operator `carafe_naive_forward` is not in ddq_port's stand-in for mmcv._ext")
    assert "extra [mmcv]" in message

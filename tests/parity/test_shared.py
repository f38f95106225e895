"""Code that both sides execute: kept out, or named; and errors on disk that must not be on both sides."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ddq_port
from legacy_adapters import registry
from parity.comparing.pairing import LEGACY, NEW
from parity.sides.shared import foreign, shared_code
from tests.models import NEW_ADAPTER

ROOT = Path(__file__).parents[2]
FAMILY = registry.get("mmdet_ddq")
PORT = ("ddq_port", str(Path(ddq_port.__file__).resolve().parent))
REPO = os.environ.get("DDQ_LEGACY_REPO", "")


def side(files: dict[str, str], packages: dict[str, tuple[str, str]], modules: tuple[str, ...] = ()) -> dict:
    """Return what a side notes; packages are version and file by name."""
    noted = {name: dict(version=version, file=file) for name, (version, file) in packages.items()}
    return dict(files=files, packages=noted, modules={name: dict(version="") for name in modules})


def test_port_is_foreign_to_the_legacy_side_and_so_is_a_users_adapter(tmp_path):
    package = tmp_path / "my_port"
    package.mkdir()
    for name in ("__init__", "adapter", "model"):
        (package / f"{name}.py").touch()
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / "adapter.py").write_text("import mmdet, numpy, safetensors, json\nfrom helper import x\n")
    (tmp_path / "lone" / "helper").mkdir()
    (tmp_path / "lone" / "helper" / "__init__.py").touch()
    (tmp_path / "lone" / "beside.py").touch()
    lone = tmp_path / "lone"

    def places(adapter: Path, repo: Path | None = None) -> set[str]:
        found = foreign(FAMILY, adapter, repo)
        assert found[:2] == PORT
        return {str(Path(place).relative_to(tmp_path)) for place in found[2:]}

    assert foreign(FAMILY, NEW_ADAPTER, None) == PORT
    assert places(package / "adapter.py") == {"my_port/adapter.py", "my_port"}
    assert places(lone / "adapter.py") == {"lone/adapter.py", "lone/beside.py", "lone/helper"}
    # what lies in the legacy checkout is the legacy side's own
    assert places(lone / "adapter.py", lone) == {"lone/adapter.py"}


def test_files_and_packages_of_both_sides_are_named():
    own, recorder = str(ROOT / "ddq_port" / "ops" / "continuous.py"), str(ROOT / "legacy_adapters" / "recording" / "taps.py")
    files = {own: "ab" * 32, recorder: "cd" * 32, "/one/edited.py": "0" * 64}
    packages = {"torch": ("2.0", "/t"), "mmdet": ("3.3.0", "/m"), "mmcv": ("2.0", "/legacy/mmcv")}
    one = side({**files, "/only/legacy.py": "1" * 64}, packages, ("mmdet", "mmcv"))
    other = {**files, "/one/edited.py": "2" * 64}
    two = side(other, {**packages, "mmcv": ("2.1", "/new/mmcv")}, ("ddq_port", "mmdet", "mmcv"))
    found = shared_code({LEGACY: one, NEW: two})
    assert found.files == {"ddq_port/ops/continuous.py": "ab" * 32}
    assert found.recorder == {"legacy_adapters/recording/taps.py": "cd" * 32}
    assert found.packages == {"mmdet": "3.3.0", "torch": "2.0"} and found.code_bases == ("mmdet",)
    assert found.line() == (
        "both sides execute: mmdet 3.3.0, ddq_port/ops/continuous.py abababababab, "
        "the recorder (1 file of legacy_adapters, 8378859bd612), 1 other installed package (see --json)"
    )


def test_nothing_is_said_of_a_side_that_noted_nothing():
    assert shared_code({LEGACY: {}, NEW: side({}, {})}) is None


#: Errors on disk: name, file, text and what takes its place.
PLANTED = [
    ("at_the_threshold", "nms.py", "gt_(self", "ge_(self"),
    ("threshold", "nms.py", "torch.tensor(iou_threshold, dtype", "torch.tensor(iou_threshold - 0.1, dtype"),
    ("one_fewer", "nms.py", "return kept.indices()[:limit]", "return kept.indices()[: limit - 1]"),
    ("cut_of_many_boxes", "nms.py", "0, max_num + 1)", "0, max_num - 1)"),
]
SIDES = [
    pytest.param(["--family", "mmdet_ddq"], id="mmdet_ddq"),
    pytest.param(
        ["--family", "ddq_detr", "--legacy-repo", REPO],
        marks=pytest.mark.skipif(not REPO, reason="DDQ_LEGACY_REPO is not set (jshilong/DDQ, branch ddq_detr)"),
        id="ddq_detr",
    ),
]


def run_copy(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Run ``ddq-parity run`` of the copy of this toolkit in ``folder``."""
    command = [sys.executable, "-m", "parity", "run", "--variant", "tiny_4scale", "--threads", "1", *options]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture
def copy(tmp_path):
    """A copy of the toolkit that may be edited."""
    for name in ("converters", "ddq_port", "legacy_adapters", "parity"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.npz"))
    return tmp_path


@pytest.mark.parametrize("family", SIDES)
@pytest.mark.parametrize(("file", "text", "wrong"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED])
def test_error_on_disk_in_the_ports_nms_is_found(copy, family, file, text, wrong):
    path = copy / "ddq_port" / "ops" / file
    assert path.read_text().count(text) == 1
    path.write_text(path.read_text().replace(text, wrong))
    done = run_copy(copy, *family, "--check", "forward", "-q")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("MISMATCH ") and "First at the detector." in done.stdout


def test_patch_made_by_the_port_at_import_does_not_reach_the_legacy_side(copy):
    path = copy / "ddq_port" / "models" / "__init__.py"
    patch = "import torch\n_relu = torch.nn.functional.relu\n"
    patch += "torch.nn.functional.relu = lambda x, inplace=False: _relu(x, inplace) * 1.0001\n"
    path.write_text(path.read_text() + patch)
    done = run_copy(copy, "--family", "mmdet_ddq", "--check", "forward", "-q")
    assert done.returncode == 1 and done.stdout.startswith("MISMATCH "), done.stdout + done.stderr


def test_run_fails_if_the_legacy_process_loads_the_port(copy):
    path = copy / "legacy_adapters" / "families" / "mmdet_ddq" / "legacy.py"
    path.write_text(path.read_text().replace("        standin.install()\n", "        import ddq_port\n\n        standin.install()\n"))
    done = run_copy(copy, "--family", "mmdet_ddq", "--check", "forward", "-q")
    assert done.returncode == 4
    assert "SharedCodeError: the legacy process holds module `ddq_port` of the new side" in done.stderr


def test_what_both_sides_execute_is_told(copy):
    done = run_copy(copy, "--family", "mmdet_ddq", "--check", "forward", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["verdict"] == "MATCH"
    files = told["shared"]["files"]
    assert set(files) == {"ddq_port/configs/ddq-detr-4scale_tiny.py"}  # on the CPU it calls no operator of both sides
    assert all(len(digest) == 64 for digest in files.values())
    assert "legacy_adapters/recording/recorder.py" in told["shared"]["recorder"]
    assert {"mmdet", "mmcv", "mmengine", "torch"} <= told["shared"]["packages"].keys()
    assert not any("files" in side for side in told["provenance"].values())


@pytest.mark.skipif(not REPO, reason="DDQ_LEGACY_REPO is not set (jshilong/DDQ, branch ddq_detr)")
def test_changed_checkout_is_said_in_the_verdict_line_and_can_be_refused(tmp_path):
    repo = tmp_path / "DDQ"
    shutil.copytree(REPO, repo, symlinks=True, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    with open(repo / "projects" / "models" / "ddq_detr.py", "a") as file:
        file.write("\n# a comment\n")
    options = ["--family", "ddq_detr", "--legacy-repo", str(repo), "--check", "forward"]
    done = run_copy(ROOT, *options, "-q")
    assert done.returncode == 0 and done.stdout.rstrip().endswith("bit-identical, legacy code of no known commit")
    refused = run_copy(ROOT, *options, "--require-known-commit")
    assert refused.returncode == 2 and "is of no known commit" in refused.stderr and not refused.stdout

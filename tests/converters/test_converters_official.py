"""Checkpoints of the real official model in both directions; DDQ_LEGACY_REPO names a checkout, branch ddq_detr."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor

pytest.importorskip("ddq_port")
pytest.importorskip("mmdet")

from converters.cli.main import cli
from ddq_port import configs
from legacy_adapters import registry
from parity.sides.prepare import seeded_batch
from tests.models import layout_of as stored_layout
from tests.models import variants as variants_of
from tests.models import weights_of

from . import mmdet_models

REPO = os.environ.get("DDQ_LEGACY_REPO", "")
pytestmark = pytest.mark.skipif(not REPO, reason="DDQ_LEGACY_REPO is not set (jshilong/DDQ, branch ddq_detr)")

HERE = Path(__file__).parent
StateDict = dict[str, Tensor]
SameBytes = Callable[[StateDict, StateDict], None]


def _python(folder: Path, script: Path, *args: object) -> None:
    done = subprocess.run(
        [sys.executable, script, *map(str, args)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _overrides(variant: str) -> Path | str:
    name = configs.VARIANTS[variant]
    return "" if Path(registry.get("ddq_detr").variant(variant).legacy["config"]).stem == name else configs.path(name)


def _official(variant: str, checkpoint: Path) -> StateDict:
    """Return what the official model holds after it has loaded a checkpoint strictly."""
    out = checkpoint.with_suffix(".held.pth")
    config = registry.get("ddq_detr").variant(variant).legacy["config"]
    _python(checkpoint.parent, HERE / "official_model.py", REPO, config, _overrides(variant), checkpoint, out)
    held = torch.load(out, weights_only=True)
    assert all(Path(file).is_relative_to(Path(REPO).resolve()) for file in held["files"].values())
    return held["state_dict"]


def _convert(*args: object) -> str:
    result = CliRunner().invoke(cli, ["convert", *map(str, args)])
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("variant", variants_of("ddq_detr"))
def test_legacy_to_new_to_legacy_loads_strictly_and_is_the_same(
    scratch: Path, variant: str, assert_same: SameBytes
) -> None:
    weights = mmdet_models.random_bits(stored_layout(variant, "ddq_detr", "legacy"))
    torch.save(weights, scratch / "legacy.pth")
    _convert(scratch / "legacy.pth", scratch / "new.pth")
    _convert(scratch / "new.pth", scratch / "back.pth", "--to", "legacy")
    assert_same(_official(variant, scratch / "back.pth"), weights)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Train the official tiny model for one step; return the checkpoint that its Runner would save."""
    weights, inputs = tmp_path / "weights.safetensors", tmp_path / "inputs.safetensors"
    save_file(weights_of("tiny_r18", 0, side="legacy"), weights)
    save_file(seeded_batch([(128, 160), (96, 128)], 0, 3).to_tensors(), inputs)
    script = HERE.parent / "parity" / "legacy_training_step.py"
    _python(tmp_path, script, REPO, _overrides("tiny_r18"), weights, inputs, tmp_path / "iter_1.pth")
    return tmp_path / "iter_1.pth"


def test_trained_official_checkpoint_loads_into_mmdet_after_one_command(
    trained: Path, tmp_path: Path, assert_same: SameBytes
) -> None:
    source = torch.load(trained, weights_only=False)["state_dict"]
    assert ", 18 duplicates dropped -> " in _convert(trained, tmp_path / "clean.pth", "--to", "legacy")
    model = mmdet_models.build("tiny_r18")
    model.load_state_dict(torch.load(tmp_path / "clean.pth", weights_only=True)["state_dict"], strict=True)
    loaded = dict(model.state_dict())
    assert_same(loaded, {key: source[key] for key in loaded})
    assert len(source) == len(loaded) + 18


def test_trained_official_checkpoint_comes_back(trained: Path, tmp_path: Path, assert_same: SameBytes) -> None:
    source = torch.load(trained, weights_only=False)["state_dict"]
    _convert(trained, tmp_path / "new.pth")
    _convert(tmp_path / "new.pth", tmp_path / "back.pth", "--to", "legacy")
    held = _official("tiny_r18", tmp_path / "back.pth")
    assert_same(held, {key: source[key] for key in held})


def test_trained_mmdet_checkpoint_loads_into_the_official_code_after_one_command(
    tmp_path: Path, assert_same: SameBytes
) -> None:
    trained = mmdet_models.trained_state(mmdet_models.build("tiny_r18"))
    torch.save({"state_dict": trained}, tmp_path / "epoch_12.pth")
    _convert(tmp_path / "epoch_12.pth", tmp_path / "clean.pth", "--to", "legacy", "--family", "mmdet_ddq")
    held = _official("tiny_r18", tmp_path / "clean.pth")
    assert_same(held, {key: trained[key] for key in held})

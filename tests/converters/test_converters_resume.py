"""Trainings that mmengine's own Runner stops in one code base and resumes in the other take the same steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

pytest.importorskip("ddq_port")
pytest.importorskip("mmdet")

from converters import api
from converters.examining import diff, inspection, verification
from converters.options import Options
from converters.rules import engine
from ddq_port import configs
from legacy_adapters import mmdet3, registry
from parity.sides.prepare import seeded_batch
from tests.models import layout_of as stored_layout
from tests.models import mapping as mapping_of
from tests.models import weights_of

from . import mmdet_models, runner

REPO = os.environ.get("DDQ_LEGACY_REPO", "")
NEEDS_REPO = pytest.mark.skipif(not REPO, reason="DDQ_LEGACY_REPO is not set (jshilong/DDQ, branch ddq_detr)")
VARIANT = "tiny_r18"


@dataclass(frozen=True)
class Given:
    """Batches of an epoch and the weights to start from, of both sides."""

    batches: list[str]
    legacy: Path
    new: Path


@pytest.fixture(autouse=True)
def mmdet_scope() -> Iterator[None]:
    """Look names up where a Runner of mmdet does, whatever scope other tests' Runners have left."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("given")
    batches = [str(folder / f"{number}.safetensors") for number in range(runner.BATCHES)]
    for number, path in enumerate(batches):
        save_file(seeded_batch([(64, 64)], number, 3).to_tensors(), path)
    weights = weights_of(VARIANT, 0, side="legacy")
    target = stored_layout(VARIANT)
    converted = engine.convert(weights, mapping_of("ddq_detr", VARIANT), "new", target).state_dict
    for name, tensors in (("legacy", weights), ("new", dict(converted))):
        save_file(tensors, folder / name)
    return Given(batches, folder / "legacy", folder / "new")


def _train_new(given: Given, folder: Path, epochs: int, start: Path | None = None) -> None:
    path = str(configs.path(configs.VARIANTS[VARIANT]))
    import ddq_port.models  # noqa: F401  (registers the detectors)

    model = mmdet3.build_model(path)
    _train(model, mmdet3.load_config(path), given.new, given, folder, epochs, start)


def _train_mmdet(given: Given, folder: Path, epochs: int, start: Path | None = None) -> None:
    config = mmdet_models.config(VARIANT)
    _train(mmdet_models.build(VARIANT), config, given.legacy, given, folder, epochs, start)


def _train(
    model: nn.Module, config: Any, weights: Path, given: Given, folder: Path, epochs: int, start: Path | None
) -> None:
    model.load_state_dict(load_file(weights), strict=True)
    folder.mkdir()
    at = None if start is None else str(start)
    runner.train(model, runner.shortened(config), given.batches, folder, epochs, at)


def _train_official(given: Given, folder: Path, epochs: int, start: Path | None = None) -> None:
    folder.mkdir()
    job = dict(
        repo=REPO,
        config=registry.get("ddq_detr").variant(VARIANT).legacy["config"],
        overrides=str(configs.path(configs.VARIANTS[VARIANT])),
        weights=str(given.legacy),
        batches=given.batches,
        folder=str(folder),
        epochs=epochs,
        start=None if start is None else str(start),
    )
    (folder / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("runner.py")
    command = [sys.executable, script, folder / "job.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


LEGACY_SIDES = [
    pytest.param("mmdet_ddq", _train_mmdet, id="mmdet"),
    pytest.param("ddq_detr", _train_official, id="official", marks=NEEDS_REPO),
]


def _converted(source: Path, name: str, to: str, family: str) -> Path:
    path = source.with_name(name)
    api.convert_file(source, path, Options(to=to, family=family))
    return path


def _same(found: Any, expected: Any, where: str = "") -> None:
    """Compare two checkpoints' parts, tensors bit by bit, and name the first place that differs."""
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            _same(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for index, (one, two) in enumerate(zip(found, expected)):
            _same(one, two, f"{where}/{index}")
    else:
        assert found == expected, where


def _assert_same_training(found: Path, expected: Path) -> None:
    """Compare both sets of weights of two checkpoints, optimizer, schedules, and the place in the training."""
    one, two = (torch.load(path, weights_only=False) for path in (found, expected))
    for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers"):
        _same(one[part], two[part], part)
    assert not torch.equal(one["state_dict"]["level_embed"], one["ema_state_dict"]["module.level_embed"])
    assert (one["meta"]["epoch"], one["meta"]["iter"]) == (two["meta"]["epoch"], two["meta"]["iter"])


@pytest.mark.parametrize(("family", "train_legacy"), LEGACY_SIDES)
def test_every_key_that_a_real_average_leaves_is_accounted_for(
    given: Given, tmp_path: Path, family: str, train_legacy: Callable[..., None]
) -> None:
    """The duplicates in its state dict repeat the training weights, not the averaged ones beside them."""
    train_legacy(given, tmp_path / "legacy", epochs=1)
    source = tmp_path / "legacy" / "epoch_1.pth"
    seen = inspection.inspect_file(source)
    assert [(held.name, held.tensors, held.duplicates, len(held.duplicates_differing)) for held in seen.sets] == [
        ("averaged weights", 308, 18, 18),
        ("training weights", 308, 18, 0),
    ]
    for keep in (None, "ema", "model"):
        out = tmp_path / f"{keep}.pth"
        plan = api.convert_file(source, out, Options(family=family, keep=keep)).plan
        assert [len(account.ledger.entries) for account in plan.accounts] == [326, 308]
        assert plan.ledger.count("drop_duplicate") == 18
        verification.verify_file(out, source)
        assert diff.diff_files(source, out).is_empty
        assert torch.load(out, weights_only=True).keys() >= {"meta", "state_dict"}


@pytest.mark.parametrize(("family", "train_legacy"), LEGACY_SIDES)
def test_new_code_goes_on_where_the_legacy_code_stopped(
    given: Given, tmp_path: Path, family: str, train_legacy: Callable[..., None]
) -> None:
    train_legacy(given, tmp_path / "legacy", epochs=2)
    resumed = _converted(tmp_path / "legacy" / "epoch_1.pth", "resumed.pth", "new", family)
    _train_new(given, tmp_path / "new", epochs=2, start=resumed)
    expected = _converted(tmp_path / "legacy" / "epoch_2.pth", "expected.pth", "new", family)
    _assert_same_training(tmp_path / "new" / "epoch_2.pth", expected)


@pytest.mark.parametrize(("family", "train_legacy"), LEGACY_SIDES)
def test_legacy_code_goes_on_where_the_new_code_stopped(
    given: Given, tmp_path: Path, family: str, train_legacy: Callable[..., None]
) -> None:
    _train_new(given, tmp_path / "new", epochs=2)
    resumed = _converted(tmp_path / "new" / "epoch_1.pth", "resumed.pth", "legacy", family)
    train_legacy(given, tmp_path / "legacy", epochs=2, start=resumed)
    again = _converted(tmp_path / "legacy" / "epoch_2.pth", "again.pth", "new", family)
    _assert_same_training(again, tmp_path / "new" / "epoch_2.pth")

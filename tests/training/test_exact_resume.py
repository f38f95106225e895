"""Trainings that are stopped and resumed, against the same ones uninterrupted: equal losses, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel  # noqa: F401

from ddq_port.hooks.exact_resume import KEY

from . import toy

AMP = dict(
    type="ddq_port.AmpOptimWrapper",
    dtype="bfloat16",
    loss_scale=dict(init_scale=4.0, growth_interval=3),
    optimizer=dict(type="AdamW", lr=0.05),
)
ACCUMULATE = dict(optimizer=dict(type="SGD", lr=0.05, momentum=0.9), accumulative_counts=3)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(folder: Path, *, stop_at: int | None = None, **settings: Any) -> toy.Record:
    record = toy.Record(stop_at)
    run = toy.runner(folder, record, **settings)
    toy.losses_of(run, record)
    record.read = list(run.train_dataloader.dataset.read)
    return record


def content(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for index, (one, two) in enumerate(zip(found, expected)):
            assert_same(one, two, f"{where}/{index}")
    else:
        assert found == expected, where


def assert_ended_alike(found: Path, expected: Path) -> None:
    """Compare all that the last checkpoints of two trainings hold of the training's state."""
    one, two = content(found), content(expected)
    for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers", KEY):
        assert (part in one) == (part in two)
        assert_same(one.get(part), two.get(part), part)
    logged = [part["message_hub"]["log_history"]["train/loss"] for part in (one, two)]
    assert_same(*logged, "log")


@pytest.mark.parametrize("by_epoch", [True, False], ids=["epochs", "iterations"])
@pytest.mark.parametrize(
    ("stops", "settings"),
    [
        # checkpoints after every 2nd of 21 iterations; the first epoch ends after the 7th
        pytest.param((4, 16), dict(), id="mid-epoch"),
        pytest.param((8, 15), dict(interval=7), id="at the end of an epoch"),
        pytest.param((12,), dict(loader=dict(num_workers=2, persistent_workers=True)), id="workers"),
        pytest.param((12,), dict(hooks=[dict(type="EMAHook", momentum=0.1)]), id="EMA"),
        pytest.param((12,), dict(optim_wrapper=AMP), id="AMP"),
        pytest.param((12,), dict(optim_wrapper=ACCUMULATE), id="accumulated gradients"),
        pytest.param((12,), dict(randomness=dict(seed=None)), id="no seed"),
    ],
)
def test_resumed_training_takes_the_steps_of_the_uninterrupted_one(
    tmp_path: Path, by_epoch: bool, stops: tuple[int, ...], settings: dict[str, Any]
) -> None:
    losses: dict[int, str] = {}
    for number, stop_at in enumerate((*stops, None)):
        losses |= train(tmp_path / "stopped", by_epoch=by_epoch, stop_at=stop_at, resume=number > 0, **settings).losses
    if settings.get("randomness"):
        drawn = content(tmp_path / "stopped" / "iter_2.pth")["meta"]["seed"]
        settings = dict(randomness=dict(seed=drawn))
    whole = train(tmp_path / "whole", by_epoch=by_epoch, **settings)
    assert losses == whole.losses and len(losses) == 21
    last = f"iter_{21 if settings.get('interval') else 20}.pth"
    assert_ended_alike(tmp_path / "stopped" / last, tmp_path / "whole" / last)

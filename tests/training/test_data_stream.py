"""Random states put back, and data that depend on seed, rank and place in the training only."""

from __future__ import annotations

import ddq_port.hooks  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from ddq_port.hooks import random_state
from ddq_port.hooks.data_stream import BatchOrder, SeededDataset

from . import toy


def drawn() -> tuple[float, ...]:
    """Draw from each generator; numpy's and Python's keep half of a pair of normal numbers."""
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))


@pytest.mark.parametrize("number", range(5), ids=["random", "gauss", "rand", "randn", "torch"])
def test_every_generator_is_restored(number: int) -> None:
    drawn()
    state = random_state.capture()
    first, second = drawn()[number], drawn()[number]
    random_state.restore(state)
    assert (drawn()[number], drawn()[number]) == (first, second)


def test_state_is_loaded_without_running_code(tmp_path: Any) -> None:
    state = random_state.capture()
    expected = drawn()
    torch.save(state, tmp_path / "state.pth")
    random_state.restore(torch.load(tmp_path / "state.pth", weights_only=True))
    assert drawn() == expected


def test_seeding_for_a_while_leaves_no_trace() -> None:
    state = random_state.capture()
    expected = drawn()
    random_state.restore(state)
    with pytest.raises(KeyError), random_state.kept():
        random_state.seed_cpu(1, 2)
        drawn()
        raise KeyError
    assert drawn() == expected


def test_draws_of_a_private_stream_depend_on_its_key_only() -> None:
    def draws(*key: int) -> list[tuple[float, ...]]:
        drawn()
        return [(item, drawn())[0] for item in random_state.PrivateStream((drawn() for _ in range(3)), *key)]

    assert draws(1, 2) == draws(1, 2) != draws(1, 3)


def loaded(epoch: int = 0, rank: int = 0, seed: int = 0, start: int = 0) -> list[tuple[float, ...]]:
    """Load a pass of 3 batches from a place on; return image and draws of each sample."""
    data = toy.Images(6)
    order = BatchOrder(BatchSampler(SequentialSampler(data), 2, drop_last=False), seed, rank)
    order.begin(epoch, start)
    return [tuple(item["inputs"].tolist()) for batch in order for item in SeededDataset(data).__getitems__(batch)]


def test_every_sample_of_a_training_has_its_own_draws() -> None:
    settings = [dict(), dict(epoch=1), dict(rank=1), dict(seed=1)]
    samples = [sample for setting in settings for sample in loaded(**setting)]
    for number in (1, 2, 3):  # one draw of each generator
        assert len({sample[number] for sample in samples}) == len(samples) == 24


def test_a_pass_may_begin_anywhere() -> None:
    whole = loaded(epoch=4)
    for start in range(4):
        assert loaded(epoch=4, start=start) == whole[2 * start :]

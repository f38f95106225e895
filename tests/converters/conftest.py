"""Tiny seeded checkpoints, made from the layouts alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from tests.models import layout_of as stored_layout

# the same examples in every run, on every machine, however slow
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("fixed")

StateDict = dict[str, Tensor]


def _tensor(dtype: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if dtype == "int64":
        return torch.randint(0, 1000, shape, generator=generator)
    return torch.randn(shape, generator=generator, dtype=getattr(torch, dtype))


@pytest.fixture
def make_state() -> Callable[..., StateDict]:
    """Return a function that makes a random state dict of a variant's layout."""

    def make(side: str = "legacy", variant: str = "tiny_r18", duplicates: bool = False) -> StateDict:
        generator = torch.Generator().manual_seed(7)
        tensors = stored_layout(variant, side=side).tensors
        state = {key: _tensor(spec.dtype, spec.shape, generator) for key, spec in tensors.items()}
        if duplicates:
            aux = [key for key in state if key.startswith("bbox_head.aux_reg_branches.")]
            state.update({key.replace("bbox_head.", "decoder."): state[key] for key in aux})
        return state

    return make


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for files of full size; unlike `tmp_path` it is not kept for later looks."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def legacy_file(tmp_path: Path, make_state: Callable[..., StateDict]) -> Path:
    """Save a trained-looking legacy checkpoint with duplicates."""
    path = tmp_path / "legacy.pth"
    torch.save({"meta": {"epoch": 12}, "state_dict": make_state(duplicates=True)}, path)
    return path


@pytest.fixture
def assert_same() -> Callable[[StateDict, StateDict], None]:
    """Return a function that compares two state dicts bit by bit."""

    def check(first: StateDict, second: StateDict) -> None:
        assert first.keys() == second.keys()
        for key in first:
            assert first[key].dtype == second[key].dtype, key
            assert first[key].shape == second[key].shape, key
            assert first[key].numpy().tobytes() == second[key].numpy().tobytes(), key

    return check

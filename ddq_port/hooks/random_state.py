"""The random number generators of a process: capture, restore, seed for a while."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def capture(cuda: bool = True) -> dict[str, Any]:
    """Return the state of Python's, numpy's and torch's generators, as plain values and uint8 tensors on the CPU.

    Args:
        cuda: also of every CUDA device; without CUDA that is an empty list.
    """
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, internal, gauss_next = random.getstate()
    return dict(
        python=(version, tuple(internal), gauss_next),
        numpy=(kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all() if cuda and torch.cuda.is_available() else [],
    )


def restore(state: dict[str, Any]) -> None:
    """Set all generators to a captured state, also one whose tensors were moved to another device meanwhile.

    CUDA states are set on as many devices as there are, at most.
    """
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"].cpu())
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for device, cuda_state in zip(range(devices), state["cuda"]):
        torch.cuda.set_rng_state(cuda_state.cpu(), device)


def seed_cpu(*key: int) -> None:
    """Seed Python's, numpy's and torch's CPU generator as a function of ``key``, integers of at least 0.

    CUDA generators are left alone, unlike ``torch.manual_seed`` does it.
    """
    words = np.random.SeedSequence(key).generate_state(8)  # 8 x 32 bit
    np.random.seed(words[:4])
    random.seed(int(words[4]) << 32 | int(words[5]))
    torch.default_generator.manual_seed(int(words[6]) << 31 | int(words[7]) >> 1)


@contextmanager
def kept() -> Iterator[None]:
    """Put the CPU generators back at the end to where they were."""
    state = capture(cuda=False)
    try:
        yield
    finally:
        restore(state)


class PrivateStream:
    """An iterator whose draws from the CPU generators come from a stream of its own and leave no trace outside.

    Args:
        items: what is iterated.
        key: seeds the stream; integers of at least 0.
    """

    def __init__(self, items: Iterable[Any], *key: int) -> None:
        with kept():
            seed_cpu(*key)
            self._items = iter(items)
            self._state = capture(cuda=False)

    def __iter__(self) -> PrivateStream:
        return self

    def __next__(self) -> Any:
        with kept():
            restore(self._state)
            item = next(self._items)
            self._state = capture(cuda=False)
        return item

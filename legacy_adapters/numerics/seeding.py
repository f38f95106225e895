"""Seeds of everything random: a hash of the run's seed and of what it is for, never a number that code could repeat.

A port that seeds anew with a literal, 0 say, would draw what the other side draws if that were seeded with 0, too. So
that it is seen under replayed draws as well, the states of the generators are recorded wherever they have changed.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any, Callable, Dict

import numpy
import torch


def seed_of(seed: int, purpose: str) -> int:
    """Return a whole number in [0, 2^63), another one for every ``seed`` and every ``purpose``."""
    digest = hashlib.sha256("{} of {}".format(purpose, seed).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_all(seed: int, purpose: str) -> None:
    """Seed torch's, numpy's and Python's generators for ``purpose``: a phase of a run, ``build``, ``detect``."""
    number = seed_of(seed, purpose)
    torch.manual_seed(number)
    numpy.random.seed([number & 0xFFFFFFFF, number >> 32])
    random.seed(number)


def _numpys_state() -> Any:
    kind, keys, *rest = numpy.random.get_state()
    return kind, keys.tobytes(), rest


_STATES: Dict[str, Callable[[], Any]] = {
    "torch": lambda: torch.get_rng_state().numpy().tobytes(),
    "numpy": _numpys_state,
    "python": random.getstate,
}


class RandomWatch:
    """Notice changes of the states of torch's CPU generator, numpy's and Python's."""

    def __init__(self) -> None:
        self._last: Dict[str, Any] = {}

    def moved(self) -> Dict[str, torch.Tensor]:
        """Return a digest of every state that is another one than when this was last asked, by the generator's name."""
        states = {name: state() for name, state in _STATES.items()}
        moved = {name: state for name, state in states.items() if state != self._last.get(name)}
        self._last = states
        return {name: _digest(state) for name, state in moved.items()}

    def all(self) -> Dict[str, torch.Tensor]:
        """Return a digest of every state."""
        return {name: _digest(state()) for name, state in _STATES.items()}


def _digest(state: Any) -> torch.Tensor:
    return torch.tensor(list(hashlib.sha256(repr(state).encode()).digest()[:16]), dtype=torch.uint8)

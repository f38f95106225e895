"""Refuse a checkpoint with NaN or infinite numbers before anything is built of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ddq_port.hooks import not_finite
from ddq_port.training.loading import weights
from ddq_port.training.loading.weights import WeightsError


def check(file: Path, content: Mapping[str, Any], resumed: bool = False) -> None:
    """Look at all numbers of a checkpoint that a training or an evaluation takes.

    Args:
        file: its name, for the message.
        content: what :func:`weights.read` gave.
        resumed: look at averaged weights and at the state of the optimizer, too.

    Raises:
        WeightsError: naming the first tensor.
    """
    tensors = list(weights.state_of(content).items())
    if resumed:
        for part in ("ema_state_dict", "optimizer"):
            tensors += _tensors(content.get(part), part)
    found = not_finite.first_of(tensors)
    if found is None:
        return
    name, values, bad, total = found
    more = f"; {bad} of {total} tensors are not finite" if bad > 1 else ""
    raise WeightsError(
        f"{file} holds numbers that are not finite: `{name}` ({values}{more}). Take an earlier checkpoint."
    )


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _tensors(part, f"{name}.{number}")

"""What both sides of a task are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from converters.rules.ports import Port


@dataclass(frozen=True)
class Prepared:
    """What both sides are given.

    Attributes:
        port: the model, with its layouts.
        weights: state dict of each side.
        given: named tensors, those for inference and those for losses and gradients, by phase.
    """

    port: Port
    weights: dict[str, Mapping[str, Tensor]]
    given: dict[str, Mapping[str, Tensor]]

    def inputs(self) -> dict[str, Tensor]:
        """Return the inputs of all phases as named tensors, for one file."""
        return {f"{phase}.{name}": value for phase, tensors in self.given.items() for name, value in tensors.items()}

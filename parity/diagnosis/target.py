"""What is known of a legacy side's record in place of its tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from legacy_adapters.recording.trace_writer import Record

from .measuring import off


@dataclass(frozen=True)
class Target:
    """The sketch of what the legacy side has.

    Attributes:
        reference: the sketch, of float64.
        sketch: makes the sketch of a tensor.
        others: the other records of the legacy side and their sketches.
    """

    reference: np.ndarray
    sketch: Callable[[Tensor], np.ndarray]
    others: Callable[[], Iterable[tuple[Record, np.ndarray]]] = field(default=tuple, repr=False)

    def off(self, tensor: Tensor) -> float:
        """Return how far a tensor is from the legacy side's, as a share of its size."""
        return off(self.sketch(tensor), self.reference)

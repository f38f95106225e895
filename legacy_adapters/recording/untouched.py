"""Whether code leaves the batch it is given as it was: a change in place shows nowhere if nothing reads it again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch

from .trace_writer import content_digest


class Untouched:
    """Compares batches before and after they are used.

    Attributes:
        changed: phase and name of each tensor that is another one afterwards.
    """

    def __init__(self) -> None:
        self.changed: List[Tuple[str, str]] = []

    @contextmanager
    def given(
        self, phase: str, tensors: Dict[str, torch.Tensor], batch: Callable[[Dict[str, torch.Tensor]], Any]
    ) -> Iterator[Any]:
        """Hand a batch to code, which runs within.

        Args:
            phase: in which that is.
            tensors: of the batch, by name.
            batch: makes the batch of them, in their memory.
        """
        before = _digests(tensors)
        try:
            yield batch(tensors)
        finally:
            after = _digests(tensors)
            self.changed += [(phase, name) for name in before if before[name] != after[name]]


def _digests(tensors: Dict[str, torch.Tensor]) -> Dict[str, str]:
    return {name: content_digest(tensor.detach().cpu()) for name, tensor in tensors.items()}

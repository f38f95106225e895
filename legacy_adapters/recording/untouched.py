"""Whether code leaves the batch it is given as it was: a change in place shows nowhere if nothing reads it again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Dict, Iterator, List, Tuple

from ..inputs import Batch
from .trace_writer import content_digest


class Untouched:
    """Compares batches before and after they are used.

    Attributes:
        changed: phase and name, as in :meth:`Batch.to_tensors`, of each tensor that is another one afterwards.
    """

    def __init__(self) -> None:
        self.changed: List[Tuple[str, str]] = []

    @contextmanager
    def given(self, phase: str, batch: Batch) -> Iterator[Batch]:
        """Hand a batch to code, which runs within."""
        before = _digests(batch)
        try:
            yield batch
        finally:
            after = _digests(batch)
            self.changed += [(phase, name) for name in before if before[name] != after[name]]


def _digests(batch: Batch) -> Dict[str, str]:
    return {name: content_digest(tensor.detach().cpu()) for name, tensor in batch.to_tensors().items()}

"""Read tensors of another side's trace, by their digests."""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping

import torch

from ..numerics.precision import as_stored


class StoredTensors:
    """The tensors of a trace; its files are opened when they are first needed.

    Args:
        folder: of the trace.
        shards: digest -> name of the file that holds the tensor.
    """

    def __init__(self, folder: str, shards: Mapping[str, str]) -> None:
        self._folder, self._shards = folder, shards
        self._open: Dict[str, Any] = {}

    def read(self, digest: str) -> torch.Tensor:
        """Return a tensor in its own dtype, whatever this process computes in."""
        from safetensors import safe_open  # a script that only records need not have it

        shard = self._shards[digest]
        with as_stored():
            if shard not in self._open:
                self._open[shard] = safe_open(os.path.join(self._folder, shard), framework="pt")
            return self._open[shard].get_tensor(digest)

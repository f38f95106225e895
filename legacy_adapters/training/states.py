"""Read from another side's trace the weights and the optimizer's state that a step of a training left."""

from __future__ import annotations

import json
import os
from typing import Dict, Iterator, Mapping, Tuple

import torch

from ..recording import kinds
from ..recording.stored import StoredTensors
from ..recording.trace_writer import INDEX_NAME

KINDS = (kinds.STATE, kinds.OPTIM_STATE)


class RecordedStates:
    """What a trace holds of the weights, buffers and the optimizer's state after each phase.

    Args:
        folder: of the trace.
        names: its names of this side's parameters and buffers, where they differ.
    """

    def __init__(self, folder: str, names: Mapping[str, str]) -> None:
        with open(os.path.join(folder, INDEX_NAME), encoding="utf-8") as file:
            index = json.load(file)
        self._tensors = StoredTensors(folder, index["shards"])
        ours = {theirs: name for name, theirs in names.items()}
        self._digests: Dict[str, Dict[Tuple[str, str, str], str]] = {}
        for record in index["records"]:
            if record["kind"] in KINDS:
                key = (record["kind"], ours.get(record["name"], record["name"]), record["slot"])
                self._digests.setdefault(record["phase"], {})[key] = record["digest"]

    def after(self, phase: str) -> Iterator[Tuple[str, str, str, torch.Tensor]]:
        """Yield kind, name on this side, slot and tensor of everything that ``phase`` left."""
        for (kind, name, slot), digest in self._digests.get(phase, {}).items():
            yield kind, name, slot, self._tensors.read(digest)

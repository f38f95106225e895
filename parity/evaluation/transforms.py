"""Which transform of one side is whose on the other, and how what two of them leave differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from torch import Tensor

from legacy_adapters.tasks.preprocessing import PREPROCESSOR

from ..traces.trace import Trace


@dataclass(frozen=True)
class Twins:
    """Which transform of the new side is whose.

    Attributes:
        new_of: names of the new side by those of the legacy side, of whole transforms.
        new: names of all transforms of the new side.
    """

    new_of: Mapping[str, str]
    new: frozenset[str]

    def of(self, name: str) -> str | None:
        """Return the twin of a transform, or of one inside another; None if the new side has none."""
        if name == PREPROCESSOR:
            return name
        head, slash, rest = name.partition("/")
        twin = self.new_of.get(head)
        return None if twin is None else f"{twin}{slash}{rest}"

    def is_lone(self, name: str) -> bool:
        """Tell whether a transform of the new side is no one's twin."""
        return name != PREPROCESSOR and name.partition("/")[0] not in self.new_of.values()


def twins_of(legacy: Trace, new: Trace, kind: str) -> Twins:
    """Pair the transforms of a pipeline by their classes, in order."""
    names = [list(trace.provenance.get("transforms", {}).get(kind, ())) for trace in (legacy, new)]
    classes = [[name.partition(".")[2] for name in of_side] for of_side in names]
    if classes[0] != classes[1] and len(classes[0]) == len(classes[1]):
        pairs = list(zip(*names))  # one class may stand for another, in its place
        same = [(one, two) for one, two in pairs if one == two]
        if len(same) >= len(pairs) - len(pairs) // 2:
            return Twins(dict(pairs), frozenset(names[1]))
    blocks = SequenceMatcher(None, *classes, autojunk=False).get_matching_blocks()
    matched = {
        names[0][block.a + offset]: names[1][block.b + offset] for block in blocks for offset in range(block.size)
    }
    return Twins(matched, frozenset(names[1]))


def describe(legacy: Tensor, new: Tensor) -> str:
    """Say how two tensors differ: in type, size, order of channels, or by how much."""
    if legacy.shape != new.shape:
        return f"{list(legacy.shape)} became {list(new.shape)}"
    if legacy.dtype != new.dtype:
        kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in (legacy, new)]
        return f"{kinds[0]} became {kinds[1]}"
    for axis in range(legacy.dim()):
        if legacy.dim() >= 3 and legacy.size(axis) == 3 and axis in (0, 1, legacy.dim() - 1):
            if torch.equal(legacy, new.flip(axis)):
                return "the three channels come in the opposite order"
    if legacy.dim() >= 2:
        for axis, what in ((-1, "last"), (-2, "last but one")):
            if torch.equal(legacy, new.flip(axis)):
                return f"mirrored along the {what} axis"
    gap = (legacy.double() - new.double()).abs()
    share = (gap > 0).double().mean().item()
    return f"{share:.1%} of the elements differ, by up to {gap.max().item():.3g}"


def short(value: Tensor) -> str:
    """Return up to four numbers as text, and how many there are of more."""
    numbers = value.double().reshape(-1).tolist()
    return ", ".join(f"{number:g}" for number in numbers) if len(numbers) <= 4 else f"{len(numbers)} numbers"

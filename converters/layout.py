"""What a model's state dict looks like: every key with its dtype and shape."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from converters import families
from converters.mapping import Mapping as KeyMapping
from converters.pattern import Pattern

if TYPE_CHECKING:
    from torch import Tensor, nn

    from converters.stored import StoredTensor

LEGACY, NEW = "legacy", "new"
_FOLDER = Path(__file__).parent / "layouts"


@dataclass(frozen=True)
class TensorSpec:
    """A tensor without its values; `dtype` as torch writes it, less the `torch.`."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The keys of one model, each with its tensor's dtype and shape.

    Attributes:
        variant: The variant's name, for messages.
        tensors: Key to specification, sorted by key.
    """

    variant: str
    tensors: Mapping[str, TensorSpec]

    def mapped(self, mapping: KeyMapping) -> Layout:
        """Return the layout that `mapping` makes of this one."""
        pairs = ((mapping.target_of(key), spec) for key, spec in self.tensors.items())
        return Layout(self.variant, dict(sorted((key, spec) for key, spec in pairs if key is not None)))

    def with_classes(self, class_keys: Iterable[str], count: int) -> Layout:
        """Return the layout of the same model with another number of classes."""
        keys = {key for same in class_counts(self.tensors, class_keys).values() for key in same}
        changed = {key: replace(self.tensors[key], shape=(count, *self.tensors[key].shape[1:])) for key in keys}
        return replace(self, tensors={**self.tensors, **changed})

    def to_json(self) -> str:
        """Write the layout as JSON, one key per line, sorted; the same layout gives the same bytes."""
        lines = (
            f"{json.dumps(key)}:{json.dumps([spec.dtype, list(spec.shape)], separators=(',', ':'))}"
            for key, spec in sorted(self.tensors.items())
        )
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, variant: str, text: str) -> Layout:
        """Read what `to_json` wrote."""
        tensors = {key: TensorSpec(dtype, tuple(shape)) for key, (dtype, shape) in sorted(json.loads(text).items())}
        return cls(variant, tensors)


@cache
def load(variant: str, family: str = "ddq_detr", side: str = NEW) -> Layout:
    """Load the layout of a variant from the package's data.

    Only the new side is stored; the legacy one follows from it by the inverse mapping.

    Raises:
        UnknownFamilyError: If there is no such family or variant.
    """
    mapping = families.mapping(family, variant)
    if side != NEW:
        return load(variant, family).mapped(mapping.inverse())
    name = f"{families.family(family).layouts}.{variant}.json"
    return Layout.from_json(variant, (_FOLDER / name).read_text(encoding="utf-8"))


def spec_of(tensor: StoredTensor | Tensor) -> TensorSpec:
    """Describe one tensor."""
    return TensorSpec(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def layout_of(model: nn.Module, variant: str) -> Layout:
    """Describe the state dict of `model`, which may live on the meta device."""
    return Layout(variant, {key: spec_of(tensor) for key, tensor in sorted(model.state_dict().items())})


def class_counts(tensors: Mapping[str, TensorSpec], class_keys: Iterable[str]) -> dict[int, list[str]]:
    """Group the tensors that have one row per class by their number of rows."""
    patterns = [Pattern(text) for text in class_keys]
    counts: dict[int, list[str]] = {}
    for key, spec in tensors.items():
        if spec.shape and any(pattern.match(key) is not None for pattern in patterns):
            counts.setdefault(spec.shape[0], []).append(key)
    return counts

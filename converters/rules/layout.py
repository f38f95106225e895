"""What a model's state dict looks like: every key with its dtype and shape."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from converters.errors import DtypeMismatchError, MissingKeyError, ShapeMismatchError, listed
from converters.rules.changing import UnfitShapeError
from converters.rules.class_rows import held
from converters.rules.mapping import Application
from converters.rules.mapping import Mapping as KeyMapping

if TYPE_CHECKING:
    from torch import Tensor

    from converters.formats.stored import StoredTensor

_BUFFER, _FROZEN, _SHARED = "buffer", "frozen", "shared"  # what a key's line in a file says of it beside its form


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
        tensors: Key to specification, in the model's order: that of its state dict.
        buffers: Keys that are no parameters.
        frozen: Parameters that the model's config does not train.
        shared: Keys of parameters that stand under an earlier key, too.
    """

    variant: str
    tensors: Mapping[str, TensorSpec]
    buffers: frozenset[str] = frozenset()
    frozen: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Name the parameters in the model's order, in which an optimizer is given them; each once, by its first name."""
        return tuple(key for key in self.tensors if key not in self.buffers and key not in self.shared)

    def mapped(self, mapping: KeyMapping) -> Layout:
        """Return the layout that `mapping` makes of this one; what is joined is frozen if all its parts are.

        Raises:
            UnmappedKeyError: If a key has no rule.
            ConversionError: One of its subclasses, if tensors do not fit the rule that changes them.
        """
        named: dict[str, TensorSpec] = {}
        buffers: set[str] = set()
        frozen: set[str] = set()
        shared: set[str] = set()
        for key in self.tensors:
            mapping.targets_of(key)  # every key has a rule
        for one in mapping.applications(self.tensors):
            named |= fitting_specs(one, self.tensors)
            buffers |= set(one.targets) if self.buffers.issuperset(one.sources) else set()
            frozen |= set(one.targets) if self.frozen.issuperset(one.sources) else set()
            shared |= set(one.targets) if self.shared.issuperset(one.sources) else set()
        ordered = {key: named[key] for key in model_order(named)}
        return Layout(self.variant, ordered, frozenset(buffers), frozenset(frozen), frozenset(shared))

    def ordered(self, keys: Iterable[str]) -> Layout:
        """Return the layout in the order of a state dict's `keys`; tensors that it lacks come last."""
        known = [key for key in keys if key in self.tensors]
        return replace(self, tensors={key: self.tensors[key] for key in (*known, *self.tensors)})

    def with_classes(self, class_keys: Iterable[str], count: int) -> Layout:
        """Return the layout of the same model with another number of classes."""
        forms = held((key for key, spec in self.tensors.items() if spec.shape), class_keys)
        changed = {
            key: replace(self.tensors[key], shape=(form.rows(count), *self.tensors[key].shape[1:]))
            for key, form in forms.items()
        }
        return replace(self, tensors={**self.tensors, **changed})

    def to_json(self) -> str:
        """Write the layout as JSON, one key per line, in the model's order; the same layout gives the same bytes."""
        lines = (
            f"{json.dumps(key)}:{json.dumps([spec.dtype, list(spec.shape), *self._role(key)], separators=(',', ':'))}"
            for key, spec in self.tensors.items()
        )
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def _role(self, key: str) -> tuple[str, ...]:
        roles = ((_BUFFER, self.buffers), (_FROZEN, self.frozen), (_SHARED, self.shared))
        return tuple(role for role, keys in roles if key in keys)

    @classmethod
    def from_json(cls, variant: str, text: str) -> Layout:
        """Read what `to_json` wrote."""
        return cls.from_entries(variant, json.loads(text))

    @classmethod
    def from_entries(cls, variant: str, entries: Mapping[str, Sequence[Any]]) -> Layout:
        """Make a layout of key -> dtype, shape and role."""
        tensors = {key: TensorSpec(dtype, tuple(shape)) for key, (dtype, shape, *_) in entries.items()}
        buffers, frozen, shared = (
            frozenset(key for key, entry in entries.items() if role in entry[2:]) for role in (_BUFFER, _FROZEN, _SHARED)
        )
        return cls(variant, tensors, buffers, frozen, shared)


def fitting_specs(one: Application, specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Return the targets of a rule with what its sources make of them.

    Args:
        one: The rule and its keys.
        specs: Of the sources, by key.

    Raises:
        MissingKeyError: If a source is not there.
        DtypeMismatchError: If the sources have several dtypes.
        ShapeMismatchError: If one of them does not fit the rule, or the others.
    """
    missing = [key for key in one.sources if key not in specs]
    if missing:
        raise MissingKeyError(
            f"Key `{missing[0]}` is missing from the source, expected for rule {one.index} (`{one.rule.text}`) beside "
            f"{listed(key for key in one.sources if key in specs)}; check that the source is complete."
        )
    dtypes = {specs[key].dtype for key in one.sources}
    if len(dtypes) > 1:
        raise DtypeMismatchError(
            f"Keys {listed(one.sources)} have dtypes {', '.join(sorted(dtypes))}, expected one for rule {one.index} "
            f"(`{one.rule.text}`); save the source with one dtype."
        )
    try:
        shapes = one.rule.shapes([specs[key].shape for key in one.sources])
    except UnfitShapeError as error:
        key = one.sources[error.number]
        raise ShapeMismatchError(
            f"Key `{key}` has shape {list(specs[key].shape)}, rule {one.index} (`{one.rule.text}`) expects "
            f"{error.expected}; check the rule and the variant."
        ) from None
    return {target: TensorSpec(*dtypes, shape) for target, shape in zip(one.targets, shapes)}


def spec_of(tensor: StoredTensor | Tensor) -> TensorSpec:
    """Describe one tensor."""
    return TensorSpec(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def model_order(keys: Iterable[str]) -> tuple[str, ...]:
    """Put keys into the order in which a model has them that makes its modules in the order in which they appear here.

    A module's own tensors and its submodules stay in the order of their first appearance, keys of one module move
    together, and the items of a list follow their numbers: that is how torch orders the state dict of a model.
    """
    tree: dict[str, Any] = {}
    for key in keys:
        node = tree
        for segment in key.split("."):
            node = node.setdefault(segment, {})
    return tuple(_walk(tree, ""))


def _walk(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
    names = sorted(node, key=int) if all(name.isdecimal() for name in node) else node
    for name in names:
        if node[name]:
            yield from _walk(node[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"

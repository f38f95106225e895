"""Tell family, variant and side of a state dict from its keys and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.errors import DetectionError, listed
from converters.rules import ports
from converters.rules.layout import Layout, TensorSpec, spec_of
from converters.rules.ports import Port
from legacy_adapters import registry
from legacy_adapters.family import Family
from legacy_adapters.ground.names import LEGACY, NEW

if TYPE_CHECKING:
    from converters.rules.engine import AnyTensor

_ENOUGH = 0.5  # share of a layout's keys that must agree; below it even the markers are a coincidence


@dataclass(frozen=True)
class Detection:
    """What a state dict is.

    Attributes:
        port: Its model.
        side: `legacy` or `new`.
    """

    port: Port
    side: str

    @property
    def family(self) -> str:
        """The family's name."""
        return self.port.family.name

    @property
    def variant(self) -> str:
        """The variant's name."""
        return self.port.variant.name

    @property
    def is_of_either_side(self) -> bool:
        """Whether both sides have the same keys and shapes, so that a checkpoint of one looks like one of the other."""
        return self.port.layout(LEGACY).tensors == self.port.layout(NEW).tensors

    def __str__(self) -> str:
        return f"{self.port}, {'either' if self.is_of_either_side else self.side} side"

    def taken_for(self, side: str) -> Detection:
        """Return the same model's `side`, where the keys do not tell which side a checkpoint is of."""
        return replace(self, side=side) if self.is_of_either_side else self

    def as_dict(self) -> dict[str, str]:
        """Return plain data for JSON."""
        return {"family": self.family, "variant": self.variant, "side": self.side}


def detect(state_dict: Mapping[str, AnyTensor], family: str | None = None, variant: str | None = None) -> Detection:
    """Find the layout that agrees best with a state dict; it need not agree in everything.

    So a checkpoint of another number of classes, or with keys too few or too many, is still recognised, and the
    conversion can say what exactly does not fit.
    Families with the same layout cannot be told apart: the first one is reported (see `ports.same_layout`).

    Args:
        state_dict: The tensors by key.
        family: Consider this family alone, by name or folder, whether or not its marker keys are there.
        variant: Consider this variant alone.

    Raises:
        DetectionError: If no layout fits.
        FamilyError: If the family, or the variant of it, does not exist.
    """
    if family is not None:
        return detect_among(state_dict, _chosen(registry.get(family), variant), variant)
    specs = {key: spec_of(tensor) for key, tensor in state_dict.items()}
    marked = [family for family in _first_of_each_layout() if _has_markers(specs, family)]
    return _best(specs, [port for known in marked for port in _chosen(known, variant)], variant, None)


def detect_among(state_dict: Mapping[str, AnyTensor], candidates: Sequence[Port], variant: str | None) -> Detection:
    """Find the model of one family, and the side, that agrees best with a state dict; arguments as of `detect`.

    Raises:
        DetectionError: If no layout fits.
    """
    specs = {key: spec_of(tensor) for key, tensor in state_dict.items()}
    return _best(specs, candidates, variant, candidates[0].family)


def _chosen(family: Family, variant: str | None) -> tuple[Port, ...]:
    return ports.ports(family) if variant is None else (ports.port(family.reference, variant),)


def _best(
    specs: Mapping[str, TensorSpec], candidates: Sequence[Port], variant: str | None, family: Family | None
) -> Detection:
    agreements: list[tuple[Detection, float]] = []
    for found, share in _agreements(specs, candidates):
        agreements.append((found, share))
        if share == 1.0:  # none agrees better, and of equals the first counts
            break
    best, share = max(agreements, key=lambda pair: pair[1], default=(None, 0.0))
    if _ENOUGH <= share < 1.0:  # a backbone of another size must not decide what the heads are
        near = (pair for pair in agreements if pair[1] >= _ENOUGH)
        best, share = min(near, key=lambda pair: (len(keys_without_rule(specs, pair[0])), -pair[1]))
    forced = family is not None and variant is not None
    if best is None or share < _ENOUGH and not forced:
        raise DetectionError(_unknown(specs, (family,) if family else ports.detectable(), variant, agreements))
    return best


def all_markers() -> tuple[tuple[str, ...], ...]:
    """Return the marker keys of every family, each set once."""
    return tuple(dict.fromkeys(family.markers for family in ports.detectable()))


def agreement(state_dict: Mapping[str, AnyTensor]) -> float:
    """Return the largest share of a known layout's keys that a state dict has with the same shape."""
    specs = {key: spec_of(tensor) for key, tensor in state_dict.items()}
    candidates = [port for family in _first_of_each_layout() for port in ports.ports(family)]
    return max(share for _, share in _agreements(specs, candidates))


def _first_of_each_layout() -> list[Family]:
    """Return the families of which each is the first with its layouts and rules."""
    known = ports.detectable()
    order = [family.name for family in known]
    return [
        family
        for family in known
        if all(order.index(family.name) < order.index(other.name) for other in ports.same_layout(family))
    ]


def _has_markers(specs: Mapping[str, TensorSpec], family: Family) -> bool:
    return all(marker in specs for marker in family.markers)


def _agreements(specs: Mapping[str, TensorSpec], candidates: Sequence[Port]) -> Iterator[tuple[Detection, float]]:
    for port in candidates:
        for side in (LEGACY, NEW):
            yield Detection(port, side), _agreement(specs, port.layout(side))


def keys_without_rule(keys: Iterable[str], found: Detection) -> tuple[str, ...]:
    """Return the keys of a source that the rules of the model it was taken for do not know."""
    mapping = found.port.mapping
    if found.side == NEW:
        mapping = mapping.inverse()
    return tuple(key for key in keys if mapping.match(mapping.current(key)) is None)


def _agreement(specs: Mapping[str, TensorSpec], wanted: Layout) -> float:
    """Return the share of the layout's keys that the source has with the same shape."""
    hits = sum(key in specs and specs[key].shape == spec.shape for key, spec in wanted.tensors.items())
    return hits / len(wanted.tensors)


def _unknown(
    specs: Mapping[str, TensorSpec], known: Sequence[Family], variant: str | None, tried: Sequence[tuple[Detection, float]]
) -> str:
    """Say what the keys are, and what a known layout would have."""
    missing = {family.name: sorted(set(family.markers) - specs.keys()) for family in known}
    closest = min(known, key=lambda family: len(missing[family.name]) / max(len(family.markers), 1)).name
    hints = [*(["--family"] if len(known) > 1 else []), *(["--variant"] if variant is None else [])]
    lack = f"of {closest}, missing are {listed(missing[closest])}" if missing[closest] else _nearest(tried)
    if all(missing[family.name] and len(missing[family.name]) == len(set(family.markers)) for family in known):
        lack = "it has none of the keys that tell them"
    return (
        f"The {len(specs)} keys of the source, such as {listed(_examples(specs))}, fit no known layout of "
        f"{', '.join(family.name for family in known)}: {lack}; pass {' and '.join(hints)} to see what does not fit."
    )


def _examples(keys: Mapping[str, TensorSpec]) -> list[str]:
    """Return three keys: the first, one of the middle and the last."""
    ordered = list(keys)
    return [ordered[at] for at in sorted({0, len(ordered) // 2, len(ordered) - 1})]


def _nearest(tried: Sequence[tuple[Detection, float]]) -> str:
    best, share = max(tried, key=lambda pair: pair[1])
    return (
        f"the nearest, {best.port} on its {best.side} side, has {share:.0%} of its tensors there with the same shape"
    )

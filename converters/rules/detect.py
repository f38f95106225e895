"""Tell family, variant and side of a state dict from its keys and shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import DetectionError, listed
from converters.rules import families, layout
from converters.rules.layout import Layout, TensorSpec, spec_of
from legacy_adapters.ground.names import LEGACY, NEW

if TYPE_CHECKING:
    from converters.rules.engine import AnyTensor

_ENOUGH = 0.5  # share of a layout's keys that must agree; below it even the markers are a coincidence


@dataclass(frozen=True)
class Detection:
    """What a state dict is: `side` is `legacy` or `new`."""

    family: str
    variant: str
    side: str


def detect(state_dict: Mapping[str, AnyTensor], family: str | None = None, variant: str | None = None) -> Detection:
    """Find the layout that agrees best with a state dict; it need not agree in everything.

    So a checkpoint of another number of classes, or with keys too few or too many, is still recognised, and the
    conversion can say what exactly does not fit.
    Families with the same layout cannot be told apart: the first one is reported (see `families.same_layout`).

    Args:
        state_dict: The tensors by key.
        family: Consider this family alone, whether or not its marker keys are there.
        variant: Consider this variant alone.

    Raises:
        DetectionError: If no layout fits.
        UnknownFamilyError: If the family, or the variant of it, does not exist.
    """
    specs = {key: spec_of(tensor) for key, tensor in state_dict.items()}
    names = families.families() if family is None else (family,)
    found = [
        (agreement, candidate)
        for name in (_first_of_each_layout() if family is None else names)
        if family or _has_markers(specs, name)
        for candidate, agreement in _agreements(specs, name, variant)
    ]
    best = max(found, key=lambda pair: pair[0], default=(0.0, None))
    forced = family is not None and variant is not None
    if best[1] is None or best[0] < _ENOUGH and not forced:
        raise DetectionError(_unknown(specs, names, variant))
    return best[1]


def all_markers() -> tuple[tuple[str, ...], ...]:
    """Return the marker keys of every family, each set once."""
    return tuple(dict.fromkeys(families.family(name).markers for name in families.families()))


def agreement(state_dict: Mapping[str, AnyTensor]) -> float:
    """Return the largest share of a known layout's keys that a state dict has with the same shape."""
    specs = {key: spec_of(tensor) for key, tensor in state_dict.items()}
    return max(share for name in _first_of_each_layout() for _, share in _agreements(specs, name, None))


def _first_of_each_layout() -> list[str]:
    """Name the families of which each is the first with its layouts and rules."""
    names = families.families()
    return [
        name for name in names if all(names.index(name) < names.index(other) for other in families.same_layout(name))
    ]


def _has_markers(specs: Mapping[str, TensorSpec], family: str) -> bool:
    return all(marker in specs for marker in families.family(family).markers)


def _agreements(specs: Mapping[str, TensorSpec], family: str, variant: str | None) -> Iterator[tuple[Detection, float]]:
    for name in families.variants(family) if variant is None else (families.variant(family, variant).name,):
        for side in (LEGACY, NEW):
            yield Detection(family, name, side), _agreement(specs, layout.load(name, family, side))


def _agreement(specs: Mapping[str, TensorSpec], wanted: Layout) -> float:
    """Return the share of the layout's keys that the source has with the same shape."""
    hits = sum(key in specs and specs[key].shape == spec.shape for key, spec in wanted.tensors.items())
    return hits / len(wanted.tensors)


def _unknown(specs: Mapping[str, TensorSpec], names: tuple[str, ...], variant: str | None) -> str:
    """Say what the keys are, and what a known layout would have."""
    markers = sorted({marker for name in names for marker in families.family(name).markers})
    missing = [marker for marker in markers if marker not in specs]
    hints = [*(["--family"] if len(names) > 1 else []), *(["--variant"] if variant is None else [])]
    lack = f"missing are {listed(missing)}" if missing else _nearest(specs, names, variant)
    return (
        f"The {len(specs)} keys of the source, such as {listed(_examples(specs))}, fit no known layout of "
        f"{', '.join(names)}: {lack}; pass {' and '.join(hints)} to see what does not fit."
    )


def _examples(keys: Mapping[str, TensorSpec]) -> list[str]:
    """Return three keys: the first, one of the middle and the last."""
    ordered = list(keys)
    return [ordered[at] for at in sorted({0, len(ordered) // 2, len(ordered) - 1})]


def _nearest(specs: Mapping[str, TensorSpec], names: tuple[str, ...], variant: str | None) -> str:
    share, best = max(
        ((share, found) for name in names for found, share in _agreements(specs, name, variant)),
        key=lambda pair: pair[0],
    )
    return (
        f"the nearest, {best.family} {best.variant} on its {best.side} side, has {share:.0%} of its tensors there with "
        "the same shape"
    )

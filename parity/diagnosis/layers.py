"""Layers computed again from what both sides recorded: their inputs and weights, under one hypothesis after another.

A layer is a :class:`Layer`: the input, the parameters and the result of one side. A hypothesis is a name and a function
of a layer's inputs and parameters. It is stated if one hypothesis gives the legacy side's result but for rounding, another
one the new side's, and neither gives the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .measuring import FAR_OF_LAYERS, off
from .scene import Scene

#: A layer whose result cannot be computed again up to this share is another one than it seems.
_MOST_ROUNDING = 2e-4
_UNIT = 2.0**-22


@dataclass(frozen=True)
class Layer:
    """One side's call of a layer.

    Attributes:
        x: what it was given.
        result: what it gave.
        weights: parameters and buffers by name, in float64.
        more: further inputs by slot, in float64, masks as they are.
        compare: tells how far a tensor is from the result, where the result itself is not at hand.
        of_shape: of the result.
    """

    x: Tensor
    result: Tensor
    weights: dict[str, Tensor]
    more: dict[str, Tensor] = field(default_factory=dict)
    compare: Callable[[Tensor], float] | None = None
    of_shape: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.of_shape or tuple(self.result.shape)

    def off(self, computed: Tensor | None) -> float:
        """Return how far a computed result is from the recorded one."""
        if computed is None:
            return float("inf")
        if self.compare is not None:
            return self.compare(computed) if tuple(computed.shape) == self.shape else float("inf")
        return off(computed.numpy(), self.result.numpy())


Compute = Callable[[Layer], Tensor | None]


@dataclass(frozen=True)
class Fit:
    """Hypotheses that explain both sides.

    Attributes:
        legacy: name of the legacy side's; empty if several explain it.
        new: of the new side's.
        residual: how far the new side's result is from what its hypothesis gives.
    """

    legacy: str
    new: str
    residual: float


def sides_of(scene: Scene, first: str = "") -> tuple[Layer, Layer] | None:
    """Return the call of the record's module on both sides; None without what it takes.

    Args:
        scene: of an output.
        first: slot of the input; empty for the first that is a tensor of floats.
    """
    floats = [both for both in scene.inputs.values() if both.legacy.is_floating_point() and both.legacy.dim()]
    if not floats:
        return None
    x = scene.inputs.get(first) or floats[0]
    layers = []
    for side in (0, 1):
        def take(both: object, side: int = side) -> Tensor:
            tensor = (both.legacy, both.new)[side]
            return tensor.double() if tensor.is_floating_point() else tensor

        is_sketched = scene.target is not None and side == 0
        layers.append(Layer(
            take(x), scene.tensors[side].double(), {name: take(both) for name, both in scene.weights.items()},
            {slot: take(both) for slot, both in scene.inputs.items()}, scene.target.off if is_sketched else None,
            scene.comparison.pair.legacy.shape if is_sketched else (),
        ))  # fmt: skip
    return layers[0], layers[1]


def fitted(
    layers: tuple[Layer, Layer], hypotheses: Iterable[tuple[str, Compute]], gap: float, plain: str = ""
) -> Fit | None:
    """Find the hypotheses that explain a pair of results.

    Args:
        layers: legacy and new.
        hypotheses: by name.
        gap: the difference of the two results.
        plain: name of the layer as it usually is; it is preferred to what gives the same, as a zero bias does.
    """
    results: dict[str, tuple[float, float]] = {}
    for name, compute in hypotheses:
        try:
            with torch.no_grad():
                results[name] = tuple(layer.off(compute(layer)) for layer in layers)
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError):
            continue  # a hypothesis that does not fit the shapes
    fits = []
    for side in (0, 1):
        best = min((errors[side] for errors in results.values()), default=float("inf"))
        if best > _MOST_ROUNDING or best * FAR_OF_LAYERS > gap:
            return None
        names = [name for name, errors in results.items() if errors[side] <= 4 * best + _UNIT]
        fits.append([plain] if plain in names else names)
    if set(fits[0]) & set(fits[1]) or len(fits[1]) != 1:
        return None
    new = fits[1][0]
    # each side's own explanation must be far from the other side's numbers
    old = fits[0][0]
    if results[new][0] < FAR_OF_LAYERS * results[new][1] or results[old][1] < FAR_OF_LAYERS * results[old][0]:
        return None
    return Fit(old if len(fits[0]) == 1 else "", new, results[new][1])

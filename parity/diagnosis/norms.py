"""Normalisation computed again: eps, statistics of the batch or running ones, groups, weights left out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from legacy_adapters.ground.words import counted

from .kinds import Diagnosis, DiagnosisKind
from .layers import Layer, fitted, sides_of
from .measuring import FAR_OF_LAYERS, off, said
from .scene import Scene

_USUAL = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_RANK = 4
_MOST_ROUNDING, _LAST_PLACE = 2e-5, 2.0**-24
#: A sketch is of float64: an eps that is only the nearest usual one leaves more.
_MOST_OF_SKETCH = 1e-8


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield what is otherwise in a normalisation whose output differs."""
    names = " ".join(scene.class_names).lower()
    found = sides_of(scene)
    if found is None or any(tuple(layer.x.shape) != layer.shape for layer in found):
        return
    name = _name_of(scene)
    if "instance" in names:
        if "running_var" not in found[0].weights:
            yield from _eps(scene, found, name, lambda layer: _of_groups(layer, layer.x.shape[1]))
    elif "running_var" in found[0].weights and "running_var" in found[1].weights:
        yield from _batch_norm(scene, found)
    elif "group" in names:
        yield from _group_norm(scene, found)
    elif "norm" in names:
        yield from _eps(scene, found, name, _of_last)


def _name_of(scene: Scene) -> str:
    """Return what the layer is called: its class, where both sides have the same."""
    legacy, new = scene.class_names
    return new if new and legacy in ("", new) else "the normalisation"


class Statistics:
    """What a normalisation takes its numbers by: ``(x - mean) / sqrt(variance + eps) * weight + bias``."""

    def __init__(self, centred: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, count: int = 0) -> None:
        self.centred, self.variance, self.weight, self.bias, self.count = centred, variance, weight, bias, count

    def unbiased(self) -> Statistics:
        """Return the same with the other estimate of the variance; itself where it is not of ``count`` numbers."""
        share = self.count / (self.count - 1) if self.count > 1 else 1.0
        return Statistics(self.centred, self.variance * share, self.weight, self.bias)

    def result(self, eps: float) -> Tensor:
        """Return the normalised numbers."""
        return self.centred / torch.sqrt(self.variance + eps) * self.weight + self.bias

    def eps(self, result: Tensor) -> tuple[float, float]:
        """Find the eps of a result by inversion, and how exactly it is known.

        By least squares over all elements, in Newton's steps.
        """
        scaled, target = self.centred * self.weight, result - self.bias
        ones = torch.ones_like(scaled)
        variance = self.variance * ones
        eps = 1e-5
        for _ in range(30):
            root = torch.sqrt((variance + eps).clamp(min=1e-30))
            slope = -0.5 * scaled / root**3
            square = float((slope * slope).sum())
            if square == 0.0 or not math.isfinite(square):
                return math.nan, math.inf
            step = float((slope * (target - scaled / root)).sum()) / square
            low = float(variance.min())
            step = max(step, -0.9 * (eps + low)) if eps + step <= -low else step
            eps += step
            if abs(step) <= 1e-12 + 1e-9 * abs(eps):
                break
        left = float((target - scaled / torch.sqrt((variance + eps).clamp(min=1e-30))).pow(2).mean())
        return eps, math.sqrt(left / square)


def _affine(layer: Layer, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    weight = layer.weights["weight"].reshape(shape) if "weight" in layer.weights else torch.ones(())
    bias = layer.weights["bias"].reshape(shape) if "bias" in layer.weights else torch.zeros(())
    return weight.double(), bias.double()


def _of_last(layer: Layer) -> Statistics:
    """Statistics over the last dimensions, as many as the weight has."""
    shape = tuple(layer.weights["weight"].shape) if "weight" in layer.weights else layer.x.shape[-1:]
    axes = tuple(range(-len(shape), 0))
    centred = layer.x - layer.x.mean(axes, keepdim=True)
    count = torch.Size(shape).numel()
    return Statistics(centred, centred.square().mean(axes, keepdim=True), *_affine(layer, shape), count)


def _of_groups(layer: Layer, groups: int) -> Statistics:
    rows = layer.x.reshape(len(layer.x), groups, -1)  # [bs, groups, channels of each * places]
    centred = rows - rows.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True).expand_as(rows)
    shape = (1, -1, *[1] * (layer.x.dim() - 2))
    return Statistics(centred.reshape(layer.x.shape), variance.reshape(layer.x.shape), *_affine(layer, shape))


def _of_channels(layer: Layer, batch: bool) -> Statistics:
    shape = (1, -1, *[1] * (layer.x.dim() - 2))
    axes = (0, *range(2, layer.x.dim()))
    mean = layer.x.mean(axes, keepdim=True) if batch else layer.weights["running_mean"].reshape(shape)
    centred = layer.x - mean
    variance = centred.square().mean(axes, keepdim=True) if batch else layer.weights["running_var"].reshape(shape)
    return Statistics(centred, variance, *_affine(layer, shape))


def _eps(scene: Scene, layers: tuple[Layer, Layer], name: str, statistics) -> Iterator[Diagnosis]:
    """Try an eps of its own for each side."""
    found = []
    for layer in layers:
        of = statistics(layer)
        eps, known = _eps_of(of, layer)
        if not math.isfinite(eps):
            return
        found.append((of, eps, known))
    (one, expected, first), (two, actual, second) = found
    if abs(expected - actual) <= 10 * max(first, second) or max(expected, actual) < 0:
        return
    if _is_unbiased(two, layers[1], expected):
        text = f"{name} with the variance divided by n-1, in place of n"
        yield scene.diagnosis(DiagnosisKind.VARIANCE, text, layers[1].off(two.unbiased().result(expected)), _RANK)
        return
    own = [layer.off(of.result(eps)) for layer, (of, eps, _) in zip(layers, found)]
    crossed = [layers[0].off(one.result(actual)), layers[1].off(two.result(expected))]
    most = [_MOST_OF_SKETCH if layer.compare is not None else _MOST_ROUNDING for layer in layers]
    if any(right > bound or wrong < FAR_OF_LAYERS * right for right, wrong, bound in zip(own, crossed, most)):
        return
    text = f"{name} with eps {_shown(actual, second)} in place of {_shown(expected, first)}"
    factor = _factor_like(two, layers[1], expected, actual, own[1])
    if factor is not None:  # the one that may be meant is told; a factor alone is found without the layer
        if not {expected, actual} <= set(_USUAL):
            return
        text += f", or a factor of {factor:.9g} before its bias: the variances are too alike to tell"
    yield scene.diagnosis(DiagnosisKind.EPS, text, own[1], _RANK)


def _factor_like(of: Statistics, layer: Layer, expected: float, actual: float, residual: float) -> float | None:
    """Return the factor that does what another eps does, where the variances are too alike to tell the two apart."""
    one, two = (of.result(eps) - of.bias for eps in (expected, actual))
    square = float((one * one).sum())
    factor = float((one * two).sum()) / square if square else 0.0
    told = off((factor * one + of.bias).numpy(), (two + of.bias).numpy())
    apart = layer.off(factor * one + of.bias)
    return factor if apart < FAR_OF_LAYERS * residual or told <= _LAST_PLACE else None


def _is_unbiased(of: Statistics, layer: Layer, eps: float) -> bool:
    """Tell whether a result is explained by the other estimate of the variance, and not by its own."""
    if of.count <= 2:
        return False  # which is a factor of the root of a half
    unbiased = layer.off(of.unbiased().result(eps))
    return unbiased <= _MOST_ROUNDING and layer.off(of.result(eps)) > FAR_OF_LAYERS * unbiased


def _eps_of(of: Statistics, layer: Layer) -> tuple[float, float]:
    """Return the eps of a layer's result, and how exactly it is known; of a sketch the usual one that fits best."""
    if layer.compare is not None:
        return min(_USUAL, key=lambda eps: layer.off(of.result(eps))), 0.0
    eps, known = of.eps(layer.result)
    return (_usual(eps, known, of, layer) if math.isfinite(eps) else eps), known


def _usual(eps: float, known: float, of: Statistics, layer: Layer) -> float:
    """Return the usual eps that explains a result as well as the one found does; else the one found."""
    near = [usual for usual in _USUAL if abs(usual - eps) <= 6 * known + 0.25 * abs(usual)]
    if len(near) != 1:
        return eps
    found, usual = (layer.off(of.result(value)) for value in (eps, near[0]))
    return near[0] if usual <= 1.5 * found + _LAST_PLACE else eps


def _shown(eps: float, known: float) -> str:
    return said(eps) if eps in _USUAL else f"about {eps:.2g}"


def _batch_norm(scene: Scene, layers: tuple[Layer, Layer]) -> Iterator[Diagnosis]:
    running = "the running statistics, as in evaluation"
    batch = "the batch's own statistics, as in training"
    epses = {}
    for name, of_batch in ((running, False), (batch, True)):
        for layer in layers:
            of = _of_channels(layer, of_batch)
            eps, _ = _eps_of(of, layer)
            eps = eps if math.isfinite(eps) else 1e-5
            epses[name, id(layer)] = layer.off(of.result(eps))
    right = [min((running, batch), key=lambda name, layer=layer: epses[name, id(layer)]) for layer in layers]
    if right[0] == right[1]:
        if right[0] == running:
            yield from _eps(scene, layers, "BatchNorm", lambda layer: _of_channels(layer, False))
        else:
            yield from _eps(scene, layers, "BatchNorm", lambda layer: _of_channels(layer, True))
        return
    for layer, name in zip(layers, right):
        other = batch if name == running else running
        if epses[name, id(layer)] > _MOST_ROUNDING or epses[other, id(layer)] < FAR_OF_LAYERS * epses[name, id(layer)]:
            return
    text = f"BatchNorm with {right[1]}, in place of {right[0]}"
    yield scene.diagnosis(DiagnosisKind.BATCH_NORM, text, epses[right[1], id(layers[1])], _RANK)


def _group_norm(scene: Scene, layers: tuple[Layer, Layer]) -> Iterator[Diagnosis]:
    channels = layers[0].x.shape[1]
    divisors = [number for number in range(1, channels + 1) if channels % number == 0]

    def best(layer: Layer) -> int:
        return min(divisors, key=lambda groups: layer.off(_of_groups(layer, groups).result(1e-5)))

    groups = [best(layer) for layer in layers]
    if groups[0] == groups[1]:
        yield from _eps(scene, layers, "GroupNorm", lambda layer: _of_groups(layer, groups[0]))
        return
    hypotheses = [
        (counted(number, "group"), lambda layer, number=number: _of_groups(layer, number).result(1e-5))
        for number in divisors
    ]
    fit = fitted(layers, hypotheses, scene.gap)
    if fit is not None and fit.legacy:
        text = f"GroupNorm of {fit.new} in place of {fit.legacy}"
        yield scene.diagnosis(DiagnosisKind.GROUPS, text, fit.residual, _RANK)

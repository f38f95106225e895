"""Layers without weights computed again: activations, softmax, interpolation."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F

from ..traces.kinds import Kind
from .kinds import Diagnosis, DiagnosisKind
from .layers import Compute, Layer, fitted, sides_of
from .scene import Scene
from .sums import activations_of

_RANK = 4


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield which activation, softmax or interpolation is another one."""
    if scene.record.kind == Kind.MODULE_OUT and not scene.weights:
        yield from _activation(scene)
    yield from _interpolation(scene)


def _activation(scene: Scene) -> Iterator[Diagnosis]:
    found = sides_of(scene)
    if found is None or scene.target is not None or any(tuple(layer.x.shape) != layer.shape for layer in found):
        return
    one, two = found
    given, results = ((first.numpy(), second.numpy()) for first, second in ((one.x, two.x), (one.result, two.result)))
    pair = activations_of(given, results, scene.gap)
    if pair is not None:
        (expected, actual), residual = pair
        text = f"{actual} in place of {expected}"
        yield scene.diagnosis(DiagnosisKind.ACTIVATION, text, residual, _RANK)
        return
    axes = range(one.x.dim())
    hypotheses = [(f"softmax along axis {axis}", lambda layer, axis=axis: layer.x.softmax(axis)) for axis in axes]
    fit = fitted(found, hypotheses, scene.gap)
    if fit is not None and fit.legacy:
        yield scene.diagnosis(DiagnosisKind.ACTIVATION, f"{fit.new} in place of {fit.legacy}", fit.residual, _RANK)


def _interpolation(scene: Scene) -> Iterator[Diagnosis]:
    """Try to interpolate what was recorded before to the size of the record, a map [bs, channels, height, width]."""
    legacy, new = scene.tensors
    if scene.target is not None:
        return
    if legacy.shape != new.shape or legacy.dim() != 4 or not legacy.is_floating_point():
        return
    sources = [*scene.inputs.values(), *scene.parts()]
    for both in sources[:12]:
        shapes = both.legacy.shape, both.new.shape
        if shapes[0] != shapes[1] or len(shapes[0]) != 4 or shapes[0][:2] != legacy.shape[:2]:
            continue
        if shapes[0][2:] == legacy.shape[2:] or not both.legacy.is_floating_point():
            continue
        layers = Layer(both.legacy.double(), legacy.double(), {}), Layer(both.new.double(), new.double(), {})
        fit = fitted(layers, list(_modes(legacy.shape[2:])), scene.gap)
        if fit is not None:
            text = f"{fit.new}{f' in place of {fit.legacy}' if fit.legacy else ''}"
            yield scene.diagnosis(DiagnosisKind.INTERPOLATION, text, fit.residual, _RANK)
            return


def _modes(size: tuple[int, ...]) -> Iterator[tuple[str, Compute]]:
    for mode, more in (("nearest", ""), ("nearest-exact", ""), ("area", " (a mean of each cell)")):
        yield f"{mode} interpolation{more}", lambda layer, mode=mode: F.interpolate(layer.x, size, mode=mode)
    for mode in ("bilinear", "bicubic"):
        for aligned in (False, True):
            corners = "corners aligned" if aligned else "corners not aligned"
            yield f"{mode} interpolation, {corners}", lambda layer, mode=mode, aligned=aligned: F.interpolate(
                layer.x, size, mode=mode, align_corners=aligned
            )



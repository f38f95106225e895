"""Linear layers and convolutions computed again: geometry, padding, bias, a transposed weight, rounded inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from .kinds import Diagnosis, DiagnosisKind
from .layers import Compute, Fit, Layer, fitted, sides_of
from .measuring import said
from .precision import ROUNDINGS
from .scene import Scene

_RANK = 4
#: Products of a layer that are computed again.
_MOST_PRODUCTS = 2e10
#: Of usual numbers fp16 and TF32 keep the same bits; where they do not, the result tells.
_ROUNDINGS = {"bf16": ROUNDINGS["bf16"], "TF32 or fp16": ROUNDINGS["TF32"]}
_PADDINGS = {"zeros": "constant", "replicate": "replicate", "reflect": "reflect", "circular": "circular"}


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield what is otherwise in a linear layer, a convolution or a pooling whose output differs."""
    found = sides_of(scene)
    if found is None:
        return
    names = " ".join(scene.class_names).lower()
    weights = [layer.weights.get("weight") for layer in found]
    if "pool" in names:
        yield from _stated(scene, found, list(_pools(found)), DiagnosisKind.GEOMETRY)
    elif all(weight is not None and weight.dim() == 4 for weight in weights):
        yield from _convolution(scene, found)
    elif all(weight is not None and weight.dim() == 2 for weight in weights) and "embedding" not in names:
        yield from _linear(scene, found)


def _stated(
    scene: Scene, layers: tuple[Layer, Layer], hypotheses: list[tuple[str, Compute]], kind: DiagnosisKind
) -> Iterator[Diagnosis]:
    fit = fitted(layers, hypotheses, scene.gap)
    if fit is not None:
        yield scene.diagnosis(kind, _phrase(fit), fit.residual, _RANK)


def _phrase(fit: Fit) -> str:
    return f"{fit.new}, in place of {fit.legacy}" if fit.legacy else fit.new


def _linear(scene: Scene, layers: tuple[Layer, Layer]) -> Iterator[Diagnosis]:
    def plain(layer: Layer, weight: Tensor | None = None, bias: bool = True) -> Tensor:
        return F.linear(layer.x, layer.weights["weight"] if weight is None else weight, _bias(layer) if bias else None)

    if math.prod(layers[1].result.shape) * layers[1].x.shape[-1] > _MOST_PRODUCTS:
        return
    asked: list[tuple[str, DiagnosisKind, Compute]] = [
        ("a linear layer", DiagnosisKind.WEIGHT, plain),
        ("a linear layer with its weight transposed", DiagnosisKind.WEIGHT,
         lambda layer: plain(layer, layer.weights["weight"].t())),
    ]  # fmt: skip
    if "bias" in layers[1].weights:
        asked.append(("a linear layer without its bias", DiagnosisKind.BIAS, lambda layer: plain(layer, bias=False)))
    asked += _rounded("a linear layer", lambda x, weight, layer: F.linear(x, weight, _bias(layer)), layers[1])
    yield from _best(scene, layers, asked)


def _bias(layer: Layer) -> Tensor | None:
    return layer.weights.get("bias")


def _rounded(
    what: str, compute: Callable[[Tensor, Tensor, Layer], Tensor], new: Layer
) -> list[tuple[str, DiagnosisKind, Compute]]:
    """Return the layer with its input and weight rounded, and with its result rounded as well."""
    asked = []
    for name, rounding in _ROUNDINGS.items():
        def of_rounded(layer: Layer, rounding: Callable = rounding) -> Tensor:
            x, weight = (rounding(tensor.float()).double() for tensor in (layer.x, layer.weights["weight"]))
            return compute(x, weight, layer)

        changed = [
            part for part, tensor in (("inputs", new.x), ("weights", new.weights["weight"]))
            if not torch.equal(rounding(tensor.float()).double(), tensor)
        ]  # fmt: skip
        text = f"{what} of {' and '.join(changed) or 'inputs and weights'} rounded to {name}"
        asked.append((text, DiagnosisKind.PRECISION, of_rounded))
    return asked


def _best(
    scene: Scene, layers: tuple[Layer, Layer], asked: list[tuple[str, DiagnosisKind, Compute]]
) -> Iterator[Diagnosis]:
    fit = fitted(layers, [(name, compute) for name, _, compute in asked], scene.gap, asked[0][0])
    if fit is not None:
        kinds = {name: kind for name, kind, _ in asked}
        plain = asked[0][0]
        kind = kinds[fit.new] if fit.new != plain else kinds.get(fit.legacy, kinds[plain])
        bias, text = _bias(layers[1]), _phrase(fit)
        if kind == DiagnosisKind.BIAS and bias is not None and len(torch.unique(bias)) == 1:
            text += f", or {said(abs(float(bias[0])))} {'less' if float(bias[0]) > 0 else 'more'} everywhere: the bias is even"
        yield scene.diagnosis(kind, text, fit.residual, _RANK)


def _convolution(scene: Scene, layers: tuple[Layer, Layer]) -> Iterator[Diagnosis]:
    new = layers[1]
    if math.prod(new.result.shape) * math.prod(new.weights["weight"].shape[1:]) > _MOST_PRODUCTS / 20:
        return
    geometries = [list(_geometries(layer)) for layer in layers]
    hypotheses = [(_geometry_text(one), _convolving(*one)) for one in dict.fromkeys((*geometries[0], *geometries[1]))]
    fit = fitted(layers, hypotheses, scene.gap)
    if fit is not None:
        yield scene.diagnosis(DiagnosisKind.GEOMETRY, f"a convolution with {_phrase(fit)}", fit.residual, _RANK)
        return
    for one in geometries[0]:
        compute = _convolving(*one)
        with torch.no_grad():
            if layers[0].off(compute(layers[0])) > 2e-4:
                continue
        asked = [("a convolution", DiagnosisKind.WEIGHT, compute)]
        asked += [
            (f"a convolution with its kernel {how}", DiagnosisKind.WEIGHT, _convolving(*one, change=change))
            for how, change in (
                ("turned round", lambda w: w.flip(2, 3)), ("transposed", lambda w: w.transpose(2, 3)),
                ("for the input channels in reverse order (or with these reversed)", lambda w: w.flip(1)),
            )
        ]  # fmt: skip
        if "bias" in new.weights:
            asked.append(("a convolution without its bias", DiagnosisKind.BIAS, _convolving(*one, bias=False)))
        asked += _rounded(
            "a convolution", lambda x, weight, layer: _convolved(x, weight, _bias(layer), *one), new
        )
        yield from _best(scene, layers, asked)
        return


def _geometries(layer: Layer) -> Iterator[tuple[int, int, int, str]]:
    """Yield every stride, padding, dilation and padding mode that gives a result of the recorded size."""
    kernel, size, out = layer.weights["weight"].shape[2:], layer.x.shape[2:], layer.shape[2:]
    most = max(kernel)
    for stride, dilation, padding in product((1, 2, 4, 8, 14, 16, 32), (1, 2, 3, 4), range(0, 2 * most)):
        if dilation > 1 and most == 1:
            continue
        sizes = tuple((s + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for s, k in zip(size, kernel))
        if sizes == tuple(out):
            for mode in _PADDINGS if padding else ("zeros",):
                yield stride, padding, dilation, mode


def _geometry_text(geometry: tuple[int, int, int, str]) -> str:
    stride, padding, dilation, mode = geometry
    return f"stride {stride}, padding {padding} ({mode}), dilation {dilation}"


def _convolving(
    stride: int, padding: int, dilation: int, mode: str, change: Callable[[Tensor], Tensor] = lambda w: w,
    bias: bool = True,
) -> Compute:
    def compute(layer: Layer) -> Tensor:
        return _convolved(
            layer.x, change(layer.weights["weight"]), _bias(layer) if bias else None, stride, padding, dilation, mode
        )

    return compute


def _convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, mode: str
) -> Tensor:
    x = F.pad(x, (padding,) * 4, mode=_PADDINGS[mode]) if padding else x
    return F.conv2d(x, weight, bias, stride, 0, dilation, x.shape[1] // weight.shape[1])


def _pools(layers: tuple[Layer, Layer]) -> Iterator[tuple[str, Compute]]:
    """Yield the usual poolings of two dimensions."""
    for kernel, stride, ceil in product((2, 3, 4, 5, 7), (1, 2, 3, 4), (False, True)):
        for padding in range(0, kernel // 2 + 1):
            shape = f"of {kernel}x{kernel}, stride {stride}, padding {padding}{', rounded up' if ceil else ''}"
            more = dict(stride=stride, padding=padding, ceil_mode=ceil)
            if ceil and not _has_rest(layers, kernel, stride, padding):
                continue
            yield f"max pooling {shape}", lambda layer, k=kernel, more=more: F.max_pool2d(layer.x, k, **more)
            yield f"mean pooling {shape}", lambda layer, k=kernel, more=more: F.avg_pool2d(layer.x, k, **more)


def _has_rest(layers: tuple[Layer, Layer], kernel: int, stride: int, padding: int) -> bool:
    return any((size + 2 * padding - kernel) % stride for layer in layers for size in layer.x.shape[2:])

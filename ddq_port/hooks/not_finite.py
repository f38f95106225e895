"""Where a number that is not finite came from: state, batch, forward or backward pass of a training step.

Nothing here runs while all is well; the passes are repeated once a step has failed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode

from . import random_state

_DETECTOR = "the model itself"


@dataclass(frozen=True)
class Cause:
    """What was not finite first.

    Attributes:
        what: kind: `parameter`, `buffer`, `image`, `boxes`, `input`, `output`, `operation` or `gradient`.
        name: of the module, parameter, buffer or image.
        text: a clause that says it, to follow "First not finite: ".
    """

    what: str
    name: str
    text: str


class _Found(Exception):  # noqa: N818  (not an error: it ends the repeated pass)
    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.text)
        self.cause = cause


def amount(tensor: Tensor) -> str | None:
    """Say how many values of a tensor are NaN or infinite, as in `1 of 64 values`; None if none is."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or bool(torch.isfinite(tensor).all()):
        return None
    bad = int((~torch.isfinite(tensor)).sum())
    kind = "NaN" if bool(torch.isnan(tensor).any()) else "infinite"
    return f"{bad} of {tensor.numel()} value{'' if tensor.numel() == 1 else 's'}, {kind}"


def first_of(tensors: Iterable[tuple[str, Tensor]]) -> tuple[str, str, int, int] | None:
    """Return name and :func:`amount` of the first tensor that is not finite, how many are not, and how many there are.

    All tensors are looked at before anything is waited for: on a GPU that is one wait.
    """
    named = [(name, tensor.detach()) for name, tensor in tensors if tensor.is_floating_point() or tensor.is_complex()]
    if not named:
        return None
    device = named[0][1].device
    flags = torch.stack([torch.isfinite(tensor).all().to(device) for _, tensor in named])
    bad = [pair for pair, fine in zip(named, flags.tolist()) if not fine]
    return (bad[0][0], amount(bad[0][1]) or "", len(bad), len(named)) if bad else None


def in_state(model: nn.Module, written: bool = True) -> Cause | None:
    """Look at the parameters and buffers of a model.

    Buffers may hold infinity on purpose, as a mask does, but for the running averages of batch norms.

    Args:
        model: of which parameters are looked at first.
        written: look also at running averages of batch norms in training mode, which write and do not read them: what
            is in there is no cause of what the module gives.
    """
    found = first_of(model.named_parameters())
    if found:
        return _of_state("parameter", model, *found)
    found = first_of(_buffers(model, written))
    return _of_state("buffer", model, *found) if found else None


def _buffers(model: nn.Module, written: bool) -> Iterator[tuple[str, Tensor]]:
    for path, module in model.named_modules():
        norm = isinstance(module, _NormBase)
        if norm and module.training and not written:
            continue
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                yield f"{path}.{name}".lstrip("."), buffer if norm else buffer.masked_fill(buffer.isinf(), 0)


def _of_state(what: str, model: nn.Module, name: str, values: str, bad: int, total: int) -> Cause:
    owner = model.get_submodule(name.rpartition(".")[0])
    more = f"; {bad} of {total} {what}s are not finite" if bad > 1 else ""
    return Cause(what, name, f"the {what} `{name}` of {type(owner).__name__} ({values}{more})")


def in_batch(batch: Any) -> Cause | None:
    """Look at the images and boxes of a batch, as mmdet's pipelines make it."""
    if not isinstance(batch, Mapping):
        return None
    samples = batch.get("data_samples") or []
    inputs = batch.get("inputs")
    for number, image in enumerate(inputs if inputs is not None else []):
        values = amount(image) if isinstance(image, Tensor) else None
        if values:
            name = _image(samples, number)
            return Cause(
                "image", name, f"the image {name} as the data pipeline gives it ({values}), input of the model"
            )
    for number, sample in enumerate(samples):
        boxes = getattr(getattr(sample, "gt_instances", None), "bboxes", None)
        boxes = getattr(boxes, "tensor", boxes)
        values = amount(boxes) if isinstance(boxes, Tensor) else None
        if values:
            name = _image(samples, number)
            return Cause("boxes", name, f"the boxes of the image {name} as the data pipeline gives them ({values})")
    return None


def _image(samples: Any, number: int) -> str:
    names = image_names(dict(data_samples=samples))
    return names[number] if number < len(names) else f"number {number} of the batch"


def image_names(batch: Any) -> list[str]:
    """Return the path of each image of a batch as mmdet packs it, or its id where there is no path."""
    samples = batch.get("data_samples", []) if isinstance(batch, dict) else []
    names = []
    for sample in samples:
        meta = getattr(sample, "metainfo", {})
        names.append(str(meta.get("img_path") or f"image id {meta.get('img_id', 'unknown')}"))
    return names


def in_step(model: nn.Module, batch: Any, wrapper: OptimWrapper, drawn_from: dict[str, Any]) -> Cause | None:
    """Repeat the passes of a training step, and return what is not finite first.

    Neither weights, gradients, buffers nor random states are left changed, and no other rank is waited for.

    Args:
        model: without a wrapper around it.
        batch: as the data loader gave it.
        wrapper: of the optimizer; its precision is used.
        drawn_from: random states before the step.
    """
    return _repeated(model, drawn_from, lambda: _losses(model, batch, wrapper))


def in_operations(model: nn.Module, batch: Any, wrapper: OptimWrapper, drawn_from: dict[str, Any]) -> Cause | None:
    """Repeat a forward pass and return the operation that makes the first NaN, where no module gets or gives one.

    See :func:`in_step`. Code may make a NaN and drop it: ask only where something says that one was met.
    """
    return _repeated(model, drawn_from, lambda: _losses(model, batch, wrapper), operations=True)


def in_inference(model: nn.Module, batch: Any) -> Cause | None:
    """Repeat the forward pass of an inference, and return what is not finite first; see :func:`in_step`."""

    def infer() -> None:
        with torch.no_grad():
            model(**model.data_preprocessor(batch, False), mode="predict")

    return _repeated(model, random_state.capture(), infer)


def in_backward(model: nn.Module, batch: Any, wrapper: OptimWrapper, drawn_from: dict[str, Any]) -> Cause | None:
    """Repeat both passes of a training step, and return the gradient that is not finite first; see :func:`in_step`."""
    return _repeated(model, drawn_from, lambda: _gradients(model, batch, wrapper))


def _losses(model: nn.Module, batch: Any, wrapper: OptimWrapper) -> None:
    with torch.no_grad(), wrapper.optim_context(model):
        model(**model.data_preprocessor(batch, True), mode="loss")


def _gradients(model: nn.Module, batch: Any, wrapper: OptimWrapper) -> None:
    params = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
    handles = [param.register_hook(_gradient_check("parameter", name)) for name, param in params]
    try:
        with torch.enable_grad():
            with wrapper.optim_context(model):
                losses = model(**model.data_preprocessor(batch, True), mode="loss")
            total, _ = type(model).parse_losses(model, losses)
            torch.autograd.grad(total, [param for _, param in params], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()


def _gradient_check(what: str, name: str) -> Any:
    def check(gradient: Tensor) -> None:
        values = amount(gradient)
        if values:
            raise _Found(
                Cause("gradient", name, f"the gradient of the {what} `{name}` ({values}), in the backward pass")
            )

    return check


def _repeated(model: nn.Module, drawn_from: dict[str, Any], work: Any, operations: bool = False) -> Cause | None:
    """Do ``work`` with hooks on every module that end it at the first value that is not finite.

    An error that ends it otherwise is the one that is being explained, and finds nothing.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    states = random_state.capture()
    watch = _Watch(model)
    try:
        random_state.restore(drawn_from)
        with watch, mock.patch("torch.distributed.is_initialized", return_value=False):
            with _Operations(watch) if operations else contextlib.nullcontext():
                work()
    except _Found as found:
        return found.cause
    except Exception:
        return None
    finally:
        random_state.restore(states)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    return None


class _Watch(contextlib.AbstractContextManager):
    """Looks at the inputs and outputs of every module as it is called."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._running: list[nn.Module] = []
        self._handles: list[Any] = []

    def __enter__(self) -> _Watch:
        for module in self._names:
            self._handles.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._after, with_kwargs=True))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def innermost(self) -> tuple[str, str]:
        """Return the module whose code is running: its name, and how messages call it."""
        module = self._running[-1]
        return self._names[module], self._told(module)

    def _told(self, module: nn.Module) -> str:
        name = self._names[module]
        return f"`{name}` ({type(module).__name__})" if name else f"{_DETECTOR} ({type(module).__name__})"

    def _before(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        for slot, tensor in _tensors((args, kwargs)):
            values = amount(tensor)
            if values:
                caller = self._running[-1] if self._running else None
                maker = f", made of finite values by the code of {self._told(caller)}" if caller is not None else ""
                text = f"the input{slot} of {self._told(module)} ({values}){maker}"
                raise _Found(Cause("input", self._names[module], text))
        self._running.append(module)

    def _after(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        self._running.pop()
        for slot, tensor in _tensors(output):
            values = amount(tensor)
            if values:
                text = f"the output{slot} of {self._told(module)} ({values}), from finite input and parameters"
                raise _Found(Cause("output", self._names[module], text))
            if tensor.requires_grad and torch.is_grad_enabled():
                tensor.register_hook(_gradient_check("output of", self._names[module] or _DETECTOR))


class _Operations(TorchDispatchMode):
    """Looks at the result of every operation for a NaN that none of its arguments has."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # what is allocated and not yet written holds anything
        if "empty" not in str(func) and _any_nan(result) and not _any_nan((args, kwargs)):
            name, told = self._watch.innermost()
            raise _Found(
                Cause("operation", name, f"a result of `{func}` in the code of {told}, from values without NaN")
            )
        return result


def _any_nan(value: Any) -> bool:
    return any(bool(torch.isnan(tensor).any()) for _, tensor in _tensors(value))


def _tensors(value: Any, slot: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the floating tensors in arguments or results of a module, each with a word for where it is in a dict."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield slot, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, f" `{key}`" if isinstance(key, str) else slot)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part, slot)

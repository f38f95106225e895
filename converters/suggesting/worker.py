"""Build and run one model in a process of its own, as another process asks; see `converters.suggesting.running`.

Run as ``python -m converters.suggesting.worker FILE SEED``. Requests and answers are pickles over stdin and stdout,
between processes of one user; what the model's code prints goes to stderr.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

_SPREAD = 0.2  # of what is added to numbers that are all the same, so that no two tensors are alike
_NAME = "model_to_match"
_LEAST = 1e-9  # of the largest gradient, up to which one may be rounding


class Unusable(Exception):
    """The file has no model that can be built, or it cannot be run; the message is one line."""


class Model:
    """A model with weights of which no two are alike, and what its modules compute."""

    def __init__(self, file: Path, seed: int) -> None:
        """Build it.

        Raises:
            Unusable: Saying why it cannot be built.
        """
        self._functions = _functions(file)
        import torch

        torch.manual_seed(seed)
        try:
            self.module: nn.Module = self._functions["build"]()
        except Exception as error:  # whatever the file's code does wrong
            raise Unusable(f"build() of {file} raised {type(error).__name__}: {_line(error)}") from error
        if not isinstance(self.module, torch.nn.Module):
            raise Unusable(f"build() of {file} returned a {type(self.module).__name__}, expected an nn.Module")
        _shake(self.module.eval(), seed)
        for value in self.module.parameters():
            value.requires_grad_(value.is_floating_point())

    def state(self) -> dict[str, np.ndarray]:
        """Return the weights by key."""
        held = {key: value.detach().cpu() for key, value in self.module.state_dict().items()}
        return {key: (value.float() if _is_bfloat(value) else value).numpy().copy() for key, value in held.items()}

    def kinds(self) -> dict[str, str]:
        """Return by key the class of the module that holds it and the name that it has in there."""
        found = {}
        for key in self.module.state_dict():
            path, _, name = key.rpartition(".")
            try:
                held: Any = self.module.get_submodule(path)
            except AttributeError:  # a state dict that is made otherwise
                continue
            found[key] = f"{type(held).__module__}.{type(held).__qualname__} {name}"
        return found

    def inputs(self) -> Any:
        """Return what the file says the model is called with, tensors as arrays; None if it does not say."""
        function = self._functions.get("inputs")
        try:
            made = None if function is None else function()
        except Exception as error:  # whatever the file's code does wrong
            raise Unusable(f"inputs() raised {type(error).__name__}: {_line(error)}") from error
        return None if function is None else _mapped(made, lambda tensor: tensor.detach().cpu().numpy())

    def run(
        self, weights: Mapping[str, np.ndarray], inputs: Any, precise: bool, with_gradients: bool
    ) -> dict[str, Any]:
        """Put weights into the model, call it, in float64 if `precise`, and return outputs, calls and idle weights.

        Raises:
            Unusable: Saying why it cannot be run.
        """
        import torch

        held = (self.module.double() if precise else self.module.float()).state_dict()
        with torch.no_grad():
            for key, value in weights.items():
                held[key].copy_(torch.from_numpy(value.copy()))
        called = _mapped(inputs, lambda array: _tensor(array, precise))
        called = called if isinstance(called, (tuple, dict)) else (called,)
        calls: list[tuple[str, str, tuple[float, ...]]] = []
        hooks = [
            module.register_forward_hook(_recorder(path, calls), with_kwargs=True)
            for path, module in self.module.named_modules()
        ]
        torch.manual_seed(0)
        try:
            with torch.set_grad_enabled(with_gradients):
                made = self.module(**called) if isinstance(called, dict) else self.module(*called)
        except Exception as error:  # whatever the model's code does wrong
            raise Unusable(f"calling it raised {type(error).__name__}: {_line(error)}") from error
        finally:
            for hook in hooks:
                hook.remove()
        outputs = [tensor if tensor.is_floating_point() else tensor.double() for tensor in _tensors(made)]
        idle = self._idle(outputs) if with_gradients else []
        return {"outputs": [tensor.detach().numpy() for tensor in outputs], "calls": calls, "idle": idle}

    def _idle(self, outputs: list[Tensor]) -> list[str]:
        """Return the parameters that no output depends on but for rounding, and buffers of which no gradient tells it.

        The statistics of a batch norm have an effect if its bias has.
        """
        import torch

        held = dict(self.module.named_parameters())
        norms = torch.nn.modules.batchnorm._BatchNorm
        twins = {
            f"{path}.{name}".lstrip("."): f"{path}.bias".lstrip(".")
            for path, part in self.module.named_modules()
            for name in (("running_mean", "running_var") if isinstance(part, norms) and part.affine else ())
        }
        state = self.module.state_dict()
        others = [key for key, value in state.items() if value.is_floating_point() and key not in held]
        shared = {value.data_ptr() for value in held.values()}
        others = [key for key in others if state[key].data_ptr() not in shared]
        generator = torch.Generator().manual_seed(0)
        total = sum((out * torch.randn(out.shape, generator=generator, dtype=out.dtype)).sum() for out in outputs)
        names = [name for name, value in held.items() if value.requires_grad]
        if not getattr(total, "requires_grad", False):
            return [*names, *others]
        found = torch.autograd.grad(total, [held[name] for name in names], allow_unused=True)
        sizes = {name: 0.0 if grad is None else float(grad.abs().max()) for name, grad in zip(names, found)}
        least = _LEAST * max(sizes.values(), default=0.0)
        idle = {name for name, size in sizes.items() if not size > least}
        return [*idle, *(key for key in others if twins.get(key, key) in idle or key not in twins)]


def _functions(file: Path) -> dict[str, Callable[[], Any]]:
    spec = importlib.util.spec_from_file_location(_NAME, file)
    if spec is None or spec.loader is None:
        raise Unusable(f"{file} is no Python file, expected one with build()")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    sys.path.insert(0, str(file.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except FileNotFoundError as error:
        raise Unusable(f"there is no file {file}") from error
    except Exception as error:  # whatever the file's code does wrong
        raise Unusable(f"{file} cannot be imported: {type(error).__name__}: {_line(error)}") from error
    if not callable(getattr(module, "build", None)):
        raise Unusable(f"{file} has no function build(), which returns the model")
    return {name: getattr(module, name) for name in ("build", "inputs") if callable(getattr(module, name, None))}


def _shake(module: nn.Module, seed: int) -> None:
    """Add noise to all parameters, and to the statistics of norms, so that constants and copies differ."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for value in module.parameters():
        if value.is_floating_point() and value.numel():
            spread = value.detach().std(correction=0).item() * 0.5 or _SPREAD
            value.data += spread * torch.randn(value.shape, generator=generator)
    for part in module.modules():
        mean, variance = (getattr(part, name, None) for name in ("running_mean", "running_var"))
        if isinstance(mean, torch.Tensor) and isinstance(variance, torch.Tensor):
            mean += _SPREAD * torch.randn(mean.shape, generator=generator)
            variance *= 0.5 + torch.rand(variance.shape, generator=generator)


def _recorder(path: str, calls: list[tuple[str, str, tuple[float, ...]]]) -> Callable[..., None]:
    def record(module: nn.Module, args: object, named: object, result: object) -> None:
        for kind, value in (("in", (args, named)), ("out", result)):
            for tensor in _tensors(value):
                if tensor.is_floating_point() and tensor.numel():
                    flat = tensor.detach().double()
                    sums = float(flat.numel()), flat.abs().sum().item(), flat.pow(2).sum().item()
                    calls.append((path, kind, sums))

    return record


def _tensors(value: Any) -> Iterator[Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _tensors(vars(value))


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return nested containers with their tensors, or arrays, changed."""
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(item, change) for item in value) if type(value) in (tuple, list) else value
    return change(value) if hasattr(value, "shape") and hasattr(value, "dtype") else value


def _tensor(array: Any, precise: bool) -> Tensor:
    import torch

    tensor = torch.from_numpy(array)
    return tensor.double() if precise and tensor.is_floating_point() else tensor


def _is_bfloat(tensor: Tensor) -> bool:
    import torch

    return tensor.dtype == torch.bfloat16


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def send(stream: BinaryIO, value: Any) -> None:
    """Write a value."""
    pickle.dump(value, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()


def serve(file: Path, seed: int, asked: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests, each a name and arguments, until there are no more."""
    try:
        model = Model(file, seed)
    except Unusable as error:
        send(answers, (False, str(error)))
        return
    send(answers, (True, None))
    while True:
        try:
            name, arguments = pickle.load(asked)
        except EOFError:
            return
        try:
            send(answers, (True, getattr(model, name)(*arguments)))
        except Unusable as error:
            send(answers, (False, str(error)))


if __name__ == "__main__":
    answering = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer, answering)

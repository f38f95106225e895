"""What a side's code makes of a model before any weights are loaded: check ``init``.

The model is built and initialised twice, as for a training, while :mod:`.numerics.drawing` makes the random
numbers. In the first pass equal recipes give equal bits, so parameters and buffers can be compared. In the second every
draw is another one, so parameters with equal bits are copies, or share memory. Weights that the code asks for are not
fetched: what it asks for is noted.

All this happens in a process of its own, forked before anything else: code under test is often changed when it is
built, and the run itself shall see it built once.
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
import random
import sys
from collections import Counter
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ..numerics.drawing import Drawing, by_recipe
from ..origin import ReportedError, report
from ..recording.tap import holds
from ..recording.trace_writer import TraceWriter, content_digest

#: Phase and kind of the records.
INIT = "init"
CHECK = INIT
#: Slot of a parameter's flag.
TRAINED = "requires_grad"

#: Functions that load weights, by module, and how many positional arguments stand before the name of the file.
_LOADERS = {
    "mmengine.runner.checkpoint": (("load_checkpoint", 1), ("_load_checkpoint", 0)),
    "mmcv.runner.checkpoint": (("load_checkpoint", 1), ("_load_checkpoint", 0)),
    "torch.hub": (("load_state_dict_from_url", 0),),
    "torch": (("load", 0),),
}
_PREFIXED = "_load_checkpoint_with_prefix"
_FILE_NAMES = ("filename", "url", "f")


class InitialisingError(Exception):
    """The process that builds and initialises a model was ended from outside; the message is one line."""


def without_init(checks: Sequence[str]) -> Tuple[str, ...]:
    """Leave out this check: a model is initialised once, whatever precision it then runs in."""
    return tuple(check for check in checks if check != CHECK)


def record(job: Any, adapter: Any, writer: TraceWriter) -> Dict[str, Any]:
    """Build and initialise the side's model in a process of its own and record what that makes.

    Returns:
        What is no tensor: see :func:`_outcome`.

    Raises:
        ReportedError: if the code fails.
        InitialisingError: if its process ends without an outcome.
    """
    values, told = job.trace + ".init.safetensors", job.trace + ".init.json"
    for path in (values, told):  # of a run that was killed
        if os.path.exists(path):
            os.unlink(path)
    try:
        _in_fork(lambda: _run(job, adapter, values), told)
        with open(told, encoding="utf-8") as file:
            outcome = json.load(file)
        if "error" in outcome:
            raise ReportedError(outcome)
        with safe_open(values, framework="pt") as stored:
            for name, digest in outcome.pop("digests").items():
                writer.add(INIT, INIT, name, 0, "", stored.get_tensor(digest))
                if name in outcome["trained"]:
                    writer.add(INIT, INIT, name, 0, TRAINED, torch.tensor(outcome["trained"][name]))
    finally:
        for path in (values, told):
            if os.path.exists(path):
                os.unlink(path)
    return {key: value for key, value in outcome.items() if key != "trained"}


def _in_fork(work: Callable[[], Dict[str, Any]], path: str) -> None:
    """Do ``work`` in a child process, which writes its outcome to ``path``.

    Raises:
        InitialisingError: if the child ends without an outcome.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            try:
                outcome = work()
            except BaseException as error:  # whatever it is, the parent must learn of it
                outcome = report(error)
            with open(path, "w", encoding="utf-8") as file:
                json.dump(outcome, file)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.path.exists(path):
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        told = "the process that builds and initialises the model ended without a report (exit code {})"
        raise InitialisingError(told.format(code))


def _run(job: Any, adapter: Any, values: str) -> Dict[str, Any]:
    logging.disable(logging.INFO)  # mmengine lists every parameter
    model, drawing, watch = _initialised(job, adapter, numbered=False)
    tensors, digests = {}, {}
    parameters = dict(every_parameter(model))
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous().clone()
        digests[name] = content_digest(tensor)
        tensors[digests[name]] = tensor
    save_file(tensors, values)
    outcome = dict(
        order=list(model.state_dict()),
        digests=digests,
        trained={name: parameter.requires_grad for name, parameter in parameters.items()},
        recipes={name: drawing.recipe_of(tensors[digest]) for name, digest in digests.items()},
        written=watch.written(model),
        loaded=watch.loaded(model),
    )
    del model, drawing, watch, tensors, parameters
    gc.collect()
    model, _, _ = _initialised(job, adapter, numbered=True)
    return dict(outcome, **_copies(model))


def _initialised(job: Any, adapter: Any, numbered: bool) -> Tuple[nn.Module, Drawing, "_Watch"]:
    """Build a model and initialise it as before a training."""
    watch = _Watch()
    drawing = Drawing(numbered, watch.wrote)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    with by_recipe(drawing), watch.loads():
        model = adapter.build(job.options, job.device)
    with by_recipe(drawing), watch.loads():  # once more, for what building has imported
        watch.initialised = model
        adapter.initialise(model)
    return model, drawing, watch


class _Watch:
    """What ``init_weights`` writes to and asks for, by the module whose ``init_weights`` was entered first.

    Attributes:
        initialised: the model, once it is built and is being initialised: all that is written to then counts for it.
    """

    def __init__(self) -> None:
        self.initialised: Optional[nn.Module] = None
        self._writes: Counter = Counter()
        self._loads: List[Tuple[int, str, str]] = []
        self._held: List[torch.Tensor] = []  # so that no other tensor gets the address of one that was written to

    def wrote(self, tensor: torch.Tensor) -> None:
        module = self.initialised
        if module is None:
            module = next(iter(_entered()[-1:]), None)
        if module is not None:
            self._held.append(tensor.detach())
            self._writes[tensor.data_ptr(), id(module)] += 1

    def written(self, model: nn.Module) -> Dict[str, int]:
        """Return how often each parameter was written to by the model's ``init_weights``."""
        parameters = dict(model.named_parameters())
        return {name: self._writes[tensor.data_ptr(), id(model)] for name, tensor in sorted(parameters.items())}

    def loaded(self, model: nn.Module) -> List[Tuple[str, str, str]]:
        """Return module, file and prefix of the weights that were asked for, in this order."""
        paths = {id(module): name for name, module in model.named_modules()}
        return [(paths.get(module, ""), file, prefix) for module, file, prefix in self._loads]

    @contextmanager
    def loads(self) -> Iterator[None]:
        """Note which weights are asked for instead of loading them."""
        changed: List[Tuple[Any, str, Any]] = []
        asked: Dict[int, Callable] = {}
        for path, functions in _LOADERS.items():
            module = sys.modules.get(path)
            asked.update((id(vars(module)[name]), self._asked(n)) for name, n in functions if hasattr(module, name))
            if hasattr(module, _PREFIXED):
                asked[id(getattr(module, _PREFIXED))] = self._asked(1, prefix=0)
            loader = getattr(module, "CheckpointLoader", None)
            if loader is not None:
                changed.append((loader, "load_checkpoint", loader.__dict__["load_checkpoint"]))
                loader.load_checkpoint = staticmethod(self._asked(0))
        for holder, name, function in _held(asked):
            changed.append((holder, name, function))
            setattr(holder, name, asked[id(function)])
        changed.append((nn.Module, "load_state_dict", nn.Module.load_state_dict))
        nn.Module.load_state_dict = _loading(nn.Module.load_state_dict)
        try:
            yield
        finally:
            for owner, name, original in reversed(changed):
                setattr(owner, name, original)

    def _asked(self, before: int, prefix: int = -1) -> Callable:
        def asked(*args: Any, **kwargs: Any) -> Dict[str, torch.Tensor]:
            named = [kwargs[name] for name in _FILE_NAMES if name in kwargs]
            file = named[0] if named else args[before]
            first = ""
            if prefix >= 0:
                first = str(kwargs["prefix"] if "prefix" in kwargs else args[prefix])
            entered = _entered() or [None]
            self._loads.append((id(entered[0]), str(file), first))
            return _Unloaded()

        return asked


class _Unloaded(dict):
    """Stands for a file of weights; what is looked up in it, such as ``state_dict``, stands for it as well."""

    def __init__(self) -> None:
        super().__init__(nothing=torch.zeros(0))  # some look at the first key

    def __missing__(self, key: Any) -> "_Unloaded":
        return self


def _held(functions: Dict[int, Callable]) -> List[Tuple[ModuleType, str, Callable]]:
    """Return which modules hold a function, of those whose ``id`` is given, and by which name."""
    modules = [module for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    holders = (module for module in modules if holds(module, functions.keys()))
    names = ((module, name, value) for module in holders for name, value in list(vars(module).items()))
    return [found for found in names if id(found[2]) in functions]


def _loading(original: Callable) -> Callable:
    """Let a module take what was not loaded, strictly or not."""

    @functools.wraps(original)
    def load(module: nn.Module, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(state_dict, _Unloaded):
            state_dict, args, kwargs = {}, (), {"strict": False}
        return original(module, state_dict, *args, **kwargs)

    return load


def _entered() -> List[nn.Module]:
    """Return the modules whose ``init_weights`` is running, the innermost first."""
    found: List[nn.Module] = []
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "init_weights":
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module):
                found.append(owner)
        frame = frame.f_back
    return found


def _copies(model: nn.Module) -> Dict[str, List[List[str]]]:
    """Return the groups of parameters that have equal bits, constants aside, and those that share their memory."""
    equal: Dict[str, List[str]] = {}
    shared: Dict[int, List[str]] = {}
    for name, tensor in sorted(every_parameter(model)):
        flat = tensor.detach().reshape(-1)
        if flat.numel():
            shared.setdefault(tensor.data_ptr(), []).append(name)
            if not bool((flat == flat[0]).all()):
                equal.setdefault(content_digest(tensor.detach().cpu().contiguous()), []).append(name)
    return dict(
        copies=[names for names in equal.values() if len(names) > 1],
        shared=[names for names in shared.values() if len(names) > 1],
    )


def every_parameter(model: nn.Module) -> Iterator[Tuple[str, torch.Tensor]]:
    """Yield every parameter under all its names."""
    for path, module in _modules(model, ""):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield (path + "." + name if path else name), parameter


def _modules(module: nn.Module, path: str) -> Iterator[Tuple[str, nn.Module]]:
    yield path, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _modules(child, path + "." + name if path else name)

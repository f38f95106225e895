"""What code written for older libraries asks for and today's libraries lack, each put there only where it is missing.

Runs in the legacy process, before the code base is imported, with whatever interpreter that process has: a function that
finds nothing missing does nothing. What was put in place is told in the trace's provenance.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Callable, Iterator, List, Optional

import torch

#: numpy < 1.24 had these names for Python's own types.
_NUMPY_ALIASES = {"int": int, "bool": bool, "float": float, "object": object, "str": str, "complex": complex}

#: Names of what was put in place in this process.
IN_PLACE = []  # type: List[str]
#: How an mmdet names the newest mmcv it accepts, in the message with which it refuses another one.
_NEWEST = re.compile(r"<(=?)\s*(\d+(?:\.\d+)*)")
_OLDEST = re.compile(r">=\s*(\d+(?:\.\d+)*)")


def install(device: str) -> None:
    """Put in place what this interpreter lacks, and note the names in :data:`IN_PLACE`.

    Args:
        device: where the model will run; on the CPU ``.cuda()`` and ``.to("cuda")`` of the code base do nothing.
    """
    install_libraries()
    if not device.startswith("cuda"):
        IN_PLACE.extend(_no_cuda())


def install_libraries() -> None:
    """Put in place what other libraries than torch lack, and note the names in :data:`IN_PLACE`."""
    IN_PLACE.extend([*_numpy_aliases(), *_torchvision(), *_yapf()])


@contextmanager
def accepted_mmcv() -> Iterator[None]:
    """Let an mmdet be imported within that refuses this mmcv 1.x because it is newer than any it knew.

    It looks at the version alone, when it is imported. So it is imported once to learn whether it refuses, and which
    versions it accepts; within, the version is the oldest one of these, and behind it the true one again.
    """
    import mmcv

    own, accepted = mmcv.__version__, _accepted(mmcv.__version__)
    if accepted is None:
        yield
        return
    mmcv.__version__ = accepted
    try:
        yield
    finally:
        mmcv.__version__ = own
    IN_PLACE.append("mmcv {} for mmdet, which refuses {}".format(accepted, own))


def _accepted(version: str) -> Optional[str]:
    """Return a version of mmcv that mmdet accepts; None if it accepts this one, or refuses it for being too old."""
    try:
        importlib.import_module("mmdet")
        return None
    except AssertionError as error:
        text = str(error)
    except ModuleNotFoundError:
        return None
    for name in [name for name in sys.modules if name.partition(".")[0] == "mmdet"]:
        del sys.modules[name]
    newest, oldest = _NEWEST.search(text), _OLDEST.search(text)
    is_newer = newest is not None and _numbers(version) >= _numbers(newest.group(2))
    return oldest.group(1) if is_newer and oldest is not None else None


def _numbers(version: str) -> List[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _numpy_aliases() -> List[str]:
    import numpy

    # looked up in the module's dict: asking numpy itself ends in a warning or an error
    missing = [name for name in _NUMPY_ALIASES if name not in vars(numpy)]
    for name in missing:
        setattr(numpy, name, _NUMPY_ALIASES[name])
    return ["numpy.{}".format(name) for name in missing]


def _torchvision() -> List[str]:
    """Put an empty torchvision where there is none that can be imported, beside a torch it was not built for e.g."""
    try:
        importlib.import_module("torchvision")
        return []
    except Exception:  # an import that fails half way raises anything
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    stub = ModuleType("torchvision")
    stub.__version__ = "0.0.0"
    stub.__path__ = []  # a package, of which nothing more is there
    sys.modules["torchvision"] = stub
    models = ModuleType("torchvision.models")
    sys.modules["torchvision.models"] = stub.models = models
    return ["torchvision"]


def _yapf() -> List[str]:
    """Let yapf be called with ``verify``, which it no longer takes and mmengine before 0.8 gives it to print a config."""
    try:
        from yapf.yapflib import yapf_api
    except ImportError:
        return []
    code = yapf_api.FormatCode
    if "verify" in inspect.signature(code).parameters:
        return []

    @functools.wraps(code)
    def formatted(*args: Any, verify: bool = False, **kwargs: Any) -> Any:
        return code(*args, **kwargs)

    yapf_api.FormatCode = formatted
    return ["yapf FormatCode(verify)"]


@contextmanager
def pickles_loaded(path: str) -> Iterator[None]:
    """Let ``torch.load`` execute the pickle of one file within, as torch before 2.6 did of every file.

    Args:
        path: of a file that is trusted.
    """
    load = torch.load

    def loaded(file: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, (str, os.PathLike)) and os.path.samefile(file, path):
            kwargs["weights_only"] = False
        return load(file, *args, **kwargs)

    torch.load = loaded
    try:
        yield
    finally:
        torch.load = load


def _no_cuda() -> List[str]:
    to = torch.Tensor.to
    if getattr(to, "is_shim", False):
        return []

    def on_the_cpu(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        args = tuple("cpu" if _is_cuda(arg) else arg for arg in args)
        kwargs = {name: "cpu" if _is_cuda(value) else value for name, value in kwargs.items()}
        return to(tensor, *args, **kwargs)

    on_the_cpu.is_shim = True
    torch.Tensor.to = on_the_cpu
    torch.Tensor.cuda = lambda tensor, *args, **kwargs: tensor
    torch.nn.Module.cuda = lambda module, *args, **kwargs: module
    for name in _FACTORIES:
        setattr(torch, name, _made_on_the_cpu(getattr(torch, name)))
    return ["Tensor.cuda", "Module.cuda", "device=cuda"]


#: Functions that make tensors, of which some code asks for a GPU by default.
_FACTORIES = ("zeros", "ones", "full", "empty", "arange", "linspace", "tensor")


def _made_on_the_cpu(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> torch.Tensor:
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = "cpu"
        return make(*args, **kwargs)

    return made


def _is_cuda(value: Any) -> bool:
    return (isinstance(value, str) and value.startswith("cuda")) or (
        isinstance(value, torch.device) and value.type == "cuda"
    )

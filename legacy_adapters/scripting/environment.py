"""What a trace of a script says of the code that ran, and where."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any, Dict

import numpy
import torch
from torch import nn

from ..provenance import executed
from ..recording.scripts import PHASE

#: What stands where a run has a seed: both scripts seed as they like, and the states of the generators tell.
NO_SEED = "the script's"


def described(model: nn.Module, title: str, gradient_flow: bool) -> Dict[str, Any]:
    """Return the provenance of a script's trace.

    Args:
        model: that runs.
        title: what its code is called; empty for its class.
        gradient_flow: as recorded.
    """
    capability = getattr(torch.backends, "cpu", None)
    device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    kind = type(model)
    found = dict(
        script=True,
        code_base=title or "{}.{}".format(kind.__module__, kind.__qualname__),
        modules=_packages(kind.__module__),
        python=platform.python_version(),
        executable=sys.executable,
        torch=torch.__version__,
        numpy=numpy.__version__,
        threads=torch.get_num_threads(),
        cpu_capability=capability.get_cpu_capability() if hasattr(capability, "get_cpu_capability") else "unknown",
        machine=platform.machine(),
        family="",
        variant="",
        device=str(device),
        dtype=_dtypes(model),
        amp=None,
        seed=NO_SEED,
        mode="train" if model.training else "eval",
        phase=PHASE,
        replayed=False,
        detects=False,
        classes=None,
        gradient_flow=gradient_flow,
        **_code(model),
    )
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _dtypes(model: nn.Module) -> str:
    """Name the precision of a model's floating-point weights; float32 of one that has none."""
    names = {str(tensor.dtype) for tensor in [*model.parameters(), *model.buffers()] if tensor.is_floating_point()}
    return ", ".join(sorted(name[len("torch.") :] for name in names)) or "float32"


def _packages(name: str) -> Dict[str, Dict[str, str]]:
    """Return file and version of the package that a class comes from; nothing for a script's own."""
    package = sys.modules.get(name.partition(".")[0])
    file = getattr(package, "__file__", None)
    if package is None or not isinstance(file, str) or not executed.is_installed(file):
        return {}
    return {package.__name__: dict(file=file, version=str(getattr(package, "__version__", "")))}


def _code(model: nn.Module) -> Dict[str, Any]:
    """Return the files that define the classes of a model's modules, and the installed packages among them."""
    names = {kind.__module__ for module in model.modules() for kind in type(module).__mro__ if kind is not object}
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in names}
    own = [path for path in files.values() if isinstance(path, str) and os.path.isfile(path)]
    packages: Dict[str, Dict[str, str]] = {}
    for name in sorted(names):
        packages.update(_packages(name))
    return dict(files=executed.digests(path for path in own if not executed.is_installed(path)), packages=packages)

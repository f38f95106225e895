"""Supply ``mmcv._ext`` to a legacy code base whose mmcv was not compiled, without the package under test.

``import mmcv.ops`` loads the extension module ``mmcv._ext`` and asserts that it holds every operator. :func:`install`
appends one finder to the *end* of ``sys.meta_path``: Python asks it only after the regular search has found no
``mmcv._ext``, so a compiled extension always wins.

What is discrete is implemented a second time (:mod:`.nms`), as plainly as possible: an error in the port's own version
must not be on both sides. What is continuous would round otherwise in a second implementation; it is one file,
:data:`CONTINUOUS`, which is loaded by its path under a private name, so that nothing else of its package is imported.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any, Callable, Optional

from . import nms as reference

EXTENSION_NAME = "mmcv._ext"
#: The file that serves both sides of a comparison, beside this package.
CONTINUOUS = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "ddq_port", "ops", "continuous.py"
)
#: The name it is loaded under; no module of the package it lies in is imported with it.
PRIVATE_NAME = "legacy_adapters.standin._continuous"
MARKER = "__legacy_standin__"


class StandinLoader:
    """Fill a module named ``mmcv._ext`` with the operators that there are."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[ModuleType]:
        """Return None, which asks Python for an ordinary empty module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Put the operators, and a ``__getattr__`` that answers for absent ones, into ``module``."""
        continuous = load_continuous()
        operators = {name: getattr(continuous, name) for name in continuous.__all__}
        operators["nms"] = reference.nms
        for name, operator in operators.items():
            setattr(module, name, operator)
        setattr(module, "get_compiler_version", lambda: "none (stand-in for mmcv._ext)")
        setattr(module, "get_compiling_cuda_version", lambda: "not available")
        setattr(module, "__getattr__", _absent(sorted(operators)))
        setattr(module, MARKER, True)


class StandinFinder:
    """Answer for the module name ``mmcv._ext`` and for nothing else."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Optional[importlib.machinery.ModuleSpec]:
        """Return a spec for ``mmcv._ext``, None for any other module."""
        if fullname != EXTENSION_NAME:
            return None
        return importlib.machinery.ModuleSpec(fullname, StandinLoader(), origin=__name__)


def install() -> None:
    """Register the finder at the end of ``sys.meta_path``; do nothing when it is registered already."""
    if not any(isinstance(finder, StandinFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandinFinder())


def load_continuous() -> ModuleType:
    """Load the continuous operators by the path of their file."""
    if PRIVATE_NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(PRIVATE_NAME, CONTINUOUS)
        if spec is None or spec.loader is None:
            raise ImportError("cannot load {}".format(CONTINUOUS))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[PRIVATE_NAME] = module
    return sys.modules[PRIVATE_NAME]


def _absent(present: list) -> Callable[[str], Callable]:
    """Return a module's ``__getattr__``: mmcv asserts at import that every operator exists; calling one is an error."""

    def answer(name: str) -> Callable:
        if name.startswith("__"):
            raise AttributeError("module {!r} has no attribute {!r}".format(EXTENSION_NAME, name))

        def missing(*args: Any, **kwargs: Any) -> None:
            raise NotImplementedError(
                "mmcv operator `{}` is not in the legacy side's stand-in for mmcv._ext, which has only {}; give "
                "--legacy-python an interpreter with the compiled `mmcv`.".format(name, ", ".join(present))
            )

        missing.__name__ = missing.__qualname__ = name
        return missing

    return answer

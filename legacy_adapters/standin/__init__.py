"""Supply ``mmcv._ext`` to a legacy code base whose mmcv was not compiled, without the package under test.

``import mmcv.ops`` loads the extension module ``mmcv._ext`` and asserts that it holds every operator. :func:`install`
appends one finder to the *end* of ``sys.meta_path``: Python asks it only after the regular search has found no
``mmcv._ext``, so a compiled extension always wins.

What is discrete is implemented a second time (:mod:`.nms`, :mod:`.softnms`), as plainly as possible: an error in the
port's own version must not be on both sides. What is continuous would round otherwise in a second implementation; these
are the files and folders :data:`SHARED`, each of which is loaded by its path, under a private name, when one of its
operators is first called. So nothing else of their package is imported, and what a side did not use is not among what
it executed.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any, Callable, Dict, Optional

from . import nms, softnms

EXTENSION_NAME = "mmcv._ext"
_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "ddq_port", "ops")
#: Path of each file or folder that serves both sides of a comparison -> its operators.
SHARED = {
    os.path.join(_FOLDER, "carafe.py"): ("carafe_backward", "carafe_forward"),
    os.path.join(_FOLDER, "continuous.py"): (
        "ms_deform_attn_backward",
        "ms_deform_attn_forward",
        "sigmoid_focal_loss_backward",
        "sigmoid_focal_loss_forward",
    ),
    os.path.join(_FOLDER, "deform_conv"): (
        "deform_conv_backward_input",
        "deform_conv_backward_parameters",
        "deform_conv_forward",
        "modulated_deform_conv_backward",
        "modulated_deform_conv_forward",
    ),
    os.path.join(_FOLDER, "masked_conv.py"): ("masked_col2im_forward", "masked_im2col_forward"),
    os.path.join(_FOLDER, "roi_align.py"): ("roi_align_backward", "roi_align_forward"),
}
#: What the names they are loaded under begin with; no module of the package they lie in is imported with them.
PRIVATE_NAME = "legacy_adapters.standin._"
MARKER = "__legacy_standin__"
#: Under this name stand the operators that were asked for and are lacking, see :mod:`legacy_adapters.lacking`.
LACKING = "__lacking_operators__"


class StandinLoader:
    """Fill a module named ``mmcv._ext`` with the operators that there are."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[ModuleType]:
        """Return None, which asks Python for an ordinary empty module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Put the operators, and a ``__getattr__`` that answers for absent ones, into ``module``."""
        operators = {name: _shared_operator(path, name) for path, names in SHARED.items() for name in names}
        operators.update(nms=nms.nms, nms_match=softnms.nms_match, softnms=softnms.softnms)
        for name, operator in operators.items():
            setattr(module, name, operator)
        setattr(module, "get_compiler_version", lambda: "none (stand-in for mmcv._ext)")
        setattr(module, "get_compiling_cuda_version", lambda: "not available")
        lacking: Dict[str, str] = {}
        setattr(module, LACKING, lacking)
        setattr(module, "__getattr__", _absent(lacking))
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


def load_shared(path: str) -> ModuleType:
    """Load one of :data:`SHARED` by its path, once."""
    name = PRIVATE_NAME + os.path.splitext(os.path.basename(path))[0]
    if name not in sys.modules:
        folder = os.path.isdir(path)
        file = os.path.join(path, "__init__.py") if folder else path
        spec = importlib.util.spec_from_file_location(
            name, file, submodule_search_locations=[path] if folder else None
        )
        if spec is None or spec.loader is None:
            raise ImportError("cannot load {}".format(path))
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def _shared_operator(path: str, name: str) -> Callable:
    """Return an operator whose file is loaded when it is first called."""

    def operator(*args: Any, **kwargs: Any) -> Any:
        return getattr(load_shared(path), name)(*args, **kwargs)

    operator.__name__ = operator.__qualname__ = name
    return operator


class LackingOperatorError(NotImplementedError):
    """An operator was called that the stand-in lacks; the message, one line, says what to install.

    Attributes:
        lacking_operator: its name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(_advice(name))
        self.lacking_operator = name


def _absent(lacking: Dict[str, str]) -> Callable[[str], Callable]:
    """Return a module's ``__getattr__``: mmcv asserts at import that every operator exists; calling one is an error.

    Args:
        lacking: is filled with what is asked for, and what to do about each.
    """

    def answer(name: str) -> Callable:
        if name.startswith("__"):
            raise AttributeError("module {!r} has no attribute {!r}".format(EXTENSION_NAME, name))

        def operator(*args: Any, **kwargs: Any) -> None:
            raise LackingOperatorError(name)

        lacking[name] = _advice(name)
        operator.__name__ = operator.__qualname__ = name
        return operator

    return answer


def _advice(name: str) -> str:
    return (
        "mmcv operator `{}` is not in the legacy side's stand-in for mmcv._ext; install the compiled mmcv in place of "
        "mmcv-lite, extra [mmcv], or give --legacy-python an interpreter with it; some operators it has on a GPU "
        "only.".format(name)
    )

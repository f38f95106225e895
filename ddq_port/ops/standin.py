"""Supply ``mmcv._ext`` where mmcv was installed without its compiled operators (``mmcv-lite``, a source tree).

``import mmcv.ops`` loads the extension module ``mmcv._ext`` and asserts that it holds every operator. Without that
module nothing of mmdet can be imported. :func:`install` appends one finder to the *end* of ``sys.meta_path``: Python
asks it only after the regular search has found no ``mmcv._ext``, so a compiled extension always wins. The finder
answers for this single module name, whatever the version of mmcv.

This is the one place of the package that touches third-party modules at import.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys

TYPE_CHECKING = False  # as in `typing`, which would take half of this package's import time; so would `importlib.abc`
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

EXTENSION_NAME = "mmcv._ext"
_IMPLEMENTATION = "ddq_port.ops.mmcv_ext"
_MARKER = "__ddq_port_standin__"
_LACKING = "__lacking_operators__"


class StandinLoader:
    """Fill a module named ``mmcv._ext`` with the content of :mod:`ddq_port.ops.mmcv_ext`."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Return None, which asks Python for an ordinary empty module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Copy every operator, and the module-level ``__getattr__`` that answers for absent ones, into ``module``."""
        implementation = importlib.import_module(_IMPLEMENTATION)
        for name in implementation.__all__:
            setattr(module, name, getattr(implementation, name))
        module.__doc__ = implementation.__doc__
        module.__getattr__ = implementation.__getattr__  # type: ignore[method-assign]
        module.__dict__[_LACKING] = implementation.__dict__[_LACKING]
        setattr(module, _MARKER, True)


class StandinFinder:
    """Answer for the module name ``mmcv._ext`` and for nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for ``mmcv._ext``, None for any other module."""
        if fullname != EXTENSION_NAME:
            return None
        return importlib.machinery.ModuleSpec(fullname, StandinLoader(), origin=_IMPLEMENTATION)


def install() -> None:
    """Register the finder at the end of ``sys.meta_path``; do nothing when it is registered already."""
    if not any(_is_ours(finder) for finder in sys.meta_path):
        sys.meta_path.append(StandinFinder())


def is_active() -> bool:
    """Tell whether the loaded ``mmcv._ext`` is the stand-in; False when none is loaded yet."""
    module = sys.modules.get(EXTENSION_NAME)
    return module is not None and module.__dict__.get(_MARKER, False) is True


def _is_ours(finder: object) -> bool:
    # By name, not by class object: a re-imported package has a new class but must not add a second finder.
    kind = type(finder)
    return (kind.__module__, kind.__qualname__) == (StandinFinder.__module__, StandinFinder.__qualname__)

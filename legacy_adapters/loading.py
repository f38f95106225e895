"""Load an adapter from its file, in the process of the side that it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Mapping

import torch

from .adapter import Adapter, UnableError, left_open
from .bases.detection import DetectionAdapter
from .contract import FUNCTIONS, OF_ALL, AdapterError
from .recording.taps import Tap
from .registry import load_beside

NAME = "ADAPTER"
_loaded: Dict[str, Adapter] = {}


class FunctionsAdapter(DetectionAdapter):
    """A detector's adapter by functions, which have to be those that a check needs."""

    @left_open
    def taps(self, model: torch.nn.Module) -> List[Tap]:
        """Return the functions whose decisions are recorded."""
        raise UnableError("{} has no function taps(model).".format(self.label))

    @left_open
    def provenance(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        """Tell which code ran."""
        raise UnableError("{} has no function provenance(options).".format(self.label))


def load_adapter(path: str) -> Adapter:
    """Execute an adapter's file, but once, and return its adapter.

    The file can import those beside it: ``from .model import Net``, or ``import model``.

    Raises:
        AdapterError: if the file has something else under ``ADAPTER``.
    """
    if path not in _loaded:
        folder = os.path.dirname(os.path.abspath(path))
        if folder not in sys.path:
            sys.path.append(folder)  # behind everything else, so that it shadows nothing
        _loaded[path] = _adapter_of(load_beside(Path(path), Path(path).resolve().parent.name), path)
    return _loaded[path]


def _adapter_of(module: ModuleType, path: str) -> Adapter:
    adapter = getattr(module, NAME, None)
    if isinstance(adapter, type) and issubclass(adapter, Adapter):
        raise AdapterError("{}: {} is the class {}; write {} = {}().".format(
            path, NAME, adapter.__name__, NAME, adapter.__name__))  # fmt: skip
    if adapter is None:
        adapter = FunctionsAdapter()
        for name in FUNCTIONS:
            if hasattr(module, name) and not (name in OF_ALL and getattr(module, name) is None):
                setattr(adapter, name, getattr(module, name))
    elif not isinstance(adapter, Adapter):
        raise AdapterError("{}: {} must be a legacy_adapters.adapter.Adapter, found a {}.".format(
            path, NAME, type(adapter).__name__))  # fmt: skip
    adapter.label = path
    return adapter

"""Carry a detector's weights from a legacy layout to the new one, and back.

The submodules are imported on first use, so that `ddq-convert --help` never waits for torch:
`converters.checkpoint.read(path)` works after a plain `import converters`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_SUBMODULES = {
    "api": "api",
    "casting": "carrying.casting",
    "checkpoint": "reading.checkpoint",
    "classes": "carrying.classes",
    "detect": "rules.detect",
    "diff": "examining.diff",
    "engine": "rules.engine",
    "errors": "errors",
    "inspection": "examining.inspection",
    "layout": "rules.layout",
    "ledger": "rules.ledger",
    "manifest": "writing.manifest",
    "mapping": "rules.mapping",
    "optimizer": "carrying.optimizer",
    "options": "options",
    "parts": "carrying.parts",
    "ports": "rules.ports",
    "rule_file": "rules.rule_file",
    "verification": "examining.verification",
    "writer": "writing.writer",
}


def __getattr__(name: str) -> ModuleType:
    """Import a public submodule the first time it is asked for."""
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{_SUBMODULES[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES])

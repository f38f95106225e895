"""Prove that a port computes what the legacy code computes: traces, comparison, verdict (CLI ``ddq-parity``).

``parity.capture``, ``parity.compare`` and ``parity.check`` compare in a script of one's own; ``parity.run``,
``parity.capture_golden`` and ``parity.check_golden`` do what commands do. They are imported when they are first used, so that ``import parity`` and ``ddq-parity --help`` do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import (
        INCOMPARABLE,
        INPUT_ERRORS,
        MATCH,
        MISMATCH,
        SideError,
        Verdict,
        capture,
        capture_golden,
        check,
        check_golden,
        compare,
        run,
        summary,
    )

__all__ = [
    "INCOMPARABLE", "INPUT_ERRORS", "MATCH", "MISMATCH", "SideError", "Verdict", "capture", "capture_golden", "check",
    "check_golden", "compare", "run", "summary",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a name of the API the first time it is asked for."""
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

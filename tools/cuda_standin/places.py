"""Name the line of a detector's code that is running."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
_NOT_ASKED = tuple(f"{Path(file).parent}/" for file in (torch.__file__, __file__))
_INSTALLED = "/site-packages/"


def current() -> str:
    """Return ``FILE:LINE FUNCTION`` of the innermost frame that is neither torch's nor the stand-in's.

    Files are named from the folder of installed packages or of this repository on, else by their whole path. While
    torch runs backward for code without a line of its own, the autograd function stands in front.
    """
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((*_NOT_ASKED, "<")):
        frame = frame.f_back
    code = None if frame is None else frame.f_code
    place = "no code" if code is None else f"{_named(code.co_filename)}:{frame.f_lineno} {code.co_name}"
    node = torch._C._current_autograd_node()
    return place if node is None else f"backward of {node.name()}, under {place}"


def _named(path: str) -> str:
    if _INSTALLED in path:
        return path.rpartition(_INSTALLED)[2]
    return str(Path(path).relative_to(ROOT)) if path.startswith(f"{ROOT}/") else path

"""Methods of a detector and of its heads that are recorded beside the calls of modules.

A detector is more than its modules: what its own code makes of their outputs travels in arguments and results of
methods, until it reaches the next module, a loss or a decision. Recording these tells which code made it.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, Callable, Dict, Iterator, Tuple

import numpy as np
import torch
from torch import nn

from .kinds import METHOD_IN, METHOD_OUT

IN, OUT = METHOD_IN, METHOD_OUT
KINDS = (IN, OUT)

#: How MMDetection enters heads and detectors, 3.x and 2.x, and the parts of its DETR-like detectors. A module that has
#: such a method is followed and recorded, whatever its class.
METHODS = (
    "extract_feat", "forward_transformer", "pre_transformer", "forward_encoder", "pre_decoder", "forward_decoder",
    "loss", "predict", "loss_and_predict", "loss_by_feat", "predict_by_feat", "_forward",
    "forward_train", "simple_test", "get_bboxes",
)  # fmt: skip

#: Gives from a module's path, a method's name and :data:`IN` or :data:`OUT` what the method finds elsewhere than in its
#: arguments, or leaves elsewhere than in its result, by slot: in a shared dict, say. Empty for nothing.
Aside = Callable[[str, str, str], Dict[str, Any]]


def nothing_aside(name: str, method: str, kind: str) -> Dict[str, Any]:
    """Say that methods pass everything in arguments and results."""
    return {}


def methods_of(module: nn.Module) -> Iterator[Tuple[str, Callable]]:
    """Yield name and bound method of every method of ``module`` that is recorded."""
    for name in METHODS:
        method = getattr(module, name, None)
        if callable(method) and not isinstance(method, nn.Module):
            yield name, method


def plain(value: Any) -> Any:
    """Return ``value`` as tensors and numbers in dicts and lists, with the content of data samples and dataclasses.

    Data samples and instances of mmengine are told by their ``all_items``, which gives meta information, too. What is
    neither of these is left out.
    """
    if isinstance(value, (torch.Tensor, bool, int, float)):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value)) if value.dtype.kind in "biuf" else None
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if callable(getattr(value, "all_items", None)) and not isinstance(value, (type, nn.Module)):
        return {key: plain(item) for key, item in value.all_items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return None

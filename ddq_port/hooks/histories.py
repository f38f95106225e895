"""mmengine's histories of logged numbers in checkpoints, as tensors instead of objects.

mmengine 0.10.7 saves them as objects that hold functions, which ``torch.load`` refuses since torch 2.6: it cannot
resume its own checkpoints there. The plain form, ``message_hub["log_history"]``, is also what ``ddq-convert`` writes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_PLAIN, _OBJECTS = "log_history", "log_scalars"


def as_plain(hub: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a message hub with its histories as tensors and numpy's numbers as Python's."""
    history = {name: _tensors(buffer) for name, buffer in hub[_OBJECTS].items() if isinstance(buffer, HistoryBuffer)}
    info = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in hub["runtime_info"].items()
    }
    return {**hub, _OBJECTS: {}, "runtime_info": info, _PLAIN: history}


def with_objects(hub: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a message hub as mmengine expects it, whichever form it was saved in."""
    made = {
        name: HistoryBuffer(
            history["values"].cpu().numpy(),
            history["counts"].cpu().numpy(),
            max_length=history.get("max_length", 10**6),
        )
        for name, history in hub.get(_PLAIN, {}).items()
    }
    scalars, resumed = hub.get(_OBJECTS, {}), hub.get("resumed_keys", {})
    return {**hub, _OBJECTS: {**made, **scalars}, "resumed_keys": {**dict.fromkeys(made, True), **resumed}}


def _tensors(buffer: HistoryBuffer) -> dict[str, Any]:
    values, counts = buffer.data
    return dict(values=torch.from_numpy(values), counts=torch.from_numpy(counts), max_length=buffer.max_length)

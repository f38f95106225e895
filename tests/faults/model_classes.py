"""Faults in the labels of detections, each about one class or two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ddq_port.models.ddq_detr import head

from .fault import Fault
from .planting import Apply, patching

#: Labels are what the head's `predict` makes.
_HEAD = "bbox_head"


def _labels(change: Callable[[Tensor], Tensor]) -> Apply:
    """Change the labels of the detections."""

    def changed(right: Callable, *args: Any) -> InstanceData:
        found = right(*args)
        found.labels = change(found.labels)
        return found

    return patching(head, "detections", changed)


def _exchanged(one: int, two: int) -> Apply:
    return _labels(lambda x: torch.where(x == one, two, torch.where(x == two, one, x)))


def _for(label: int, other: int) -> Apply:
    return _labels(lambda x: torch.where(x == label, other, x))


def _never(label: int) -> Apply:
    def changed(right: Callable, logits: Tensor, *rest: Any) -> InstanceData:
        silent = torch.arange(logits.size(-1)) == label
        return right(logits.masked_fill(silent, -1e4), *rest)

    return patching(head, "detections", changed)


FAULTS = (
    Fault("class_0_never_predicted", "class never predicted", _HEAD, _never(0), says="tap `detections`"),
    Fault("class_1_never_predicted", "class never predicted", _HEAD, _never(1), says="tap `detections`"),
    Fault("class_2_never_predicted", "class never predicted", _HEAD, _never(2), says="tap `detections`"),
    Fault("classes_0_and_1_exchanged", "exchanged labels", _HEAD, _exchanged(0, 1)),
    Fault("classes_1_and_2_exchanged", "exchanged labels", _HEAD, _exchanged(1, 2)),
    Fault("classes_0_and_2_exchanged", "exchanged labels", _HEAD, _exchanged(0, 2)),
    Fault("class_0_called_1", "one class called another", _HEAD, _for(0, 1)),
    Fault("class_1_called_2", "one class called another", _HEAD, _for(1, 2)),
    Fault("class_2_called_1", "one class called another", _HEAD, _for(2, 1)),
)

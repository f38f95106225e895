"""All faults by name."""

from __future__ import annotations

import ddq_port  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

from itertools import chain

from . import (
    model_attention,
    model_backbone,
    model_backward,
    model_decoder,
    model_head,
    model_losses,
    model_queries,
    traces,
    training,
    weights,
)
from .fault import Fault

MODULES = (
    model_backbone,
    model_attention,
    model_decoder,
    model_queries,
    model_head,
    model_losses,
    model_backward,
    weights,
    traces,
    training,
)

FAULTS: dict[str, Fault] = {fault.name: fault for fault in chain.from_iterable(m.FAULTS for m in MODULES)}

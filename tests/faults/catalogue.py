"""All faults and all harmless rewrites by name."""

from __future__ import annotations

import ddq_port  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

from itertools import chain

from . import (
    checkpoints,
    code_init,
    model_attention,
    model_backbone,
    model_backward,
    model_batch,
    model_bottleneck,
    model_classes,
    model_crash,
    model_decoder,
    model_head,
    model_hooks,
    model_losses,
    model_methods,
    model_modes,
    model_nan,
    model_queries,
    model_seeds,
    model_state,
    packages,
    rewrites_decisions,
    rewrites_forms,
    rewrites_leaves,
    rewrites_rounding,
    rewrites_shapes,
    traces,
    training,
    training_options,
    weights,
)
from .fault import Fault, Rewrite

#: The first suite, and what was added to it from kinds that an independent set of faults had shown to be missing.
FIRST = (
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
ADDED = (
    model_batch,
    model_bottleneck,
    model_classes,
    model_seeds,
    model_methods,
    model_hooks,
    model_modes,
    model_state,
    model_nan,
    model_crash,
    code_init,
    packages,
    checkpoints,
    training_options,
)
REWRITING = (rewrites_leaves, rewrites_forms, rewrites_decisions, rewrites_rounding, rewrites_shapes)
MODULES = (*FIRST, *ADDED)

FAULTS: dict[str, Fault] = {fault.name: fault for fault in chain.from_iterable(m.FAULTS for m in MODULES)}
NEW: frozenset[str] = frozenset(fault.name for fault in chain.from_iterable(m.FAULTS for m in ADDED))
REWRITES: dict[str, Rewrite] = {one.name: one for one in chain.from_iterable(m.REWRITES for m in REWRITING)}
PLANTED: dict[str, Fault | Rewrite] = {**FAULTS, **REWRITES}

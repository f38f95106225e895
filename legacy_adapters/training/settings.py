"""Options of an optimizer's groups, of its wrapper and of clipping, as they are recorded."""

from __future__ import annotations

from typing import Any, Dict, Sequence

import torch

#: Options of an optimizer's groups and of clipping that say how it is computed, not what, or what an option was made of.
#: Others are recorded if they are set: an option that is off means what its absence means, as in older versions.
_HOW = ("params", "parameters", "param_names", "foreach", "fused", "capturable", "differentiable",
        "lr_mult", "decay_mult")  # fmt: skip
#: Options that newer versions of torch write into the groups of a class, which has no other way to compute.
IMPLIED = {"AdamW": {"decoupled_weight_decay": True}}
#: Recorded also if zero.
ALWAYS = ("initial_lr", "lr", "weight_decay", "betas", "eps", "momentum", "max_norm", "norm_type", "clip_value")


def options_of(values: Dict[str, Any], always: Sequence[str] = ALWAYS) -> Dict[str, torch.Tensor]:
    """Return what is set or stands in ``always``: numbers in double precision, text as bytes."""
    found = {}
    for name, value in values.items():
        parts = value if isinstance(value, (tuple, list)) else (value,)
        if name in _HOW or value is None or not (value or name in always):
            continue
        if isinstance(value, str):
            found[name] = torch.tensor(list(value.encode()), dtype=torch.uint8)
        elif isinstance(value, torch.Tensor) or all(isinstance(part, (bool, int, float)) for part in parts):
            found[name] = torch.as_tensor(value, dtype=torch.float64)
    return found

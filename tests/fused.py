"""A tiny model in two forms, for rules that change tensors: fused on the legacy side, taken apart on the new one.

Its numbers are whole and small, so that sums have no rounding and both forms compute the same bits in every order.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from converters.rules import rule_file
from converters.rules.mapping import Mapping

from .parity.fused_family.legacy import CLASSES, PLACES, WIDTH, Legacy
from .parity.fused_family.new import New

__all__ = ["MAPPING", "RULES", "Legacy", "New", "image", "legacy_weights"]

RULES = rule_file.load(Path(__file__).parent / "parity" / "fused_family" / "rules.json")
MAPPING = Mapping("fused", RULES, ("classes.*",))


def legacy_weights(seed: int = 0) -> dict[str, Tensor]:
    """Return whole numbers from -2 to 2 as weights of the legacy form; the background's row is zero."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        key: torch.randint(-2, 3, value.shape, generator=generator).float()
        for key, value in Legacy().state_dict().items()
    }
    for key in ("head.weight", "head.bias"):
        weights[key][CLASSES:] = 0.0
    return weights


def image() -> Tensor:
    """Return an input of whole numbers."""
    return torch.randint(-2, 3, (PLACES, WIDTH), generator=torch.Generator().manual_seed(1)).float()

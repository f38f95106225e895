"""How weights of MMDetection 2.x are called in 3.x: the same, but for the transformers."""

from __future__ import annotations

from converters.rules.mapping import Keep, Rule
from legacy_adapters.family import Variant

from .model_configs import kinds
from .rules_detr import TABLES


def rules(variant: Variant) -> tuple[Rule, ...]:
    """Return the rules of a detector, by what its new config is of."""
    return next((TABLES[kind] for kind in kinds(variant) if kind in TABLES), (Keep("**"),))

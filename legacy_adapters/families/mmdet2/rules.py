"""How weights of MMDetection 2.x are called in 3.x: the same, but for the transformers."""

from __future__ import annotations

from converters.rules.mapping import Keep, Rule
from legacy_adapters.family import Alias, Variant

from .model_configs import kinds
from .rules_detr import ALIASES, TABLES


def rules(variant: Variant) -> tuple[Rule, ...]:
    """Return the rules of a detector, by what its new config is of."""
    return next((TABLES[kind] for kind in kinds(variant) if kind in TABLES), (Keep("**"),))


def aliases(variant: Variant) -> tuple[Alias, ...]:
    """Return what modules without parameters are called in 3.x, by what the new config is of."""
    return ALIASES if any(kind in TABLES for kind in kinds(variant)) else ()

"""How weights of MMDetection 2.x are called in 3.x: the same, but for the transformers and some heads."""

from __future__ import annotations

from converters.rules.mapping import Keep, Rename, Rule
from legacy_adapters.family import Variant

from . import rules_moved
from .model_configs import of_new
from .rules_detr import DETR, DETR_FORMER, table_of


def rules(variant: Variant) -> tuple[Rule, ...]:
    """Return the rules of a detector, by what its new config is of."""
    model = of_new(variant)
    return table_of(model) or rules_moved.table_of(model) or (Keep("**"),)


def former(variant: Variant) -> tuple[Rename, ...]:
    """Return the names that weights of a detector had in the first versions of 2.x."""
    return DETR_FORMER if table_of(of_new(variant)) is DETR else ()

"""How weights of MMDetection 2.x are called in 3.x: the same, but for the transformers."""

from __future__ import annotations

from converters.rules.mapping import Keep, Rule
from legacy_adapters.family import Variant


def rules(variant: Variant) -> tuple[Rule, ...]:
    """Return the rules of a detector."""
    return (Keep("**"),)

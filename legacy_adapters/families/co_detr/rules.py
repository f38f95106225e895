"""The rules from the official layout of Co-DETR to this toolkit's.

Names are kept, but for that of the embedding of denoising queries. No value changes. To read beside a state_dict listing.
"""

from __future__ import annotations

from converters.rules.mapping import Keep, Rename, Rule
from legacy_adapters.family import Variant
from legacy_adapters.targets.co_detr.rules import HEADS

CO_DINO: tuple[Rule, ...] = (
    Keep("backbone.**"),
    *HEADS,
    Rename("query_head.label_embedding.weight", "query_head.dn_generator.label_embedding.weight"),
)
CO_DEFORMABLE: tuple[Rule, ...] = (Keep("backbone.**"), *HEADS, Keep("query_head.query_embedding.weight"))


def rules(variant: Variant) -> tuple[Rule, ...]:
    """Return the rules of a variant."""
    return CO_DINO if variant.settings["denoising"] else CO_DEFORMABLE

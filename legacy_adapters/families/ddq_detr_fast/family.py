"""This toolkit's own DDQ-DETR: its legacy numerics, which are those of the official code, carried to its fast ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converters.rules.mapping import Keep
from legacy_adapters.family import Family, Form, Side, Variant
from legacy_adapters.targets import ddq_detr as target

from .not_made import not_made


def _forms(variant: Variant) -> tuple[Form, ...]:
    last = variant.settings["decoder_layers"] - 1
    reason = "fast numerics predict from the last layer only where nothing else is asked for"
    return tuple(
        Form("bbox_head", kind="module_out", phase=phase, select=(0, last, last + 1), reason=reason)
        for phase in ("predict", "unscaled")
    )


FAMILY = Family(
    name="ddq_detr_fast",
    variants=tuple(replace(variant, legacy=variant.new) for variant in target.variants("")),
    # both are of one package, so it is no sign of a wrong side that one of them loads it
    legacy=Side("this package, legacy numerics", Path("legacy.py")),
    new=Side("this package, fast numerics", target.SIDE.adapter.with_name("fast.py")),
    rules=(Keep("**"),),
    exclusions=not_made,
    forms=_forms,
    class_rows=target.CLASS_ROWS,
    # queries that attend sharply to each other make five times the rounding of each layer, and full width has six
    seeding=replace(target.SEEDING, gains={**target.SEEDING.gains, "*in_proj_weight": 1.2}),
    layouts=target.LAYOUTS,
)

"""What one side records and the other has no twin of, each with its reason; imports no torch."""

from __future__ import annotations

from legacy_adapters.family import LEGACY, Exclusion

EXCLUSIONS = tuple(
    Exclusion(LEGACY, "module_in", "bbox_head.center_prior", name, "one argument here, a part of gt_instances there")
    for name in ("gt_bboxes", "labels")
)

"""What one side records and the other has no twin of, each with its reason; imports no torch."""

from __future__ import annotations

from legacy_adapters.family import LEGACY, NEW, Exclusion, Variant

from . import rules_detr
from .model_configs import of_new

_INSTANCES = "one argument here, a part of instances there, which are no tensors"
_OF_ALL = (
    *(Exclusion(LEGACY, "module_in", "bbox_head.center_prior", name, _INSTANCES) for name in ("gt_bboxes", "labels")),
    *rules_detr.EXCLUSIONS,
)
_CROPPED = "2.x crops masks to their boxes within this head, 3.x behind it: masks of detections and losses are compared"
_LEVELS = "3.x hands it all levels of the neck, of which it takes the first, as 2.x does outside of it"
_OF_TYPES: dict[str, tuple[Exclusion, ...]] = dict(
    YOLACT=(
        *(Exclusion(LEGACY, "module_in", "mask_head", name, _INSTANCES) for name in ("coeff_pred.*", "bboxes.*")),
        Exclusion(LEGACY, "module_in", "mask_head", "img_meta.*.scale_factor", "asked for behind the head in 3.x"),
        Exclusion(NEW, "module_in", "mask_head", "x.*", _LEVELS),
        *(Exclusion(side, "module_out", "mask_head", "*", _CROPPED) for side in (LEGACY, NEW)),
        *(Exclusion(side, "out_grad", "mask_head", "*", _CROPPED) for side in (LEGACY, NEW)),
    ),
    Mask2Former=(Exclusion(LEGACY, "module_in", "panoptic_head", "img_metas.*.scale_factor", rules_detr.METAS),),
    MaskFormer=(Exclusion(LEGACY, "module_in", "panoptic_head", "img_metas.*.scale_factor", rules_detr.METAS),),
)


def exclusions(variant: Variant) -> tuple[Exclusion, ...]:
    """Return what needs no twin in a model, by its config of 3.x."""
    kind = of_new(variant).get("type")
    return (*_OF_ALL, *_OF_TYPES.get(getattr(kind, "__name__", str(kind)).rpartition(".")[2], ()))

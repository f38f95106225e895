"""Heads of DETR and Deformable DETR that tell the matching which boxes they gave, and sum losses in the order of 2.x."""

from __future__ import annotations

from typing import Any

from mmdet.models import dense_heads
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ddq_port.registry import MODELS

from .matching import NORMALIZED


class _Telling(nn.Module):
    """A head whose matching may rest on its normalised boxes, see :class:`.matching.NormalizedBBoxL1Cost`."""

    def _get_targets_single(
        self, cls_score: Tensor, bbox_pred: Tensor, gt_instances: InstanceData, img_meta: dict[str, Any]
    ) -> tuple[Tensor, ...]:
        return super()._get_targets_single(cls_score, bbox_pred, gt_instances, {**img_meta, NORMALIZED: bbox_pred})


@MODELS.register_module()
class DETRHead(_Telling, dense_heads.DETRHead):
    """mmdet's head of DETR; the weight of the background in the classification loss goes for this class as well."""

    def __init__(self, num_classes: int, loss_cls: dict[str, Any], **kwargs: Any) -> None:
        # mmdet reads these two in its own class only, and gives the loss one weight for each class
        loss_cls = dict(loss_cls)
        weight = loss_cls.get("class_weight")
        background = loss_cls.pop("bg_cls_weight", weight)
        if weight is not None:
            loss_cls["class_weight"] = [weight] * num_classes + [background]
        super().__init__(num_classes=num_classes, loss_cls=loss_cls, **kwargs)
        self.bg_cls_weight = background or 0


@MODELS.register_module()
class DeformableDETRHead(_Telling, dense_heads.DeformableDETRHead):
    """mmdet's head of Deformable DETR, with the losses of proposals first: their sum then rounds as in 2.x."""

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the loss terms, those of proposals first."""
        terms = super().loss_by_feat(*args, **kwargs)
        return dict(sorted(terms.items(), key=lambda term: not term[0].startswith("enc_")))

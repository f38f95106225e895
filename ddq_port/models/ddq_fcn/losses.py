"""Losses that are divided by their factor alone, as in MMDetection 2.22.

From 2.25 on mmdet adds eps, 2 ** -23, to the factor, so that nothing is divided by zero. That changes the last bits
where the factor is 1, and turns an infinite loss of no positives at all into a large one (D37 of the register).
``normaliser_eps=True`` computes as mmdet 3.3.0.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models import losses
from torch import Tensor, nn

from ddq_port.registry import MODELS

#: What mmdet adds to every factor.
EPS = torch.finfo(torch.float32).eps


class _OwnFactor(nn.Module):
    """A loss of mmdet that may take its eps off the factor before mmdet adds it.

    For 0, 1 and every whole number, in float32 and float64, what is left is the factor.

    Args:
        normaliser_eps: leave mmdet's eps in.
        options: of the loss.
    """

    def __init__(self, *args: Any, normaliser_eps: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.normaliser_eps = normaliser_eps

    def forward(self, *args: Any, avg_factor: float | Tensor | None = None, **kwargs: Any) -> Tensor:
        """Compute the loss; arguments as of mmdet's class."""
        if avg_factor is not None and not self.normaliser_eps:
            avg_factor = avg_factor - EPS
        return super().forward(*args, avg_factor=avg_factor, **kwargs)


@MODELS.register_module()
class QualityFocalLoss(_OwnFactor, losses.QualityFocalLoss):
    """mmdet's quality focal loss."""


@MODELS.register_module()
class FocalLoss(_OwnFactor, losses.FocalLoss):
    """mmdet's focal loss."""


@MODELS.register_module()
class GIoULoss(_OwnFactor, losses.GIoULoss):
    """mmdet's GIoU loss."""


@MODELS.register_module()
class L1Loss(_OwnFactor, losses.L1Loss):
    """mmdet's L1 loss."""

"""Losses of MMDetection 3.x with the zeros of 2.x, for a new side that is compared with it bit by bit."""

from __future__ import annotations

from typing import Any, Optional

from torch import Tensor


def losses_of_no_positives() -> None:
    """D30: the loss of a level without positives is that of any other level, with weights of 0."""
    from mmdet.models.losses import L1Loss, SmoothL1Loss
    from mmdet.models.losses.smooth_l1_loss import l1_loss, smooth_l1_loss

    def forward(
        self: Any, pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, avg_factor: Any = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:  # fmt: skip
        function, more = (l1_loss, {}) if isinstance(self, L1Loss) else (smooth_l1_loss, dict(beta=self.beta))
        reduction = reduction_override or self.reduction
        return self.loss_weight * function(pred, target, weight, reduction=reduction, avg_factor=avg_factor, **more)

    L1Loss.forward = SmoothL1Loss.forward = forward

"""Transformer encoder of DDQ-DETR: Deformable DETR's, with a switch for gradient checkpointing."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.layers import DeformableDetrTransformerEncoder, DeformableDetrTransformerEncoderLayer
from mmengine.model import ModuleList
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class Recomputed:
    """Part of a layer whose activations are computed again in the backward pass instead of being kept; same bits."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the layer; arguments as in the layer that this is part of."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*args, **kwargs)
        return checkpoint(super().forward, *args, use_reentrant=False, **kwargs)


class RecomputedEncoderLayer(Recomputed, DeformableDetrTransformerEncoderLayer):
    """mmdet's layer, computed again in the backward pass."""


class DDQTransformerEncoder(DeformableDetrTransformerEncoder):
    """Deformable DETR's encoder. mmdet's needs fairscale for ``num_cp``, this one does not.

    Args:
        num_layers: of the encoder.
        num_cp: so many layers, from the first, trade time for memory; none if 0 or less.
        **kwargs: of mmdet's ``DeformableDetrTransformerEncoder``.

    Raises:
        ValueError: if ``num_cp`` is more than ``num_layers``.
    """

    def __init__(self, *, num_layers: int, num_cp: int = -1, **kwargs: Any) -> None:
        if num_cp > num_layers:
            raise ValueError(f"encoder.num_cp is {num_cp}; expected at most the number of layers, {num_layers}.")
        super().__init__(num_layers=num_layers, num_cp=num_cp, **kwargs)

    def _init_layers(self) -> None:
        kinds = [
            RecomputedEncoderLayer if index < self.num_cp else DeformableDetrTransformerEncoderLayer
            for index in range(self.num_layers)
        ]
        self.layers = ModuleList([kind(**self.layer_cfg) for kind in kinds])
        self.embed_dims = self.layers[0].embed_dims

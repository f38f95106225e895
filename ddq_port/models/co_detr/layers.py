"""Layers of the transformer, which take tokens first and images second, and the encoder made of them."""

from __future__ import annotations

import copy
from typing import Any

from mmcv.cnn.bricks.transformer import BaseTransformerLayer
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from ddq_port.models.ddq_detr.encoder import Recomputed
from ddq_port.registry import MODELS


class TransformerLayer(BaseTransformerLayer):
    """A layer of encoder or decoder.

    Args:
        attn_cfgs: config of the attention, or a list of those of self and cross attention.
        feedforward_channels: width between the two linear layers.
        ffn_dropout: in [0, 1).
        operation_order: of ``self_attn``, ``cross_attn``, ``norm`` and ``ffn``.
    """

    def __init__(
        self,
        attn_cfgs: dict | list[dict],
        feedforward_channels: int,
        ffn_dropout: float,
        operation_order: tuple[str, ...],
    ) -> None:
        of_ffn = dict(
            type="FFN",
            feedforward_channels=feedforward_channels,
            num_fcs=2,
            ffn_drop=ffn_dropout,
            act_cfg=dict(type="ReLU", inplace=True),
        )
        super().__init__(attn_cfgs=copy.deepcopy(attn_cfgs), ffn_cfgs=of_ffn, operation_order=operation_order)


class RecomputedLayer(Recomputed, TransformerLayer):
    """A layer whose activations are computed again in the backward pass."""


class LayerSequence(BaseModule):
    """The layers of encoder or decoder.

    Args:
        num_layers: how many.
        transformerlayers: arguments of :class:`TransformerLayer`.
        num_recomputed: so many, from the first, trade time for memory.

    Raises:
        ValueError: if more layers are to be recomputed than there are.
    """

    def __init__(self, num_layers: int, transformerlayers: dict, num_recomputed: int = 0) -> None:
        if num_recomputed > num_layers:
            raise ValueError(f"with_cp is {num_recomputed}; expected at most the number of layers, {num_layers}.")
        super().__init__()
        self.num_layers = num_layers
        self.layers = ModuleList(
            [
                (RecomputedLayer if index < num_recomputed else TransformerLayer)(**transformerlayers)
                for index in range(num_layers)
            ]
        )
        self.embed_dims = self.layers[0].embed_dims


@MODELS.register_module()
class DetrTransformerEncoder(LayerSequence):
    """The encoder.

    Args:
        num_layers: how many.
        transformerlayers: arguments of :class:`TransformerLayer`.
        with_cp: so many layers, from the first, are computed again in the backward pass; none if 0 or less.
    """

    def __init__(self, num_layers: int, transformerlayers: dict, with_cp: int = -1) -> None:
        super().__init__(num_layers, transformerlayers, max(with_cp, 0))

    def forward(self, query: Tensor, **inputs: Any) -> Tensor:
        """Run all layers.

        Args:
            query: [num_tokens, bs, dim].
            inputs: further arguments of each layer.

        Returns:
            [num_tokens, bs, dim].
        """
        for layer in self.layers:
            query = layer(query, **inputs)
        return query

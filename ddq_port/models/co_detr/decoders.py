"""Decoders of Co-Deformable-DETR and Co-DINO: boxes are refined from layer to layer."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.layers import coordinate_to_encoding, inverse_sigmoid
from torch import Tensor, nn

from ddq_port.registry import MODELS

from .layers import LayerSequence


@MODELS.register_module()
class CoDeformableDetrTransformerDecoder(LayerSequence):
    """The decoder of Deformable DETR, with boxes that may be refined with the gradient of the layer before.

    Args:
        num_layers: how many.
        transformerlayers: arguments of :class:`.layers.TransformerLayer`.
        look_forward_twice: the head is given the boxes before they are cut from the graph.
    """

    def __init__(self, num_layers: int, transformerlayers: dict, look_forward_twice: bool = False) -> None:
        super().__init__(num_layers, transformerlayers)
        self.look_forward_twice = look_forward_twice

    def forward(
        self, query: Tensor, reference_points: Tensor, valid_ratios: Tensor, reg_branches: nn.ModuleList, **inputs: Any
    ) -> tuple[Tensor, Tensor]:
        """Run all layers.

        Args:
            query: [num_queries, bs, dim].
            reference_points: [bs, num_queries, 4] cxcywh in [0, 1].
            valid_ratios: [bs, num_levels, 2] (w, h) in (0, 1].
            reg_branches: refinement of boxes by each layer.
            inputs: further arguments of each layer.

        Returns:
            Hidden states [num_layers, num_queries, bs, dim], and the boxes each layer made of its reference points,
            [num_layers, bs, num_queries, 4] cxcywh in [0, 1].
        """
        states, references = [], []
        for layer, branch in zip(self.layers, reg_branches):
            query = layer(query, reference_points=_in_levels(reference_points, valid_ratios), **inputs)
            # [num_queries, bs, dim] -> [bs, num_queries, dim]
            refined = (branch(query.permute(1, 0, 2)) + inverse_sigmoid(reference_points)).sigmoid()
            reference_points = refined.detach()
            states.append(query)
            references.append(refined if self.look_forward_twice else reference_points)
        return torch.stack(states), torch.stack(references)  # [num_layers, num_queries, bs, dim] and [..., 4]


@MODELS.register_module()
class DinoTransformerDecoder(LayerSequence):
    """DINO's decoder: the position of a query follows from its box, and the last operation is a normalisation.

    Args:
        num_layers: how many.
        transformerlayers: arguments of :class:`.layers.TransformerLayer`.
    """

    def __init__(self, num_layers: int, transformerlayers: dict) -> None:
        super().__init__(num_layers, transformerlayers)
        self.ref_point_head = nn.Sequential(
            nn.Linear(2 * self.embed_dims, self.embed_dims), nn.ReLU(), nn.Linear(self.embed_dims, self.embed_dims)
        )
        self.norm = nn.LayerNorm(self.embed_dims)

    def forward(
        self, query: Tensor, reference_points: Tensor, valid_ratios: Tensor, reg_branches: nn.ModuleList, **inputs: Any
    ) -> tuple[Tensor, Tensor]:
        """Run all layers; arguments as of :class:`CoDeformableDetrTransformerDecoder`.

        Returns:
            Hidden states [num_layers, num_queries, bs, dim], normalised, and boxes [num_layers + 1, bs, num_queries, 4]
            cxcywh in [0, 1], of which the first are those that were given.
        """
        states, references = [], [reference_points]
        for layer, branch in zip(self.layers, reg_branches):
            in_levels = _in_levels(reference_points, valid_ratios)
            place = coordinate_to_encoding(in_levels[:, :, 0, :], num_feats=self.embed_dims // 2)
            # [bs, num_queries, dim] -> [num_queries, bs, dim]
            query_pos = self.ref_point_head(place).permute(1, 0, 2)
            query = layer(query, query_pos=query_pos, reference_points=in_levels, **inputs)
            # [num_queries, bs, dim] -> [bs, num_queries, dim]
            refined = (branch(query.permute(1, 0, 2)) + inverse_sigmoid(reference_points, eps=1e-3)).sigmoid()
            reference_points = refined.detach()
            states.append(self.norm(query))
            references.append(refined)  # not yet cut from the graph: "look forward twice"
        return torch.stack(states), torch.stack(references)  # [num_layers, num_queries, bs, dim] and [..., 4]


def _in_levels(boxes: Tensor, valid_ratios: Tensor) -> Tensor:
    """Return boxes [bs, num_queries, 4] in parts of each level with its padding, [bs, num_queries, num_levels, 4]."""
    # [bs, num_queries, 1, 4] * [bs, 1, num_levels, 4]
    return boxes[:, :, None] * torch.cat([valid_ratios, valid_ratios], -1)[:, None]

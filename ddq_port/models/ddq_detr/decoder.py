"""Transformer decoder of DDQ-DETR: DINO's, with distinct-query selection between its layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.models.layers import (
    MLP,
    DeformableDetrTransformerDecoder,
    coordinate_to_encoding,
    inverse_sigmoid,
)
from torch import Tensor, nn

from .queries import DistinctSelection, QueryLayout, attention_block, still_distinct


class DecoderOutput(NamedTuple):
    """What the decoder hands to the head.

    Attributes:
        hidden_states: [num_layers, bs, num_queries_total, dim], normalised.
        references: [num_layers + 1, bs, num_queries_total, 4] cxcywh in [0, 1]; the first is the decoder's input.
        active_masks: per layer [bs, num_matching] bool, the matching queries that entered it as distinct.
    """

    hidden_states: Tensor
    references: Tensor
    active_masks: list[Tensor]


class DDQTransformerDecoder(DeformableDetrTransformerDecoder):
    """Refine boxes layer by layer and drop duplicate queries after every layer but the last.

    The prediction branches belong to the head and are passed to :meth:`forward`; the decoder keeps no reference to
    them, so a trained checkpoint holds every branch once.

    Args:
        selection: how distinct queries are told from duplicates.
        **kwargs: of mmdet's ``DeformableDetrTransformerDecoder``.
    """

    def __init__(self, *, selection: DistinctSelection, **kwargs) -> None:
        self.selection = selection
        super().__init__(**kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        self.ref_point_head = MLP(self.embed_dims * 2, self.embed_dims, self.embed_dims, 2)
        self.norm = nn.LayerNorm(self.embed_dims)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        self_attn_mask: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        cls_branches: nn.ModuleList,
        reg_branches: nn.ModuleList,
        aux_reg_branches: nn.ModuleList,
        query_layout: QueryLayout,
    ) -> DecoderOutput:
        """Run all layers.

        Args:
            query: [bs, num_queries_total, dim].
            value: encoder memory [bs, num_tokens, dim].
            key_padding_mask: [bs, num_tokens] bool, True where padded, or None without padding.
            self_attn_mask: [num_queries_total, num_queries_total] bool, True where a query must not see another.
            reference_points: [bs, num_queries_total, 4] cxcywh in [0, 1].
            spatial_shapes: [num_levels, 2] (h, w).
            level_start_index: [num_levels].
            valid_ratios: [bs, num_levels, 2] (w, h) in (0, 1].
            cls_branches: class logits per layer, used to score queries for the selection.
            reg_branches: box refinement per layer of denoising and matching queries.
            aux_reg_branches: box refinement per layer of dense queries.
            query_layout: division of the query axis.
        """
        bs, num_heads = len(query), self.layers[0].self_attn.num_heads
        # [bs, num_queries_total, num_queries_total]
        mask = self_attn_mask[None].repeat(bs, 1, 1)
        active = torch.ones(bs, query_layout.num_matching, dtype=torch.bool, device=query.device)
        hidden_states, references, active_masks = [], [reference_points], [active]
        for lid, layer in enumerate(self.layers):
            # [bs, num_queries_total, num_levels, 4]
            layer_references = reference_points[:, :, None] * torch.cat([valid_ratios, valid_ratios], -1)[:, None]
            query_pos = self.ref_point_head(
                coordinate_to_encoding(layer_references[:, :, 0, :], num_feats=self.embed_dims // 2)
            )
            query = layer(
                query,
                query_pos=query_pos,
                value=value,
                key_padding_mask=key_padding_mask,
                # [bs * num_heads, num_queries_total, num_queries_total], as torch's MultiheadAttention wants it
                self_attn_mask=mask.repeat_interleave(num_heads, 0),
                spatial_shapes=spatial_shapes,
                level_start_index=level_start_index,
                valid_ratios=valid_ratios,
                reference_points=layer_references,
            )
            delta = self._box_delta(query, reg_branches[lid], aux_reg_branches[lid], query_layout)
            refined = (delta + inverse_sigmoid(reference_points, eps=1e-3)).sigmoid()
            reference_points = refined.detach()
            hidden_states.append(self.norm(query))
            # "look forward twice" of DINO: the head sees the box before it is detached
            references.append(refined)
            if lid < self.num_layers - 1:
                survivors, active = self._select(query, reference_points, cls_branches[lid], active, query_layout)
                mask = _with_matching_block(mask, attention_block(survivors), query_layout)
                active_masks.append(active)
        # [num_layers, bs, num_queries_total, dim], [num_layers + 1, bs, num_queries_total, 4] cxcywh in [0, 1]
        return DecoderOutput(torch.stack(hidden_states), torch.stack(references), active_masks)

    @staticmethod
    def _box_delta(query: Tensor, branch: nn.Module, aux_branch: nn.Module, layout: QueryLayout) -> Tensor:
        if layout.num_dense == 0:
            return branch(query)
        sparse, dense = query[:, : layout.num_sparse], query[:, layout.num_sparse :]
        # [bs, num_sparse, 4] and [bs, num_dense, 4] -> [bs, num_queries_total, 4]
        return torch.cat([branch(sparse), aux_branch(dense)], dim=1)

    def _select(
        self, query: Tensor, boxes: Tensor, cls_branch: nn.Module, candidates: Tensor, layout: QueryLayout
    ) -> tuple[Tensor, Tensor]:
        """Return survivors and active queries, both [bs, num_matching] bool."""
        with torch.no_grad():
            scores = cls_branch(layout.matching(query)).sigmoid().max(-1).values  # [bs, num_matching]
            boxes = layout.matching(boxes)
            per_image = [still_distinct(boxes[i], scores[i], candidates[i], self.selection) for i in range(len(query))]
        survivors, active = zip(*per_image)
        return torch.stack(survivors), torch.stack(active)  # each [bs, num_matching]


def _with_matching_block(mask: Tensor, block: Tensor, layout: QueryLayout) -> Tensor:
    """Return a copy of ``mask`` [bs, N, N] whose matching-to-matching block is ``block``."""
    mask = mask.clone()
    rows = slice(layout.num_denoising, layout.num_sparse)
    mask[:, rows, rows] = block
    return mask

"""Decoder of the fast numerics: no masks of all pairs, no question to the device between its layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.models.layers import MLP, coordinate_to_encoding, inverse_sigmoid
from mmengine.model import ModuleList
from torch import Tensor, nn

from ..decoder import DDQTransformerDecoder
from ..queries import QueryLayout
from .attention import SeenPairs
from .distinct import SWEEPS, Kept, Suppression, still_distinct, suppress
from .encoder import Tokens, box_centres
from .layers import FastDecoderLayer


class FastDecoderOutput(NamedTuple):
    """What the decoder hands to the head.

    Attributes:
        hidden_states: [num_layers, bs, num_queries_total, dim], normalised.
        references: [num_layers + 1, bs, num_queries_total, 4] cxcywh in [0, 1]; the first is the decoder's input.
        active_masks: per layer [bs, num_matching] bool, the matching queries that entered it as distinct.
        settled: [] bool, whether the selections came to an end; if not, all of this is of no use.
    """

    hidden_states: Tensor
    references: Tensor
    active_masks: list[Tensor]
    settled: Tensor


class FastDecoder(DDQTransformerDecoder):
    """The decoder with fast layers; its arguments and parameters are the same."""

    def _init_layers(self) -> None:
        # in the order of the decoder this is one of
        self.layers = ModuleList([FastDecoderLayer(**self.layer_cfg) for _ in range(self.num_layers)])
        self.embed_dims = self.layers[0].embed_dims
        if self.post_norm_cfg is not None:
            raise ValueError(f"decoder.post_norm_cfg is {self.post_norm_cfg}; expected None.")
        self.ref_point_head = MLP(self.embed_dims * 2, self.embed_dims, self.embed_dims, 2)
        self.norm = nn.LayerNorm(self.embed_dims)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        tokens: Tokens,
        reference_points: Tensor,
        cls_branches: nn.ModuleList,
        reg_branches: nn.ModuleList,
        aux_reg_branches: nn.ModuleList,
        query_layout: QueryLayout,
        num_groups: int,
        exact: bool,
        suppression: Suppression = suppress,
    ) -> FastDecoderOutput:
        """Run all layers.

        Args:
            query: [bs, num_queries_total, dim].
            value: encoder memory [bs, num_tokens, dim].
            tokens: shapes, padding and valid ratios of the memory.
            reference_points: [bs, num_queries_total, 4] cxcywh in [0, 1].
            cls_branches: class logits per layer, used to score queries for the selection.
            reg_branches: box refinement per layer of denoising and matching queries.
            aux_reg_branches: box refinement per layer of dense queries.
            query_layout: division of the query axis.
            num_groups: of denoising queries, at least 1.
            exact: ask the device after each sweep of a selection; always so on a CPU.
            suppression: what selects, in place of :func:`~.distinct.suppress`.
        """
        layout = query_layout
        how = None if exact or query.device.type == "cpu" else SWEEPS, suppression
        seen = SeenPairs(layout.num_denoising, num_groups, layout.num_matching, query.device)
        num_points = self.layers[0].cross_attn.num_points
        active = torch.ones(len(query), layout.num_matching, dtype=torch.bool, device=query.device)
        hidden_states, references, active_masks, survivors = [], [reference_points], [active], None
        settled = []
        for lid, layer in enumerate(self.layers):
            query_pos = self.ref_point_head(self._encoding(reference_points, tokens))
            query = layer(
                query,
                query_pos=query_pos,
                value=value,
                key_padding_mask=tokens.padding,
                shapes=tokens.shapes,
                centres=box_centres(reference_points, tokens, num_points),
                seen=seen,
                survivors=survivors,
            )
            delta = self._box_delta(query, reg_branches[lid], aux_reg_branches[lid], layout)
            refined = (delta + inverse_sigmoid(reference_points, eps=1e-3)).sigmoid()
            reference_points = refined.detach()
            hidden_states.append(self.norm(query))
            # "look forward twice" of DINO: the head sees the box before it is detached
            references.append(refined)
            if lid < self.num_layers - 1:
                kept, active = self._distinct(query, reference_points, cls_branches[lid], active, layout, how)
                survivors = kept.mask
                settled.append(kept.settled)
                active_masks.append(active)
        # [num_layers - 1] -> []
        together = torch.stack(settled).all() if settled else active.new_ones(())
        # [num_layers, bs, num_queries_total, dim], [num_layers + 1, bs, num_queries_total, 4] cxcywh in [0, 1]
        return FastDecoderOutput(torch.stack(hidden_states), torch.stack(references), active_masks, together)

    def _encoding(self, boxes: Tensor, tokens: Tokens) -> Tensor:
        """Return sines and cosines of boxes [bs, n, 4] cxcywh, as shares of the first level: [bs, n, 2 * dim]."""
        ratios = tokens.valid_ratios[:, 0].repeat(1, 2)[:, None]  # [bs, 1, 4] (w, h, w, h)
        return coordinate_to_encoding(boxes * ratios, num_feats=self.embed_dims // 2)

    def _distinct(
        self, query: Tensor, boxes: Tensor, cls_branch: nn.Module, candidates: Tensor, layout: QueryLayout,
        how: tuple[int | None, Suppression],
    ) -> tuple[Kept, Tensor]:  # fmt: skip
        """Return survivors and active queries, both [bs, num_matching] bool."""
        with torch.no_grad():
            scores = cls_branch(layout.matching(query)).sigmoid().max(-1).values  # [bs, num_matching]
            return still_distinct(layout.matching(boxes), scores, candidates, self.selection, *how)

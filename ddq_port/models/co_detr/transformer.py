"""Transformers of Co-Deformable-DETR and Co-DINO: encoder, choice of queries, a decoder that serves several heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import inverse_sigmoid
from mmengine.model import BaseModule
from torch import Tensor, nn

from ddq_port.registry import MODELS

from .tokens import Tokens, box_encoding, encodings, flattened, proposals, reference_points


class DeformableOutput(NamedTuple):
    """What the transformer of Co-Deformable-DETR hands to the head.

    Attributes:
        hidden_states: [num_layers, num_queries, bs, dim].
        init_reference: [bs, num_queries, 4] cxcywh in [0, 1], the boxes the decoder begins with.
        references: [num_layers, bs, num_queries, 4], those each layer made of them.
        enc_scores: [bs, num_tokens, num_classes] logits of the encoder's tokens.
        enc_boxes: [bs, num_tokens, 4] cxcywh before the sigmoid.
        memory: [num_tokens, bs, dim].
    """

    hidden_states: Tensor
    init_reference: Tensor
    references: Tensor
    enc_scores: Tensor
    enc_boxes: Tensor
    memory: Tensor


class DinoOutput(NamedTuple):
    """What the transformer of Co-DINO hands to the head.

    Attributes:
        hidden_states: [num_layers, num_queries_total, bs, dim], denoising queries first.
        references: [num_layers + 1, bs, num_queries_total, 4] cxcywh in [0, 1]; the first are the decoder's input.
        topk_scores: [bs, num_queries, num_classes] logits of the tokens that became queries.
        topk_boxes: [bs, num_queries, 4] cxcywh in [0, 1].
        memory: [num_tokens, bs, dim].
    """

    hidden_states: Tensor
    references: Tensor
    topk_scores: Tensor
    topk_boxes: Tensor
    memory: Tensor


class _CoTransformer(BaseModule):
    """What both transformers share.

    Args:
        encoder: config.
        decoder: config.
        num_feature_levels: how many levels there are.
        num_co_heads: how many further heads give queries in training.
        with_coord_feat: such queries are given features, too.
    """

    def __init__(
        self,
        encoder: dict,
        decoder: dict,
        num_feature_levels: int = 4,
        num_co_heads: int = 1,
        with_coord_feat: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = MODELS.build(encoder)
        self.decoder = MODELS.build(decoder)
        self.embed_dims = self.encoder.embed_dims
        self.with_coord_feat = with_coord_feat
        dim = self.embed_dims
        self.level_embeds = nn.Parameter(torch.empty(num_feature_levels, dim))
        self.enc_output = nn.Linear(dim, dim)
        self.enc_output_norm = nn.LayerNorm(dim)
        self._init_queries()
        if num_co_heads:
            self._init_co_heads(num_co_heads, self._positive_width())
        if num_co_heads and with_coord_feat:
            self.pos_feats_trans = nn.ModuleList([nn.Linear(dim, dim) for _ in range(num_co_heads)])
            self.pos_feats_norm = nn.ModuleList([nn.LayerNorm(dim) for _ in range(num_co_heads)])

    def _init_queries(self) -> None:
        raise NotImplementedError

    def _positive_width(self) -> int:
        raise NotImplementedError

    def _init_co_heads(self, num_co_heads: int, width: int) -> None:
        self.aux_pos_trans = nn.ModuleList([nn.Linear(2 * self.embed_dims, width) for _ in range(num_co_heads)])
        self.aux_pos_trans_norm = nn.ModuleList([nn.LayerNorm(width) for _ in range(num_co_heads)])

    def init_weights(self) -> None:
        """Draw all matrices, then what has a recipe of its own."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        nn.init.normal_(self.level_embeds)

    def encode(self, tokens: Tokens, positions: Sequence[Tensor]) -> Tensor:
        """Run the encoder.

        Args:
            tokens: of the neck's maps.
            positions: per level [bs, dim, h, w].

        Returns:
            Memory [bs, num_tokens, dim].
        """
        return self.encoder(
            tokens.features.permute(1, 0, 2),  # [bs, num_tokens, dim] -> [num_tokens, bs, dim]
            query_pos=encodings(positions, self.level_embeds).permute(1, 0, 2),
            query_key_padding_mask=tokens.padding,
            spatial_shapes=tokens.shapes,
            reference_points=reference_points(tokens),
            level_start_index=tokens.starts,
        ).permute(1, 0, 2)

    def decode(self, query: Tensor, memory: Tensor, tokens: Tokens, **inputs: Any) -> tuple[Tensor, Tensor]:
        """Run the decoder.

        Args:
            query: [bs, num_queries, dim].
            memory: [num_tokens, bs, dim].
            tokens: of the maps that memory was made of.
            inputs: ``reference_points``, ``reg_branches`` and what only one decoder has.
        """
        return self.decoder(
            query=query.permute(1, 0, 2),  # [bs, num_queries, dim] -> [num_queries, bs, dim]
            value=memory,
            key_padding_mask=tokens.padding,
            spatial_shapes=tokens.shapes,
            level_start_index=tokens.starts,
            valid_ratios=tokens.valid_ratios,
            **inputs,
        )

    def token_predictions(
        self, memory: Tensor, tokens: Tokens, cls_branch: nn.Module, reg_branch: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Return class logits [bs, num_tokens, num_classes] and boxes [bs, num_tokens, 4] before the sigmoid.

        Args:
            memory: [bs, num_tokens, dim].
            tokens: of the maps that memory was made of.
            cls_branch: of the encoder.
            reg_branch: likewise.
        """
        boxes, usable = proposals(tokens)
        rows = self.enc_output_norm(self.enc_output(memory.masked_fill(~usable, 0.0)))
        return cls_branch(rows), reg_branch(rows) + boxes

    def box_queries(self, boxes: Tensor, head: int) -> Tensor:
        """Return what the boxes [bs, n, 4] cxcywh in [0, 1] of another head make of queries, [bs, n, width]."""
        encoding = box_encoding(inverse_sigmoid(boxes), self.embed_dims // 2)  # [bs, n, 2 * dim]
        return self.aux_pos_trans_norm[head](self.aux_pos_trans[head](encoding))

    def feature_queries(self, features: Tensor, head: int) -> Tensor:
        """Return what the features [bs, n, dim] of another head's boxes make of queries, in the same shape."""
        return self.pos_feats_norm[head](self.pos_feats_trans[head](features))


def rows_of(tensor: Tensor, index: Tensor) -> Tensor:
    """Return rows ``index`` [bs, n] of ``tensor`` [bs, num_tokens, c] as [bs, n, c]."""
    return torch.gather(tensor, 1, index.unsqueeze(-1).repeat(1, 1, tensor.shape[-1]))  # index as [bs, n, c]


@MODELS.register_module()
class CoDeformableDetrTransformer(_CoTransformer):
    """The transformer of Co-Deformable-DETR, in two stages.

    Args:
        wide_head_embedding: of each further head, ``embed_dims`` numbers are learned. The official code means to but
            learns one, for the arguments of its embedding are in the wrong order; so do its checkpoints.
        options: as of the base class.
    """

    def __init__(self, wide_head_embedding: bool = False, **options: Any) -> None:
        self.wide_head_embedding = wide_head_embedding
        super().__init__(**options)

    def _init_queries(self) -> None:
        self.pos_trans = nn.Linear(2 * self.embed_dims, 2 * self.embed_dims)
        self.pos_trans_norm = nn.LayerNorm(2 * self.embed_dims)

    def _positive_width(self) -> int:
        return 2 * self.embed_dims

    def _init_co_heads(self, num_co_heads: int, width: int) -> None:
        self.head_pos_embed = nn.Embedding(num_co_heads, self.embed_dims if self.wide_head_embedding else 1)
        super()._init_co_heads(num_co_heads, width)

    def forward(
        self,
        features: Sequence[Tensor],
        masks: Sequence[Tensor],
        positions: Sequence[Tensor],
        query_embed: Tensor,
        reg_branches: nn.ModuleList,
        cls_branches: nn.ModuleList,
    ) -> DeformableOutput:
        """Run encoder and decoder.

        Args:
            features: per level [bs, dim, h, w].
            masks: per level [bs, h, w] bool, True outside of the image.
            positions: per level [bs, dim, h, w].
            query_embed: [num_queries, dim], the content of queries; their places follow from boxes ("mixed selection").
            reg_branches: of the decoder's layers, then of the encoder.
            cls_branches: likewise.
        """
        tokens = flattened(features, masks)
        memory = self.encode(tokens, positions)
        scores, boxes = self.token_predictions(memory, tokens, cls_branches[-1], reg_branches[-1])
        # the classes of a proposal are not trained: its first logit tells objects from background
        chosen = rows_of(boxes, torch.topk(scores[..., 0], len(query_embed), dim=1)[1]).detach()
        reference = chosen.sigmoid()
        encoding = self.pos_trans_norm(self.pos_trans(box_encoding(chosen, self.embed_dims // 2)))
        # [bs, num_queries, 2 * dim] -> twice [bs, num_queries, dim]
        query_pos, _ = torch.split(encoding, self.embed_dims, dim=2)
        query = query_embed.unsqueeze(0).expand(len(memory), -1, -1)  # [bs, num_queries, dim]
        rows = memory.permute(1, 0, 2)  # [bs, num_tokens, dim] -> [num_tokens, bs, dim]
        states, references = self.decode(
            query,
            rows,
            tokens,
            query_pos=query_pos.permute(1, 0, 2),
            reference_points=reference,
            reg_branches=reg_branches,
        )
        return DeformableOutput(states, reference, references, scores, boxes, rows)

    def forward_aux(
        self,
        features: Sequence[Tensor],
        masks: Sequence[Tensor],
        boxes: Tensor,
        box_features: Tensor,
        reg_branches: nn.ModuleList,
        attn_masks: Tensor | None,
        head: int,
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Run the decoder on the boxes that another head was trained with.

        Args:
            features: per level [bs, dim, h, w] of the encoder's output.
            masks: per level [bs, h, w] bool, True outside of the image.
            boxes: [bs, n, 4] cxcywh in [0, 1].
            box_features: [bs, n, dim].
            reg_branches: of the decoder's layers.
            attn_masks: [bs * num_heads, n, n] bool, True where a query must not see another; None if each sees all.
            head: number of the other head.

        Returns:
            Hidden states [num_layers, n, bs, dim], and boxes, num_layers + 1 times [bs, n, 4], the first those given.
        """
        tokens = flattened(features, masks)
        query_pos, query = torch.split(self.box_queries(boxes, head), self.embed_dims, dim=2)
        if self.with_coord_feat:
            query = query + self.feature_queries(box_features, head)
            query_pos = query_pos + self.head_pos_embed.weight[head]
        states, references = self.decode(
            query,
            tokens.features.permute(1, 0, 2),  # [bs, num_tokens, dim] -> [num_tokens, bs, dim]
            tokens,
            query_pos=query_pos.permute(1, 0, 2),
            reference_points=boxes,
            reg_branches=reg_branches,
            attn_masks=None if attn_masks is None else [attn_masks, None],
        )
        return states, [boxes, *references]


@MODELS.register_module()
class CoDinoTransformer(_CoTransformer):
    """The transformer of Co-DINO.

    Args:
        two_stage_num_proposals: how many tokens become queries.
        options: as of the base class.
    """

    def __init__(self, two_stage_num_proposals: int = 900, **options: Any) -> None:
        self.two_stage_num_proposals = two_stage_num_proposals
        super().__init__(**options)

    def _init_queries(self) -> None:
        self.query_embed = nn.Embedding(self.two_stage_num_proposals, self.embed_dims)

    def _positive_width(self) -> int:
        return self.embed_dims

    def init_weights(self) -> None:
        """Draw all matrices, then what has a recipe of its own."""
        super().init_weights()
        nn.init.normal_(self.query_embed.weight)

    def forward(
        self,
        features: Sequence[Tensor],
        masks: Sequence[Tensor],
        positions: Sequence[Tensor],
        dn_label_query: Tensor | None,
        dn_bbox_query: Tensor | None,
        attn_mask: Tensor | None,
        reg_branches: nn.ModuleList,
        cls_branches: nn.ModuleList,
    ) -> DinoOutput:
        """Run encoder and decoder.

        Args:
            features: per level [bs, dim, h, w].
            masks: per level [bs, h, w] bool, True outside of the image.
            positions: per level [bs, dim, h, w].
            dn_label_query: [bs, num_denoising, dim]; None outside of training.
            dn_bbox_query: [bs, num_denoising, 4] cxcywh before the sigmoid; None outside of training.
            attn_mask: [num_queries_total, num_queries_total] bool, True where a query must not see another, or None.
            reg_branches: of the decoder's layers, then of the encoder.
            cls_branches: likewise.
        """
        tokens = flattened(features, masks)
        memory = self.encode(tokens, positions)
        scores, boxes = self.token_predictions(memory, tokens, cls_branches[-1], reg_branches[-1])
        index = torch.topk(scores.max(-1)[0], self.two_stage_num_proposals, dim=1)[1]  # [bs, num_queries]
        topk_scores, topk_logits = rows_of(scores, index), rows_of(boxes, index)
        topk_boxes, reference = topk_logits.sigmoid(), topk_logits.detach()
        # [num_queries, dim] -> [bs, num_queries, dim]
        query = self.query_embed.weight[:, None, :].repeat(1, len(memory), 1).transpose(0, 1)
        if dn_label_query is not None:
            query = torch.cat([dn_label_query, query], dim=1)  # [bs, num_queries_total, dim]
            reference = torch.cat([dn_bbox_query, reference], dim=1)  # [bs, num_queries_total, 4]
        rows = memory.permute(1, 0, 2)  # [bs, num_tokens, dim] -> [num_tokens, bs, dim]
        states, references = self.decode(
            query,
            rows,
            tokens,
            reference_points=reference.sigmoid(),
            reg_branches=reg_branches,
            attn_masks=None if attn_mask is None else [attn_mask, None],
        )
        return DinoOutput(states, references, topk_scores, topk_boxes, rows)

    def forward_aux(
        self,
        features: Sequence[Tensor],
        masks: Sequence[Tensor],
        boxes: Tensor,
        box_features: Tensor,
        reg_branches: nn.ModuleList,
        attn_masks: Tensor | None,
        head: int,
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Run the decoder on the boxes that another head was trained with.

        Arguments and results as of :meth:`CoDeformableDetrTransformer.forward_aux`. ``attn_masks`` is not looked at:
        the official code does not pass it on.
        """
        tokens = flattened(features, masks)
        query = self.box_queries(boxes, head)
        if self.with_coord_feat:
            query = query + self.feature_queries(box_features, head)
        memory = tokens.features.permute(1, 0, 2)  # [bs, num_tokens, dim] -> [num_tokens, bs, dim]
        return self.decode(query, memory, tokens, reference_points=boxes, reg_branches=reg_branches)

"""Encoder and decoder layers of the fast numerics: mmdet's modules and parameters, other ways to run them."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.transformer import FFN
from mmdet.models.layers import DeformableDetrTransformerDecoderLayer, DeformableDetrTransformerEncoderLayer
from mmengine.model import ModuleList
from torch import Tensor

from ddq_port.ops.sampling import Centres

from ..encoder import Recomputed
from .attention import FastDeformableAttention, FastSelfAttention, SeenPairs, feed_forward, require


class FastEncoderLayer(DeformableDetrTransformerEncoderLayer):
    """Deformable self-attention and a feed-forward network over all tokens."""

    def _init_layers(self) -> None:
        # in the order of mmdet's layer, so that the same seed draws the same weights
        self.self_attn = FastDeformableAttention(**self.self_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = ModuleList([build_norm_layer(self.norm_cfg, self.embed_dims)[1] for _ in range(2)])
        require(self, "encoder.layers")

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        key_padding_mask: Tensor | None,
        shapes: Sequence[tuple[int, int]],
        centres: Centres,
    ) -> Tensor:
        """Run the layer; arguments as of :class:`~.attention.FastDeformableAttention`, [bs, num_tokens, dim]."""
        query = self.norms[0](self.self_attn(query, query, query_pos, key_padding_mask, shapes, centres))
        return self.norms[1](feed_forward(self.ffn, query))


class RecomputedFastEncoderLayer(Recomputed, FastEncoderLayer):
    """The same, computed again in the backward pass."""


class FastDecoderLayer(DeformableDetrTransformerDecoderLayer):
    """Self-attention in blocks, deformable attention to the encoder's memory, a feed-forward network."""

    def _init_layers(self) -> None:
        # in the order of mmdet's layer
        self.self_attn = FastSelfAttention(**self.self_attn_cfg)
        self.cross_attn = FastDeformableAttention(**self.cross_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = ModuleList([build_norm_layer(self.norm_cfg, self.embed_dims)[1] for _ in range(3)])
        require(self, "decoder.layers")

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        shapes: Sequence[tuple[int, int]],
        centres: Centres,
        seen: SeenPairs,
        survivors: Tensor | None,
    ) -> Tensor:
        """Run the layer.

        Args:
            query: [bs, num_queries_total, dim].
            query_pos: the same shape.
            value: encoder memory [bs, num_tokens, dim].
            key_padding_mask: [bs, num_tokens] bool, True where padded, or None.
            shapes: (h, w) of each level.
            centres: of the queries in pixels.
            seen: which queries see which.
            survivors: [bs, num_matching] bool, or None for all.
        """
        query = self.norms[0](self.self_attn(query, query_pos, seen, survivors))
        query = self.norms[1](self.cross_attn(query, value, query_pos, key_padding_mask, shapes, centres))
        return self.norms[2](feed_forward(self.ffn, query))

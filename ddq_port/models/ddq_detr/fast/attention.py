"""Attention of the fast numerics: deformable attention without its intermediates, self-attention in blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor, nn

from ddq_port.ops.sampling import Centres, Samples, sampled_sum

#: Rows of a feed-forward network that are taken at once where nothing is kept for a backward pass.
_ROWS = 1024


class FastDeformableAttention(MultiScaleDeformableAttention):
    """mmcv's module with its parameters; offsets and weights are made with the queries last."""

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        query_pos: Tensor,
        key_padding_mask: Tensor | None,
        shapes: Sequence[tuple[int, int]],
        centres: Centres,
    ) -> Tensor:
        """Add to ``query`` what it attends to.

        Args:
            query: [bs, num_queries, dim].
            value: [bs, num_tokens, dim].
            query_pos: [bs, num_queries, dim].
            key_padding_mask: [bs, num_tokens] bool, True where padded, or None.
            shapes: (h, w) of each level.
            centres: of the queries, in pixels of each level.

        Returns:
            [bs, num_queries, dim].
        """
        tokens = (query + query_pos).transpose(1, 2)  # [bs, num_queries, dim] -> [bs, dim, num_queries]

        def projected(weight: Tensor, bias: Tensor) -> Tensor:
            # [n, dim], [n] -> [bs, n, num_queries]
            return torch.baddbmm(bias[:, None], weight.expand(len(tokens), -1, -1), tokens)

        offsets, logits = self.sampling_offsets, projected(self.attention_weights.weight, self.attention_weights.bias)
        # features [heads * levels * points, (x, y)] -> every x and every y, [bs, heads * levels * points, num_queries]
        x, y = (projected(offsets.weight[axis::2], offsets.bias[axis::2]) for axis in (0, 1))
        # over the samples of a head: [bs, heads, levels * points, num_queries] and back
        counts = logits.unflatten(1, (self.num_heads, -1)).softmax(2).flatten(1, 2)
        summed = sampled_sum(
            self.value_proj(value), shapes, centres, Samples(x, y, counts, self.num_heads), key_padding_mask
        )
        return self.output_proj(summed) + query


class SeenPairs:
    """Which denoising and matching queries see which others; dense queries see each other and nothing else.

    Args:
        num_denoising: denoising queries.
        num_groups: groups of equal size that they are in.
        num_matching: matching queries.
        device: of the masks.
    """

    def __init__(self, num_denoising: int, num_groups: int, num_matching: int, device: torch.device) -> None:
        self.num_denoising, self.num_sparse = num_denoising, num_denoising + num_matching
        self.denoising: Tensor | None = None
        if num_denoising and num_groups > 1:
            group = torch.arange(num_denoising, device=device) // (num_denoising // num_groups)
            own = group[:, None] == group
            # [num_denoising, num_denoising + num_matching]: its own group and every matching query
            self.denoising = torch.cat([own, own.new_ones(num_denoising, num_matching)], 1)

    def matching(self, survivors: Tensor | None) -> Tensor | None:
        """Return [bs, 1, num_matching, num_matching], True where seen: one of a pair survived; None means all."""
        return None if survivors is None else (survivors[:, :, None] | survivors[:, None, :])[:, None]


class FastSelfAttention(MultiheadAttention):
    """mmcv's module with its parameters; blocks that do not see each other are not computed."""

    def forward(self, query: Tensor, query_pos: Tensor, seen: SeenPairs, survivors: Tensor | None) -> Tensor:
        """Add to ``query`` what it attends to.

        Args:
            query: [bs, num_queries_total, dim], as ``[denoising | matching | dense]``.
            query_pos: the same shape.
            seen: which queries see which.
            survivors: [bs, num_matching] bool, those that no duplicate hides from others; None means all.

        Returns:
            [bs, num_queries_total, dim].
        """
        dim = query.shape[-1]
        weight, bias = self.attn.in_proj_weight.split([2 * dim, dim]), self.attn.in_proj_bias.split([2 * dim, dim])
        queries_and_keys = F.linear(query + query_pos, weight[0], bias[0])
        # three of [bs, heads, num_queries_total, dim / heads]
        q, k = (self._by_head(part) for part in queries_and_keys.chunk(2, -1))
        v = self._by_head(F.linear(query, weight[1], bias[1]))
        attended = self._blocks(q, k, v, seen, survivors)
        # [bs, heads, num_queries_total, dim / heads] -> [bs, num_queries_total, dim]
        return query + self.attn.out_proj(attended.transpose(1, 2).flatten(2))

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [bs, n, dim] -> [bs, heads, n, dim / heads]

    @staticmethod
    def _blocks(q: Tensor, k: Tensor, v: Tensor, seen: SeenPairs, survivors: Tensor | None) -> Tensor:
        matching = seen.matching(survivors)
        total, denoising, sparse = q.shape[2], seen.num_denoising, seen.num_sparse
        if total == sparse and not denoising:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=matching)
        sizes = [denoising, sparse - denoising, total - sparse]
        q_noise, q_match, q_dense = q.split(sizes, 2)
        (k_sparse, k_dense), (v_sparse, v_dense) = (t.split([sparse, total - sparse], 2) for t in (k, v))
        k_match, v_match = k_sparse[:, :, denoising:], v_sparse[:, :, denoising:]
        parts = [F.scaled_dot_product_attention(q_match, k_match, v_match, attn_mask=matching)]
        if denoising:
            parts.insert(0, F.scaled_dot_product_attention(q_noise, k_sparse, v_sparse, attn_mask=seen.denoising))
        parts.append(F.scaled_dot_product_attention(q_dense, k_dense, v_dense))
        return torch.cat(parts, 2)  # [bs, heads, num_queries_total, dim / heads]


def feed_forward(ffn: FFN, x: Tensor) -> Tensor:
    """Run mmcv's feed-forward network of two layers, with its residual.

    Without gradients rows are taken a part at a time on a CPU, where the hidden layer then stays in the cache.

    Args:
        ffn: whose parameters are taken.
        x: [bs, n, dim].
    """
    first, second = ffn.layers[0][0], ffn.layers[1]
    activation = ffn.layers[0][1]
    rows = x.reshape(-1, x.shape[-1])  # [bs * n, dim]
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        # of rows a linear layer makes no view, of which autograd would copy the gradient where ReLU works in place
        return (rows + second(activation(first(rows)))).view(x.shape)  # [bs, n, dim]
    output = torch.empty_like(rows)
    for part, out in zip(rows.split(_ROWS), output.split(_ROWS)):
        torch.add(part, second(activation(first(part))), out=out)
    return output.view(x.shape)  # [bs, n, dim]


def require(module: nn.Module, what: str) -> None:
    """Refuse settings of a transformer layer that the fast numerics do not have.

    Raises:
        ValueError: naming the first one.
    """
    for name, part in module.named_modules():
        drop = getattr(part, "p", 0.0) if isinstance(part, nn.Dropout) else getattr(part, "drop_prob", 0.0)
        if drop or (isinstance(part, nn.MultiheadAttention) and part.dropout):
            raise ValueError(f"numerics='fast': {what}.{name} has dropout; expected none, or numerics='legacy'.")
        if isinstance(part, FFN) and (part.num_fcs != 2 or not part.add_identity):
            raise ValueError(f"numerics='fast': {what}.{name} is no FFN of two layers; expected one.")

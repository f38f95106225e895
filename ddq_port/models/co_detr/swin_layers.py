"""Parts of the Swin Transformer, in the form and with the names of its authors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddq_port.models.ddq_detr.encoder import Recomputed


class PatchEmbed(nn.Module):
    """Make a token of each patch of the image.

    Args:
        side: of a patch, in pixels.
        dim: width of a token.
        with_norm: normalise tokens.
    """

    def __init__(self, side: int, dim: int, with_norm: bool) -> None:
        super().__init__()
        self.side = side
        self.proj = nn.Conv2d(3, dim, kernel_size=side, stride=side)
        self.norm = nn.LayerNorm(dim) if with_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Return [bs, dim, h / side, w / side], rounded up, of images [bs, 3, h, w]."""
        h, w = x.shape[-2:]
        x = self.proj(functional.pad(x, (0, -w % self.side, 0, -h % self.side)))
        if self.norm is None:
            return x
        rows = self.norm(x.flatten(2).transpose(1, 2))  # [bs, dim, h, w] -> [bs, h * w, dim]
        return rows.transpose(1, 2).view(x.shape)


class PatchMerging(nn.Module):
    """Make one token of four, in the order of the authors: down the first column, then down the second.

    mmdet's has the channels of the four side by side, which sums them in another order.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return [bs, h / 2 * w / 2, 2 * dim], sides rounded up, of tokens [bs, h * w, dim]."""
        (h, w), dim = size, x.shape[-1]
        grid = functional.pad(x.view(-1, h, w, dim), (0, 0, 0, w % 2, 0, h % 2))  # [bs, h, w, dim], sides even
        four = [grid[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged = torch.cat(four, -1).view(len(x), -1, 4 * dim)  # [bs, h / 2 * w / 2, 4 * dim]
        return self.reduction(self.norm(merged))


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each relative position.

    Args:
        dim: width of a token.
        window: side, in tokens.
        num_heads: divides ``dim``.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop: part of the attention's weights that is left out, in [0, 1).
        drop: part of the output that is left out, in [0, 1).
    """

    def __init__(
        self, dim: int, window: int, num_heads: int, qkv_bias: bool, attn_drop: float = 0.0, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        self.register_buffer("relative_position_index", _relative_positions(window))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend.

        Args:
            x: [bs * num_windows, tokens, dim].
            mask: [num_windows, tokens, tokens] that is added, -100 between parts that do not touch; None for no mask.

        Returns:
            As ``x``.
        """
        count, length, dim = x.shape
        # [n, tokens, 3 * dim] -> three of [n, heads, tokens, dim / heads]
        query, key, value = self.qkv(x).reshape(count, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = (query * self.scale) @ key.transpose(-2, -1)  # [n, heads, tokens, tokens]
        # [tokens, tokens, heads]
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(length, length, -1)
        weights = weights + bias.permute(2, 0, 1).contiguous().unsqueeze(0)  # [1, heads, tokens, tokens]
        if mask is not None:
            # [bs, num_windows, heads, tokens, tokens]
            weights = weights.view(-1, len(mask), self.num_heads, length, length) + mask.unsqueeze(1).unsqueeze(0)
            weights = weights.view(-1, self.num_heads, length, length)  # [n, heads, tokens, tokens]
        weights = self.attn_drop(self.softmax(weights))
        x = (weights @ value).transpose(1, 2).reshape(count, length, dim)  # [n, heads, tokens, ...] -> [n, tokens, dim]
        return self.proj_drop(self.proj(x))


class Mlp(nn.Module):
    """Two linear layers.

    Args:
        dim: width of a token.
        hidden: width between them.
        drop: part of either output that is left out, in [0, 1).
    """

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens [..., dim] of tokens [..., dim]."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class DropPath(nn.Module):
    """Leave a branch out for some images of a batch in training.

    The official code draws with ``bernoulli_``, mmcv's layer with ``torch.rand``: other images of the same seed.

    Args:
        chance: in [0, 1).
    """

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` [bs, ...], whose kept images are larger by as much as is left out on average."""
        if not self.training:
            return x
        kept = 1 - self.chance
        return x * x.new_empty(len(x), *(1,) * (x.ndim - 1)).bernoulli_(kept).div_(kept)


class SwinBlock(nn.Module):
    """Attention within windows, which may be shifted, and two linear layers.

    Args:
        dim: width of a token.
        num_heads: divides ``dim``.
        window: side, in tokens.
        shift: of the windows, in tokens.
        mlp_ratio: width between the linear layers, in ``dim``.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path: chance that a branch is left out.
        attn_drop: see :class:`WindowAttention`.
        drop: likewise, and see :class:`Mlp`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: int,
        shift: int,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
        attn_drop: float = 0.0,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, num_heads, qkv_bias, attn_drop, drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
        """Return tokens [bs, h * w, dim] of tokens [bs, h * w, dim].

        Args:
            x: tokens.
            mask: [num_windows, window ** 2, window ** 2], for shifted windows.
            size: (h, w).
        """
        x = x + self.drop_path(self._attended(self.norm1(x), mask, size))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attended(self, x: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
        (h, w), dim = size, x.shape[-1]
        # [bs, h, w, dim], to whole windows
        grid = functional.pad(x.view(-1, h, w, dim), (0, 0, 0, -w % self.window, 0, -h % self.window))
        padded = grid.shape[1:3]
        if self.shift:
            grid = torch.roll(grid, shifts=(-self.shift, -self.shift), dims=(1, 2))
        # [bs * num_windows, tokens, dim]
        windows = self.attn(partition(grid, self.window).flatten(1, 2), mask if self.shift else None)
        grid = _joined(windows, self.window, padded)
        if self.shift:
            grid = torch.roll(grid, shifts=(self.shift, self.shift), dims=(1, 2))
        if padded != (h, w):
            grid = grid[:, :h, :w].contiguous()
        return grid.view(-1, h * w, dim)  # [bs, h, w, dim] -> [bs, h * w, dim]


class RecomputedBlock(Recomputed, SwinBlock):
    """A block whose activations are computed again in the backward pass."""


def partition(grid: Tensor, window: int) -> Tensor:
    """Return windows [bs * num_windows, window, window, c] of a grid [bs, h, w, c] with sides that it divides."""
    _, h, w, c = grid.shape
    parts = grid.view(-1, h // window, window, w // window, window, c)  # [bs, rows, window, columns, window, c]
    return parts.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window, window, c)


def shift_mask(size: tuple[int, int], window: int, device: torch.device) -> Tensor:
    """Return what is added to the attention in windows that are shifted by half, [num_windows, tokens, tokens].

    Args:
        size: (h, w) of the grid, which is padded to whole windows.
        window: side, in tokens.
        device: where to.
    """
    shift = window // 2
    h, w = (side + -side % window for side in size)
    parts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    regions = torch.zeros(1, h, w, 1, device=device)
    for number, (rows, columns) in enumerate((rows, columns) for rows in parts for columns in parts):
        regions[:, rows, columns] = number
    tokens = partition(regions, window).view(-1, window * window)  # [num_windows, tokens]
    differ = tokens.unsqueeze(1) != tokens.unsqueeze(2)
    return torch.zeros_like(differ, dtype=regions.dtype).masked_fill(differ, -100.0)


def _joined(windows: Tensor, window: int, size: tuple[int, int]) -> Tensor:
    """Return the grid [bs, h, w, c] of windows [bs * num_windows, window ** 2, c]."""
    h, w = size
    # [bs, rows, columns, window, window, c] -> [bs, rows, window, columns, window, c]
    parts = windows.view(-1, h // window, w // window, window, window, windows.shape[-1])
    return parts.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, h, w, windows.shape[-1])  # [bs, h, w, c]


def _relative_positions(window: int) -> Tensor:
    """Return the row of the bias table for each pair of tokens of a window, [window ** 2, window ** 2]."""
    side = torch.arange(window)
    places = torch.stack(torch.meshgrid(side, side, indexing="ij")).flatten(1)  # [2, window ** 2], rows and columns
    rows, columns = places[:, :, None] - places[:, None, :] + window - 1
    return rows * (2 * window - 1) + columns

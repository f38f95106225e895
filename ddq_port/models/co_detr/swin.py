"""The Swin Transformer in its authors' form, as Co-DETR has it: their names of weights, their order of operations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ddq_port.registry import MODELS

from .swin_layers import PatchEmbed, PatchMerging, RecomputedBlock, SwinBlock, shift_mask

#: Weights of the authors' classifier that a detector has no use for; and masks, which are made when they are needed.
_UNUSED = ("head.", "norm.", "attn_mask")


class Stage(nn.Module):
    """Blocks at one resolution, every second one with shifted windows.

    Args:
        blocks: of the stage.
        window: side of windows, in tokens.
        downsample: what leads to the next stage; None for the last one.
    """

    def __init__(self, blocks: Sequence[SwinBlock], window: int, downsample: PatchMerging | None) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, int, int, Tensor, int, int]:
        """Return the stage's tokens [bs, h * w, dim], h and w, and the same of the next stage.

        Args:
            x: tokens [bs, h * w, dim].
            size: (h, w).
        """
        mask = shift_mask(size, self.window, x.device)
        for block in self.blocks:
            x = block(x, mask, size)
        if self.downsample is None:
            return x, *size, x, *size
        return x, *size, self.downsample(x, size), (size[0] + 1) // 2, (size[1] + 1) // 2


@MODELS.register_module()
class SwinTransformerV1(BaseModule):
    """A backbone with attention in windows.

    mmdet's ``SwinTransformer`` is the same model with other names of weights. It sums the channels of merged patches in
    another order, and leaves out other images by chance.

    Args:
        patch_size: side of a patch, in pixels.
        embed_dim: width of the first stage; it doubles from stage to stage.
        depths: blocks of each stage.
        num_heads: of each stage.
        window_size: side of windows, in tokens.
        mlp_ratio: width between the linear layers of a block, in widths of the stage.
        qkv_bias: whether queries, keys and values have a bias.
        drop_rate: part of the patches and of linear layers' outputs that is left out, in [0, 1).
        attn_drop_rate: part of the attention's weights that is left out, in [0, 1).
        drop_path_rate: chance that a branch of the last block is left out; it grows with the depth.
        patch_norm: normalise the tokens of patches.
        out_indices: stages whose maps are returned.
        frozen_stages: from 0 on the patches, from 2 on so many stages less one are not trained; -1 for none.
        use_checkpoint: compute activations of blocks again in the backward pass.
        pretrained: file of the backbone's weights, as its authors give them.

    Raises:
        ValueError: when such a file lacks weights or has others, or one of another shape.
    """

    def __init__(
        self,
        patch_size: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        patch_norm: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        use_checkpoint: bool = False,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        self.out_indices, self.frozen_stages, self.pretrained = out_indices, frozen_stages, pretrained
        self.patch_embed = PatchEmbed(patch_size, embed_dim, patch_norm)
        self.pos_drop = nn.Dropout(drop_rate)
        chances = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        kind = RecomputedBlock if use_checkpoint else SwinBlock
        self.layers = nn.ModuleList()
        for number, (depth, heads) in enumerate(zip(depths, num_heads)):
            dim = embed_dim * 2**number
            given = dict(dim=dim, num_heads=heads, window=window_size, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias)
            blocks = [
                kind(
                    **given,
                    shift=window_size // 2 * (index % 2),
                    drop_path=chance,
                    attn_drop=attn_drop_rate,
                    drop=drop_rate,
                )
                for index, chance in enumerate(itertools.islice(chances, depth))
            ]
            self.layers.append(Stage(blocks, window_size, PatchMerging(dim) if number + 1 < len(depths) else None))
        for number in out_indices:
            self.add_module(f"norm{number}", nn.LayerNorm(embed_dim * 2**number))
        self._freeze()

    def init_weights(self) -> None:
        """Draw weights, or read them from the file."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        if self.pretrained is not None:
            self._load(self.pretrained)

    def _load(self, path: str) -> None:
        content = CheckpointLoader.load_checkpoint(path, map_location="cpu")
        weights = content.get("model", content.get("state_dict", content))
        wanted = self.state_dict()
        unused = [name for name in weights if name.startswith(_UNUSED[:2]) or name.endswith(_UNUSED[2])]
        given = {name: value for name, value in weights.items() if name not in unused}
        wrong = [name for name, value in given.items() if name not in wanted or value.shape != wanted[name].shape]
        # the norms of outputs are the detector's own
        wrong += [name for name in wanted if name not in given and not name.startswith("norm")]
        if wrong:
            raise ValueError(
                f"{path} does not fit the SwinTransformerV1 of the config: {len(wrong)} weights are missing, too many "
                f"or of another shape, first {wrong[0]}; give the file of a Swin of this width, depth and window."
            )
        self.load_state_dict(given, strict=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return maps [bs, dim, h, w] of the stages in ``out_indices``, the first at ``patch_size`` pixels a place.

        Args:
            x: images [bs, 3, h, w].
        """
        x = self.patch_embed(x)
        h, w = x.shape[-2:]
        x = self.pos_drop(x.flatten(2).transpose(1, 2))  # [bs, dim, h, w] -> [bs, h * w, dim]
        outputs = []
        for number, stage in enumerate(self.layers):
            rows, *size, x, h, w = stage(x, (h, w))
            if number in self.out_indices:
                rows = getattr(self, f"norm{number}")(rows)
                # [bs, h * w, dim] -> [bs, dim, h, w]
                outputs.append(rows.view(-1, *size, rows.shape[-1]).permute(0, 3, 1, 2).contiguous())
        return tuple(outputs)

    def train(self, mode: bool = True) -> SwinTransformerV1:
        """Switch to training or evaluation; what is frozen stays in evaluation."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        frozen = [self.patch_embed] if self.frozen_stages >= 0 else []
        if self.frozen_stages >= 2:
            frozen += [self.pos_drop, *self.layers[: self.frozen_stages - 1]]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

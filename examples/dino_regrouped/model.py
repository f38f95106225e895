"""DINO with its submodules renamed and regrouped: subclasses of mmdet's, nothing is copied."""

from __future__ import annotations

from typing import Any

from mmdet.models import DINO, DINOHead
from mmdet.registry import MODELS
from torch import Tensor, nn


class _Renamed(nn.Module):
    """Finds submodules under the names that the base class uses."""

    #: Name in the base class -> path here.
    paths: dict[str, str] = {}

    def move(self) -> None:
        """Put the submodules where ``paths`` says."""
        for name, path in self.paths.items():
            group, _, last = path.rpartition(".")
            if group and group not in self._modules:
                self.add_module(group, nn.Module())
            (self.get_submodule(group) if group else self).add_module(last, self._modules.pop(name))

    def __getattr__(self, name: str) -> Any:
        path = type(self).paths.get(name)
        if path is not None and name not in self._modules:
            return self.get_submodule(path)
        return super().__getattr__(name)


@MODELS.register_module()
class RegroupedDINO(_Renamed, DINO):
    """DINO whose transformer, queries and memory projection are groups."""

    paths = {
        "encoder": "transformer.encoder",
        "decoder": "transformer.decoder",
        "query_embedding": "queries.content",
        "dn_query_generator": "queries.denoising",
        "memory_trans_fc": "memory.projection",
        "memory_trans_norm": "memory.norm",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.move()

    def forward_encoder(
        self, feat: Tensor, feat_mask: Tensor, feat_pos: Tensor, spatial_shapes: Tensor,
        level_start_index: Tensor, valid_ratios: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Run the encoder on features [bs, num_feat_points, embed_dims]."""
        memory = self.transformer.encoder(
            query=feat,
            query_pos=feat_pos,
            key_padding_mask=feat_mask,
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
            valid_ratios=valid_ratios,
        )
        return dict(memory=memory, memory_mask=feat_mask, spatial_shapes=spatial_shapes)


@MODELS.register_module()
class RenamedHead(_Renamed, DINOHead):
    """DINO's head whose branches have other names."""

    paths = {"cls_branches": "classes", "reg_branches": "boxes"}

    def _init_layers(self) -> None:
        super()._init_layers()
        self.move()

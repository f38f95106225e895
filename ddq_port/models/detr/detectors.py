"""DETR and Deformable DETR that may keep the layout of MMDetection 2.x: tokens first, then images.

MMDetection 3.x puts images first. That changes no number a model means, but matrix products take their rows in another
order, so from two images on results round otherwise, and dropout of the same seed drops other elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models import detectors
from mmdet.structures import SampleList
from torch import Tensor, nn

from ddq_port.registry import MODELS

LAYOUTS = ("batch_first", "sequence_first")


class _Laid(nn.Module):
    """A detector whose encoder and decoder compute in a layout.

    Args:
        layout: ``batch_first``, as mmdet's own does, or ``sequence_first``.
    """

    def __init__(self, *args: Any, layout: str = "batch_first", **kwargs: Any) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"{type(self).__name__}: layout is {layout!r}; expected one of {', '.join(LAYOUTS)}.")
        self.layout = layout
        super().__init__(*args, **kwargs)

    @property
    def is_sequence_first(self) -> bool:
        return self.layout == "sequence_first"

    def _init_layers(self) -> None:
        super()._init_layers()
        for module in [*self.encoder.modules(), *self.decoder.modules()]:
            if isinstance(module, (MultiheadAttention, MultiScaleDeformableAttention)):
                module.batch_first = not self.is_sequence_first

    def forward_encoder(self, feat: Tensor, feat_pos: Tensor, **inputs: Any) -> dict[str, Any]:
        """Run the encoder on features [n, tokens, dim]; its ``memory`` is [n, tokens, dim], too."""
        if not self.is_sequence_first:
            return super().forward_encoder(feat=feat, feat_pos=feat_pos, **inputs)
        # [n, tokens, dim] -> [tokens, n, dim], and back
        outputs = super().forward_encoder(feat=feat.transpose(0, 1), feat_pos=feat_pos.transpose(0, 1), **inputs)
        return dict(outputs, memory=outputs["memory"].transpose(0, 1))  # [tokens, n, dim] -> [n, tokens, dim]


@MODELS.register_module()
class DETR(_Laid, detectors.DETR):
    """DETR in a layout; its head is ``ddq_port.DETRHead`` or mmdet's own."""

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Detect objects; sequence first by the head's results of all layers, as 2.x, of which the last one counts."""
        if not self.is_sequence_first:
            return super().predict(batch_inputs, batch_data_samples, rescale)
        given = self.forward_transformer(self.extract_feat(batch_inputs), batch_data_samples)
        metas = [sample.metainfo for sample in batch_data_samples]
        results = self.bbox_head.predict_by_feat(*self.bbox_head(**given), batch_img_metas=metas, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def pre_decoder(self, memory: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Make queries [n, queries, dim]; sequence first they are views of [queries, n, dim]."""
        if not self.is_sequence_first:
            return super().pre_decoder(memory)
        # repeated along the images here, and not turned behind it: gradients of the embedding are summed in that order
        query_pos = self.query_embedding.weight[:, None].repeat(1, len(memory), 1)  # [queries, n, dim]
        query = torch.zeros_like(query_pos)
        # [n, queries, dim]
        return dict(query=query.transpose(0, 1), query_pos=query_pos.transpose(0, 1), memory=memory), {}

    def forward_decoder(
        self, query: Tensor, query_pos: Tensor, memory: Tensor, memory_mask: Tensor, memory_pos: Tensor
    ) -> dict[str, Tensor]:
        """Run the decoder on tensors [n, ..., dim]; ``hidden_states`` are [layers, n, queries, dim]."""
        given = dict(query=query, query_pos=query_pos, memory=memory, memory_pos=memory_pos)
        if not self.is_sequence_first:
            return super().forward_decoder(**given, memory_mask=memory_mask)
        turned = {name: tensor.transpose(0, 1) for name, tensor in given.items()}  # [n, ..., dim] -> [..., n, dim]
        outputs = super().forward_decoder(**turned, memory_mask=memory_mask)
        # [layers, queries, n, dim] -> [layers, n, queries, dim]
        return dict(outputs, hidden_states=outputs["hidden_states"].transpose(1, 2))


@MODELS.register_module()
class DeformableDETR(_Laid, detectors.DeformableDETR):
    """Deformable DETR in a layout; its head is ``ddq_port.DeformableDETRHead`` or mmdet's own."""

    def forward_decoder(self, query: Tensor, query_pos: Tensor, memory: Tensor, **inputs: Any) -> dict[str, Any]:
        """Run the decoder on tensors [n, ..., dim]; ``hidden_states`` are [layers, n, queries, dim]."""
        if not self.is_sequence_first:
            return super().forward_decoder(query=query, query_pos=query_pos, memory=memory, **inputs)
        references = inputs.pop("reference_points")
        states, inner = self.decoder(  # queries [n, queries, dim] -> [queries, n, dim], memory likewise
            query=query.transpose(0, 1),
            query_pos=query_pos.transpose(0, 1),
            value=memory.transpose(0, 1),
            key_padding_mask=inputs.pop("memory_mask"),
            reference_points=references,
            reg_branches=_BatchFirst(self.bbox_head.reg_branches) if self.with_box_refine else None,
            **inputs,
        )
        return dict(hidden_states=states.transpose(1, 2), references=[references, *inner])  # [layers, n, queries, dim]


class _BatchFirst:
    """Branches that are given [queries, n, dim] and compute [n, queries, ...], by which boxes are refined."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        self.branches = branches

    def __getitem__(self, index: int) -> Any:
        return lambda x: self.branches[index](x.transpose(0, 1))  # [n, queries, ...]

"""The detector as a function of one image, made of tensors alone: what is exported."""

from __future__ import annotations

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from ddq_port.models.ddq_detr.fast import FastDDQDETR
from ddq_port.models.ddq_detr.fast.detections import best_pairs
from ddq_port.models.ddq_detr.fast.encoder import Tokens, unpadded_tokens
from ddq_port.models.ddq_detr.fast.proposals import masked_memory, token_boxes
from ddq_port.models.ddq_detr.queries import QueryLayout

from .nms import suppress


class ExportError(ValueError):
    """A model cannot be exported; the message is one line."""


class OneImage(nn.Module):
    """Detect objects in one image, with every selection inside.

    Args:
        model: with fast numerics.

    Raises:
        ExportError: if its preprocessing is not that of one image without padding.
    """

    def __init__(self, model: FastDDQDETR) -> None:
        super().__init__()
        if not isinstance(model, FastDDQDETR):
            raise ExportError(f"{type(model).__name__} cannot be exported; expected a ddq_port.DDQDETR with numerics='fast'.")
        preprocessor = model.data_preprocessor
        if getattr(preprocessor, "pad_size_divisor", 1) != 1:
            raise ExportError(
                f"data_preprocessor.pad_size_divisor is {preprocessor.pad_size_divisor}; expected 1: what is exported "
                "takes images without padding."
            )
        self.model = model.eval()
        self.limit = (model.bbox_head.test_cfg or {}).get("max_per_img") or model.num_queries
        self.limit = min(self.limit, model.num_queries * model.bbox_head.cls_out_channels)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect objects.

        Args:
            image: [1, 3, h, w] float32 in [0, 255], channels in the order in which the config's pipeline reads files
                (BGR); scaled as the pipeline does, not normalised.

        Returns:
            Boxes [limit, 4] xyxy in pixels of ``image``, scores [limit] in [0, 1], best first, -1 where there is no
            detection, and labels [limit] int64.
        """
        model = self.model
        features = model.extract_feat(self._normalised(image))
        tokens = unpadded_tokens(features, model.positional_encoding, model.level_embed)
        memory = model.encoder(query=tokens.features, query_pos=tokens.positions, key_padding_mask=None, tokens=tokens)
        content, boxes = self._queries(memory, tokens)
        head, layout = model.bbox_head, QueryLayout(0, model.num_queries, 0)
        output = model.decoder(
            query=content,
            value=memory,
            tokens=tokens,
            reference_points=boxes,
            cls_branches=head.cls_branches,
            reg_branches=head.reg_branches,
            aux_reg_branches=head.aux_reg_branches,
            query_layout=layout,
            num_groups=1,
            exact=True,
            suppression=suppress,
        )
        logits, boxes = (x[0] for x in head(output.hidden_states, list(output.references), layout, last_only=True))
        scores, pairs = best_pairs(logits.sigmoid(), output.active_masks[-1], [self.limit])  # each [1, limit]
        found = boxes[0, pairs[0] // logits.shape[-1]]  # [limit, 4]
        x1, y1, x2, y2 = bbox_cxcywh_to_xyxy(found).clamp(0, 1).unbind(-1)
        height, width = image.shape[2:]
        return torch.stack([x1 * width, y1 * height, x2 * width, y2 * height], -1), scores[0], pairs[0] % logits.shape[-1]

    def _normalised(self, image: Tensor) -> Tensor:
        preprocessor = self.model.data_preprocessor
        if getattr(preprocessor, "_channel_conversion", False):
            image = image[:, [2, 1, 0]]
        if getattr(preprocessor, "_enable_normalize", False):
            image = (image - preprocessor.mean) / preprocessor.std
        return image

    def _queries(self, memory: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Choose distinct tokens; return content [1, num_queries, dim] and boxes [1, num_queries, 4] of the queries."""
        model, head, lid = self.model, self.model.bbox_head, self.model.decoder.num_layers
        proposals, valid = token_boxes(tokens)
        transformed = model.memory_trans_norm(model.memory_trans_fc(masked_memory(memory, valid)))
        scores = head.cls_branches[lid](transformed)[0].max(-1).values.sigmoid()  # [num_tokens]
        coords = (head.reg_branches[lid](transformed) + proposals)[0]  # [num_tokens, 4]
        order = scores.sort(descending=True, stable=True).indices
        coords = coords[order]
        boxes = bbox_cxcywh_to_xyxy(coords.sigmoid())
        count = scores.shape[0]  # not `len`, which would be the number of the image that torch follows the model with
        ranks = (count - torch.arange(count, device=scores.device)).to(boxes.dtype)
        keep = torch.ops.ddq_port.nms(boxes + (boxes.max() + 1), ranks, model.selection.iou_threshold, model.num_queries)
        missing, keep = (keep < 0)[:, None], keep.clamp(min=0)  # [num_queries, 1] and [num_queries]
        content = model.query_map(memory[0, order[keep]]).masked_fill(missing, 0)
        return content[None], coords[keep].masked_fill(missing, 0).sigmoid()[None]

"""Distinct-query selection and the layout of the query axis: plain data and pure functions.

Source: DDQ paper, section 3.2 (distinct queries selection by class-agnostic NMS) and jshilong/DDQ, branch ddq_detr,
``projects/models/ddq_detr.py`` for the exact rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from ddq_port.ops.nms import batched_nms_keep

MASK_RULES = ("legacy", "exact")


@dataclass(frozen=True)
class QueryLayout:
    """Divide the query axis ``[denoising | matching | dense]`` of the decoder.

    Attributes:
        num_denoising: contrastive denoising queries; 0 at inference.
        num_matching: the distinct queries that make the detections.
        num_dense: dense queries of the auxiliary one-to-many loss; 0 at inference.
    """

    num_denoising: int
    num_matching: int
    num_dense: int

    @property
    def num_sparse(self) -> int:
        """Number of queries served by the main branches: denoising + matching."""
        return self.num_denoising + self.num_matching

    def matching(self, x: Tensor) -> Tensor:
        """Cut the matching queries out of ``x`` [bs, num_queries_total, ...]."""
        return x[:, self.num_denoising : self.num_sparse]


@dataclass(frozen=True)
class DistinctSelection:
    """Say how distinct queries are told from duplicates.

    Attributes:
        iou_threshold: of the class-agnostic NMS, in (0, 1].
        mask_rule: ``'legacy'`` keeps *every* query for the loss, the final filter and the next NMS whenever query 0
            survives (the official code reads row 0 of the attention mask, jshilong/DDQ#14; the published weights were
            trained so); ``'exact'`` keeps the survivors only.
    """

    iou_threshold: float = 0.8
    mask_rule: str = "legacy"

    def __post_init__(self) -> None:
        if self.mask_rule not in MASK_RULES:
            raise ValueError(f"distinct_mask is {self.mask_rule!r}; expected one of {', '.join(MASK_RULES)}.")
        if not 0.0 < self.iou_threshold <= 1.0:
            raise ValueError(f"dqs_cfg.iou_threshold is {self.iou_threshold}; expected a number in (0, 1].")

    @classmethod
    def from_cfg(cls, dqs_cfg: dict, distinct_mask: str) -> DistinctSelection:
        """Read mmdet's ``dqs_cfg`` form, e.g. ``dict(type='nms', iou_threshold=0.8)``.

        Raises:
            ValueError: for any other NMS type or an unknown key.
        """
        cfg = dict(dqs_cfg)
        kind = cfg.pop("type", "nms")
        threshold = cfg.pop("iou_threshold", 0.8)
        if kind != "nms" or cfg:
            raise ValueError(
                f"dqs_cfg is {dict(dqs_cfg)}; expected dict(type='nms', iou_threshold=...) and nothing else."
            )
        return cls(threshold, distinct_mask)


def select_distinct(boxes: Tensor, scores: Tensor, iou_threshold: float, max_num: int) -> Tensor:
    """Keep the best ``max_num`` boxes that do not duplicate a better one.

    Args:
        boxes: [N, 4] cxcywh in [0, 1].
        scores: [N] in [0, 1].
        iou_threshold: a box with a larger IoU with a better kept box is dropped.
        max_num: at most so many indices come back.

    Returns:
        Indices into N, [<= max_num], in descending score order.
    """
    with torch.no_grad():
        return batched_nms_keep(bbox_cxcywh_to_xyxy(boxes.float()), scores.float(), iou_threshold, max_num)


def select_dense(scores: Tensor, max_num: int) -> Tensor:
    """Return the indices of the ``max_num`` best ``scores`` [N], best first, duplicates included."""
    with torch.no_grad():
        return scores.sort(descending=True).indices[:max_num]


def still_distinct(
    boxes: Tensor, scores: Tensor, candidates: Tensor, selection: DistinctSelection
) -> tuple[Tensor, Tensor]:
    """Find which of the candidate queries of one image stay distinct after a decoder layer.

    Args:
        boxes: [num_matching, 4] cxcywh in [0, 1].
        scores: [num_matching] in [0, 1].
        candidates: [num_matching] bool, the queries that take part in the NMS.
        selection: threshold and mask rule.

    Returns:
        ``survivors`` [num_matching] bool, the queries kept by the NMS, and ``active`` [num_matching] bool, those that
        enter the next layer's loss, filter and NMS under the mask rule.
    """
    inds = places_of(candidates)
    kept = inds[select_distinct(boxes[inds], scores[inds], selection.iou_threshold, len(inds))]
    survivors = torch.zeros_like(candidates)
    survivors[kept] = True
    if selection.mask_rule == "legacy":
        return survivors, survivors | survivors[0]
    return survivors, survivors


def places_of(mask: Tensor) -> Tensor:
    """Return the indices at which ``mask`` [n] is True, to pick by more than once.

    A mask is counted whenever it is an index, in backward again, and on a GPU the host waits for that.
    """
    return mask.nonzero().view(-1)  # [k, 1] -> [k], the number of True


def attention_block(survivors: Tensor) -> Tensor:
    """Return the self-attention mask of the matching queries, [bs, num_matching, num_matching], True = not seen.

    A pair of queries sees each other if at least one of them survived; ``survivors`` is [bs, num_matching] bool.
    """
    return ~(survivors[:, :, None] | survivors[:, None, :])


def pad_to(items: Sequence[Tensor], length: int) -> Tensor:
    """Stack tensors [n_i, C] to [len(items), length, C], zero-padded; the zeros are live queries in DDQ-DETR."""
    padded: list[Tensor] = [F.pad(item, (0, 0, 0, length - len(item))) for item in items]
    return torch.stack(padded)  # [len(items), length, C]

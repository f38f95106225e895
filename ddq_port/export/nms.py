"""Greedy suppression as one operator of an exported graph; in ONNX it is ``NonMaxSuppression``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddq_port.models.ddq_detr.fast.distinct import Kept
from ddq_port.ops.nms import greedy_keep


@torch.library.custom_op("ddq_port::nms", mutates_args=())
def nms(boxes: Tensor, ranks: Tensor, iou_threshold: float, max_num: int) -> Tensor:
    """Return the boxes that suppression keeps, best first.

    Args:
        boxes: [n, 4] xyxy.
        ranks: [n], the largest is the best; boxes with none above 0 take no part.
        iou_threshold: a box that overlaps a kept one of higher rank by more goes.
        max_num: length of the result.

    Returns:
        int64 [max_num] indices, -1 behind the last kept box.
    """
    order = ranks.sort(descending=True, stable=True).indices
    order = order[ranks[order] > 0]  # [number of candidates]
    keep = greedy_keep(boxes, order, iou_threshold, 0, max_num)
    return torch.nn.functional.pad(keep, (0, max_num - len(keep)), value=-1)


@nms.register_fake
def _(boxes: Tensor, ranks: Tensor, iou_threshold: float, max_num: int) -> Tensor:
    return boxes.new_empty(max_num, dtype=torch.int64)


def onnx_forms() -> dict[Callable, Callable]:
    """Return what stands for the operator in ONNX, for ``torch.onnx.export``, and for a stable sort, which it lacks."""
    from onnxscript import opset20 as op

    def nms_of_onnx(boxes: Any, ranks: Any, iou_threshold: float, max_num: int) -> Any:
        selected = op.NonMaxSuppression(
            op.Unsqueeze(boxes, op.Constant(value_ints=[0])),  # [1, n, 4]
            op.Unsqueeze(ranks, op.Constant(value_ints=[0, 1])),  # [1, 1, n]
            op.Constant(value_ints=[max_num]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[0.0]),
        )  # [kept, 3]: image, class, box
        kept = op.Squeeze(op.Slice(selected, *(op.Constant(value_ints=[x]) for x in (2, 3, 1))), op.Constant(value_ints=[1]))
        missing = op.Constant(value_ints=[-1] * max_num)
        both = op.Concat(kept, missing, axis=0)  # [kept + max_num]
        return op.Slice(both, *(op.Constant(value_ints=[x]) for x in (0, max_num, 0)))

    def sort_of_onnx(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        # of equal numbers the first comes first, as ONNX has it
        size = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
        return op.TopK(x, size, axis=dim, largest=int(descending))

    return {torch.ops.ddq_port.nms.default: nms_of_onnx, torch.ops.aten.sort.stable: sort_of_onnx}


def suppress(boxes: Tensor, candidates: Tensor, iou_threshold: float, sweeps: int | None, edge: Tensor) -> Kept:
    """Suppress by the operator, one image; arguments and result as of :func:`~..models.ddq_detr.fast.distinct.suppress`."""
    n = boxes.shape[1]
    shifted = boxes[0] + (edge[0] + 1)  # [n, 4]
    ranks = (n - torch.arange(n, device=boxes.device)).to(boxes.dtype).masked_fill(~candidates[0], -1.0)  # [n]
    kept = torch.ops.ddq_port.nms(shifted, ranks, iou_threshold, n)
    # places of kept boxes, all others one place further: [n + 1] -> [1, n]
    mask = torch.zeros(n + 1, dtype=torch.bool, device=boxes.device)
    mask = mask.scatter(0, torch.where(kept < 0, n, kept), True)[None, :n]
    return Kept(mask, torch.ones((), dtype=torch.bool, device=boxes.device))

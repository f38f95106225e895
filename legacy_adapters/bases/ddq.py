"""What adapters of code bases that hold DDQ-DETR in the form of mmdet 3.x have in common."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Optional

import torch

from legacy_adapters.recording.methods import IN, OUT, Aside
from legacy_adapters.recording.taps import Tap
from legacy_adapters.tasks import probes


def aside(model: torch.nn.Module) -> Aside:
    """Give what the decoder leaves for the head, and the head finds, in the dict that all modules of DDQ share.

    That is the matching queries which entered each layer as distinct, under the name ``active_masks``: per layer
    [bs, num_queries] bool, the first row of a mask that all heads of an image have in common.
    """
    passed = {("", "forward_decoder", OUT), ("bbox_head", "loss", IN), ("bbox_head", "predict", IN)}

    def masks(name: str, method: str, kind: str) -> Dict[str, Any]:
        if (name, method, kind) not in passed:
            return {}
        shared = model.cache_dict
        later = [mask[:: shared["num_heads"], 0] for mask in shared["distinct_query_mask"]]
        return {"active_masks": [torch.ones_like(mask) for mask in later[:1]] + later}

    return masks


def selection_tap(owner: Any, attribute: str, num_queries: int, probe: Optional[Callable] = None) -> Tap:
    """Watch mmcv's ``batched_nms`` as DDQ uses it.

    With an NMS config it selects distinct queries, without one it sorts (dense queries). The caller cuts the result to
    ``num_queries`` (distinct) or 1.5 times that (dense); what lies behind the cut is used by nothing and not recorded.
    """

    def name(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, nms_cfg: Optional[dict]) -> str:
        return "distinct" if nms_cfg is not None else "dense"

    def read(result: Any, *args: Any) -> Dict[str, torch.Tensor]:
        limit = num_queries if name(*args) == "distinct" else int(num_queries * 1.5)
        return {"keep": result[1][:limit]}

    def write(decision: Dict[str, torch.Tensor], boxes: torch.Tensor, scores: torch.Tensor, *args: Any) -> Any:
        keep = decision["keep"].to(boxes.device)
        return torch.cat([boxes[keep], scores[keep, None]], -1), keep

    def basis(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, nms_cfg: Optional[dict]) -> Dict[str, Any]:
        if nms_cfg is None:
            return {"scores": scores}
        return {"boxes": boxes, "scores": scores, "iou_threshold": nms_cfg["iou_threshold"], "max_num": num_queries}

    return Tap(owner, attribute, name, read, write, basis=basis, probe=probe)


def selection_probe(model: torch.nn.Module) -> Callable[[], Iterator[tuple]]:
    """Return what gives ``batched_nms`` boxes whose overlaps are the threshold, and nearly so."""

    def arguments() -> Iterator[tuple]:
        cfg, like = dict(model.dqs_cfg), next(model.parameters())
        for boxes, scores in probes.boxes_at_threshold(cfg["iou_threshold"], model.num_queries, like):
            yield boxes, scores, torch.ones_like(scores), dict(cfg)

    return arguments

"""What is watched in the official code and in the port alike."""

from __future__ import annotations

from typing import List

import torch

from legacy_adapters.bases import operators
from legacy_adapters.recording.taps import Decision, Tap, matchings, random_taps, rankings

#: How the tap of soft NMS is called in reports.
SOFT_SUPPRESSION = "soft_nms"
#: In which the query head and its transformer train on the queries of further heads. They are followed, so that their code
#: is told from that of the detector, which calls them.
OF_FURTHER_HEADS = ("forward_aux", "loss_aux", "forward_train_aux")


class Observed:
    """Part of the adapters of both sides."""

    def taps(self, model: torch.nn.Module) -> List[Tap]:
        """Watch draws, rankings, matchings, assignments, both kinds of NMS and the levels that regions are pooled from."""
        return [*matchings({}), *random_taps(), *rankings(), *operators.taps(), *soft_suppressions()]

    def predictor(self, model: torch.nn.Module) -> str:
        """Name the head that detects."""
        return "query_head"

    def classes(self, model: torch.nn.Module) -> int:
        """Return how many classes the query head tells apart."""
        return int(model.query_head.num_classes)


def soft_suppressions() -> List[Tap]:
    """Return the tap of mmcv's operator of soft NMS: which boxes it takes, in their order, and what it was asked.

    Where no boxes overlap, the boxes do not tell one threshold from another.
    """
    from mmcv.ops.nms import ext_module

    def read(
        result: torch.Tensor,
        boxes: torch.Tensor,
        scores: torch.Tensor,
        dets: torch.Tensor,
        iou_threshold: float,
        sigma: float,
        min_score: float,
        method: int,
        offset: int,
    ) -> Decision:
        asked = torch.tensor([iou_threshold, sigma, min_score, method, offset], dtype=torch.float64)
        return {"keep": result, "asked": asked}

    return [Tap(ext_module, "softnms", lambda *args, **kwargs: SOFT_SUPPRESSION, read, first="boxes")]

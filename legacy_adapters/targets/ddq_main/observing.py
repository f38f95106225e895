"""What is watched in the official code and in the port alike."""

from __future__ import annotations

from typing import List

import torch

from legacy_adapters.bases import operators
from legacy_adapters.recording.taps import Tap, matchings, random_taps, rankings


class Observed:
    """Part of the adapters of both sides."""

    def taps(self, model: torch.nn.Module) -> List[Tap]:
        """Watch the rankings, the NMS, both matchings and the levels that regions are pooled from."""
        return [*matchings({}), *random_taps(), *rankings(), *operators.taps()]

    def predictor(self, model: torch.nn.Module) -> str:
        """Name the last stage, or without stages the layer of class logits: the scores are probabilities already."""
        stages = getattr(model, "roi_head", None)
        return "bbox_head.conv_cls" if stages is None else "roi_head.bbox_head.{}".format(len(stages.bbox_head) - 1)

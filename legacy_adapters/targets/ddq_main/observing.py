"""What is watched in the official code and in the port alike."""

from __future__ import annotations

from typing import List, Optional

import torch

from legacy_adapters.bases import operators
from legacy_adapters.recording.taps import Tap, matchings, random_taps, rankings


class Observed:
    """Part of the adapters of both sides."""

    def taps(self, model: torch.nn.Module) -> List[Tap]:
        """Watch the rankings, the NMS, both matchings and the levels that regions are pooled from."""
        return [*matchings({}), *random_taps(), *rankings(), *operators.taps()]

    def predictor(self, model: torch.nn.Module) -> Optional[str]:
        """Name the layer of class logits, for scores are probabilities already; none of a model with stages."""
        return "bbox_head.conv_cls" if getattr(model, "roi_head", None) is None else None

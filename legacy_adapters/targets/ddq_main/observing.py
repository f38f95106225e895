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

    def predictor(self, model: torch.nn.Module) -> None:
        """Name none: there are scores and distances at the points of each level, which are neither logits nor boxes."""

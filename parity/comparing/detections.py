"""Match the final detections of two sides one to one, image by image.

Row by row, one detection more at the top makes every row below it differ. Matched by box and label, the others agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from legacy_adapters.recording.kinds import RESULT

from ..decisions.boxes import iou
from ..traces.kinds import Kind
from ..traces.trace import Recording, Trace
from .pairing import LEGACY, NEW

#: Boxes that overlap less are not the same detection.
LEAST_IOU = 0.5
#: By how much boxes without area are widened on each side before they are overlapped, as a share of the largest
#: coordinate: rounding moves an edge by far less, another decision by more.
MARGIN = 1e-4
#: Weight of the score difference beside the IoU: it tells apart only what has the same box.
_SCORE_WEIGHT = 1e-6


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image.

    Attributes:
        bboxes: [n, 4] xyxy in any unit, the same on both sides.
        scores: [n].
        labels: [n], whole numbers.
    """

    bboxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        count = len(self.labels) if self.labels.dim() == 1 else -1
        if self.bboxes.shape != (count, 4) or self.scores.shape != (count,):
            shapes = ", ".join(str(list(tensor.shape)) for tensor in (self.bboxes, self.scores, self.labels))
            raise ValueError(f"Detections have shapes {shapes}; expected [n, 4], [n] and [n].")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class LoneDetection:
    """A detection without a partner on the other side: its row, label and score."""

    row: int
    label: int
    score: float


@dataclass(frozen=True)
class ImageMatch:
    """How the detections of one image pair.

    Attributes:
        image: number of the image in the batch.
        counts: detections of each side.
        rows: (legacy row, new row) of each pair, in the order of the legacy side.
        worst_iou: smallest IoU of a pair; 1 without pairs.
        score_gap: largest score difference of a pair; 0 without pairs, infinite for NaN on one side.
        unmatched: of each side, in the order of the side.
    """

    image: int
    counts: Mapping[str, int]
    rows: tuple[tuple[int, int], ...]
    worst_iou: float
    score_gap: float
    unmatched: Mapping[str, tuple[LoneDetection, ...]]

    @property
    def moved(self) -> int:
        """Return how many pairs are not in the same order on both sides."""
        order = [new for _, new in self.rows]
        return sum(one != two for one, two in zip(order, sorted(order)))


def match_detections(image: int, legacy: Detections, new: Detections) -> ImageMatch:
    """Pair detections of one label whose boxes overlap by at least :data:`LEAST_IOU`, for the largest sum of IoU.

    Args:
        image: number of the image.
        legacy: of the legacy side.
        new: of the new side.
    """
    overlaps = _overlaps(legacy.bboxes.double(), new.bboxes.double())  # [n, m]
    gaps = _gaps(legacy.scores.double(), new.scores.double())
    allowed = (legacy.labels[:, None] == new.labels[None]) & (overlaps >= LEAST_IOU)
    # scores lie in [0, 1], so that no score difference outweighs an overlap
    weights = torch.where(allowed, overlaps - _SCORE_WEIGHT * gaps.clamp(max=1.0), 0.0)
    rows = tuple(sorted(pair for pair in _best_pairs(weights) if allowed[pair]))
    return ImageMatch(
        image=image,
        counts={LEGACY: len(legacy), NEW: len(new)},
        rows=rows,
        worst_iou=min((overlaps[pair].item() for pair in rows), default=1.0),
        score_gap=max((gaps[pair].item() for pair in rows), default=0.0),
        unmatched={
            LEGACY: _left(legacy, {one for one, _ in rows}),
            NEW: _left(new, {two for _, two in rows}),
        },
    )


def _best_pairs(weights: Tensor) -> list[tuple[int, int]]:
    """Return the pairs with the largest sum of ``weights``; none of which exceeds 1."""
    diagonal = weights.diagonal()
    if diagonal.numel() == weights.shape[1] and bool((diagonal == 1).all()):
        return [(row, row) for row in range(len(diagonal))]
    from scipy.optimize import linear_sum_assignment  # takes half a second to import

    return list(zip(*(side.tolist() for side in linear_sum_assignment(weights.numpy(), maximize=True))))


def _overlaps(one: Tensor, two: Tensor) -> Tensor:
    """Return the IoU of all pairs, of two boxes without area that of both widened; 1 for equal boxes."""
    flat = [(boxes[:, 2:] <= boxes[:, :2]).any(-1) for boxes in (one, two)]
    coordinates = torch.cat([one, two]).abs()
    margin = MARGIN * torch.where(coordinates.isfinite(), coordinates, 0.0).max().item() if len(coordinates) else 0.0
    widened = iou(*(torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1) for boxes in (one, two)))
    overlaps = torch.where(flat[0][:, None] & flat[1][None], widened, iou(one, two))
    return torch.where((one[:, None] == two[None]).all(-1), 1.0, overlaps)


def _gaps(one: Tensor, two: Tensor) -> Tensor:
    """Return the score difference of all pairs; 0 for NaN on both sides, infinite for NaN on one."""
    both = one[:, None].isnan() & two[None].isnan()
    same = both | (one[:, None] == two[None])
    return torch.where(same, 0.0, (one[:, None] - two[None]).abs()).nan_to_num(nan=math.inf, posinf=math.inf)


def _left(detections: Detections, matched: set[int]) -> tuple[LoneDetection, ...]:
    rows = (row for row in range(len(detections)) if row not in matched)
    return tuple(LoneDetection(row, int(detections.labels[row]), detections.scores[row].item()) for row in rows)


def matched_images(legacy: Recording, new: Trace) -> tuple[ImageMatch, ...]:
    """Match the results of inference that both sides recorded as bboxes, scores and labels."""
    ours, theirs = results(legacy), results(new)
    return tuple(match_detections(image, ours[image], theirs[image]) for image in sorted(ours.keys() & theirs.keys()))


def results(side: Recording, phase: str = "predict", name: str = RESULT) -> dict[int, Detections]:
    """Return the detections that a side recorded as bboxes, scores and labels, by image."""
    taps = (record for record in side.records if record.kind == Kind.TAP and record.name == name)
    images = {record.call for record in taps if record.phase == phase}
    made = {image: _detections(side.values_of(phase, Kind.TAP, name, image)) for image in sorted(images)}
    return {image: detections for image, detections in made.items() if detections is not None}


def _detections(values: Mapping[str, Tensor]) -> Detections | None:
    try:
        return Detections(values["bboxes"], values["scores"], values["labels"])
    except (KeyError, ValueError):  # another code base may record other things; they are compared all the same
        return None

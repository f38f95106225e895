"""Compare what both sides found in the images of a data set."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from legacy_adapters.ground.words import counted
from legacy_adapters.launch import SideError

from ..comparing.detections import Detections, ImageMatch, LoneDetection, match_detections
from ..comparing.pairing import LEGACY, NEW
from ..verdict.outcome import CONDITIONS, EXIT_CODES, INCOMPARABLE, MATCH, MISMATCH
from .coco import ImageSet, average_precision


@dataclass(frozen=True)
class Bounds:
    """What counts as equal.

    Attributes:
        exact: the same bits; the others do not matter then.
        score: largest difference of scores, which lie in [0, 1].
        box: largest difference of a coordinate in pixels.
        ap: largest difference of an AP, which lies in [0, 1].
    """

    exact: bool = True
    score: float = 0.0
    box: float = 0.0
    ap: float = 0.0


@dataclass(frozen=True)
class ImageDetections:
    """What a side did with one image.

    Attributes:
        image: its id.
        shape: of the network's input.
        digest: of that.
        meta: what the pipeline told of it.
        detections: in pixels of the image file.
    """

    image: int
    shape: tuple[int, ...]
    digest: str
    meta: dict[str, Any]
    detections: Detections


@dataclass(frozen=True)
class ImageResult:
    """How the sides compare in one image.

    Attributes:
        image: its id.
        file: path of the image.
        match: detections one to one.
        identical: same boxes, scores and labels, bit by bit and in the same order.
        same_input: both pipelines gave the network the same bits.
        shapes: of the network's input, of each side.
        box_gap: largest difference of a coordinate of a pair in pixels; 0 without pairs.
        lone: detections that are not paired and may not be missing on the other side, of each side.
        at_cut: others that are not paired: the other side's list, full, ends at their score.
        accepted: equal within the bounds.
    """

    image: int
    file: Path
    match: ImageMatch
    identical: bool
    same_input: bool
    shapes: dict[str, tuple[int, ...]]
    box_gap: float
    lone: dict[str, tuple[LoneDetection, ...]]
    at_cut: int
    accepted: bool

    @property
    def badness(self) -> tuple[float, ...]:
        """Return what images are ranked by: detections without a partner, then score and box differences."""
        worst = max((one.score for side in self.match.unmatched.values() for one in side), default=0.0)
        return (float(not self.accepted), worst, self.match.score_gap, self.box_gap)


@dataclass(frozen=True)
class EvalVerdict:
    """The outcome.

    Attributes:
        outcome: ``MATCH``, ``MISMATCH`` or ``INCOMPARABLE``.
        reasons: why it is not a match, one sentence each.
        notes: what else is worth knowing, one sentence each.
        bounds: what counted as equal.
        images: every image, in the order of the annotation file.
        aps: COCO's summary of each side; None without objects.
        provenance: of each side.
    """

    outcome: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    bounds: Bounds
    images: tuple[ImageResult, ...]
    aps: dict[str, dict[str, float | None] | None]
    provenance: dict[str, dict[str, Any]]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    def worst(self, count: int) -> list[ImageResult]:
        """Return the images that differ most; equal ones in the order of the file."""
        return sorted(self.images, key=lambda result: result.badness, reverse=True)[:count]


def files_of(folder: Path) -> dict[str, Path]:
    """Name the files in which each side's detections are kept in a folder."""
    return {side: folder / f"{side}.detections.jsonl" for side in (LEGACY, NEW)}


def judge(files: dict[str, Path], images: ImageSet, categories: Sequence[int], bounds: Bounds) -> EvalVerdict:
    """Compare what both sides wrote.

    Args:
        files: of each side.
        images: that both were given.
        categories: that the labels stand for.
        bounds: what counts as equal.

    Raises:
        SideError: if a file is not whole.
    """
    readers = {side: read(side, file, images) for side, file in files.items()}
    provenance = {side: next(reader) for side, reader in readers.items()}
    results, rows = [], {side: [] for side in files}
    for image, legacy, new in zip(images.images, readers[LEGACY], readers[NEW], strict=True):
        results.append(_compared(len(results), image.file, legacy, new, bounds))
        for side, results_of_side in ((LEGACY, legacy), (NEW, new)):
            rows[side].append(_coco_rows(results_of_side, categories))
    aps = {side: average_precision(images, np.concatenate(parts)) for side, parts in rows.items()}
    outcome, reasons = _outcome(results, aps, provenance, bounds)
    notes = _notes(results, aps)
    return EvalVerdict(outcome, tuple(reasons), tuple(notes), bounds, tuple(results), aps, provenance)


def read(side: str, file: Path, images: ImageSet) -> Iterator[Any]:
    """Yield a side's provenance, then its :class:`ImageDetections` of each image.

    Raises:
        SideError: if the file is not whole.
    """
    with open(file, encoding="utf-8") as lines:
        yield json.loads(next(lines))["provenance"]
        for image in images.images:
            values = json.loads(next(lines, "{}"))
            if values.get("id") != image.id:
                raise SideError(side, f"wrote nothing of image {image.id}; run it again.", "")
            yield _image_detections(values)
        if json.loads(next(lines, "{}")) != {"images": len(images.images)}:
            raise SideError(side, f"did not write all of {file.name}; run it again.", "")


def _image_detections(values: dict[str, Any]) -> ImageDetections:
    bboxes = torch.tensor(values["bboxes"], dtype=torch.float64).reshape(-1, 4)
    scores = torch.tensor(values["scores"], dtype=torch.float64)
    labels = torch.tensor(values["labels"], dtype=torch.int64)
    read = values["input"]
    return ImageDetections(
        values["id"], tuple(read["shape"]), f"{read['dtype']} {read['shape']} {read['digest']}", values["meta"],
        Detections(bboxes, scores, labels),
    )  # fmt: skip


def _compared(number: int, file: Path, legacy: ImageDetections, new: ImageDetections, bounds: Bounds) -> ImageResult:
    one, two = legacy.detections, new.detections
    match = match_detections(number, one, two)
    identical = all(
        torch.equal(getattr(one, name).nan_to_num(nan=math.inf), getattr(two, name).nan_to_num(nan=math.inf))
        for name in ("bboxes", "scores", "labels")
    )
    lone, at_cut = _lone(match, one, two, 0.0 if bounds.exact else bounds.score)
    box_gap = _box_gap(match, one, two)
    within = not any(lone.values()) and match.score_gap <= bounds.score and box_gap <= bounds.box
    return ImageResult(
        legacy.image, file, match, identical, legacy.digest == new.digest, {LEGACY: legacy.shape, NEW: new.shape},
        box_gap, lone, at_cut, identical or (within and not bounds.exact),
    )  # fmt: skip


def _lone(
    match: ImageMatch, legacy: Detections, new: Detections, score: float
) -> tuple[dict[str, tuple[LoneDetection, ...]], int]:
    """Divide what is not paired: what the other side must have found, and what just fell off its list.

    A list is full with as many detections as the longer one has. Where it ends, a detection may be on one list and,
    with a score that differs by no more than is allowed, not on the other.
    """
    most = max(len(legacy), len(new))
    lone, at_cut = {}, 0
    for side, other in ((LEGACY, new), (NEW, legacy)):
        full = len(other) == most > 0
        cut = float(other.scores.min()) + score if full else -math.inf
        must = tuple(one for one in match.unmatched[side] if not one.score <= cut)
        lone[side] = must
        at_cut += len(match.unmatched[side]) - len(must)
    return lone, at_cut


def _box_gap(match: ImageMatch, legacy: Detections, new: Detections) -> float:
    if not match.rows:
        return 0.0
    one, two = (list(side) for side in zip(*match.rows))
    a, b = legacy.bboxes[one], new.bboxes[two]
    return torch.where(a == b, 0.0, (a - b).abs()).max().item()  # equal infinite ones have no difference


def _coco_rows(result: ImageDetections, categories: Sequence[int]) -> np.ndarray:
    """Return detections as [n, 7]: image id, left, top, width, height, score, category id."""
    bboxes = result.detections.bboxes.numpy()
    corners = bboxes[:, :2]
    numbers = np.array([categories[label] for label in result.detections.labels.tolist()], dtype=float).reshape(-1, 1)
    ids = np.full((len(bboxes), 1), float(result.image))
    return np.concatenate(
        [ids, corners, bboxes[:, 2:] - corners, result.detections.scores.numpy()[:, None], numbers], axis=1
    )


def _outcome(
    results: Sequence[ImageResult],
    aps: dict[str, dict[str, float | None] | None],
    provenance: dict[str, dict[str, Any]],
    bounds: Bounds,
) -> tuple[str, list[str]]:
    unequal = [name for name in CONDITIONS if provenance[LEGACY].get(name) != provenance[NEW].get(name)]
    if bounds.exact and unequal:
        name = unequal[0]
        one, two = (provenance[side].get(name) for side in (LEGACY, NEW))
        reason = f"{name} is {one} on the legacy side and {two} on the new one; use --tolerance fixed."
        return INCOMPARABLE, [reason]
    rejected = [result for result in results if not result.accepted]
    gap = ap_gap(aps)
    if rejected or gap > bounds.ap:
        return MISMATCH, [*_image_reasons(rejected, results), *_ap_reason(aps, bounds)]
    if not any(sum(result.match.counts.values()) for result in results):
        return INCOMPARABLE, ["Neither side detected anything; is the checkpoint the right one?"]
    return MATCH, []


def _image_reasons(rejected: Sequence[ImageResult], results: Sequence[ImageResult]) -> list[str]:
    if not rejected:
        return []
    lone = sum(len(side) for result in rejected for side in result.lone.values())
    score = max(result.match.score_gap for result in rejected)
    box = max(result.box_gap for result in rejected)
    worst = max(rejected, key=lambda result: result.badness)
    said = [
        f"{len(rejected)} of {counted(len(results), 'image')} differ{'s' * (len(rejected) == 1)}: "
        f"{counted(lone, 'detection')} without a partner, scores by up to "
        f"{score:.2g}, boxes by up to {box:.2g} px; most in image {worst.image} ({worst.file.name})."
    ]
    other = [result for result in results if not result.same_input]
    if other:
        first = other[0]
        sizes = (f"{side} {'x'.join(map(str, first.shapes[side][-2:]))}" for side in (LEGACY, NEW))
        said.append(
            f"The pipelines give the network other inputs in {counted(len(other), 'image')}, first image "
            f"{first.image}: {', '.join(sizes)}."
        )
    else:
        said.append("The pipelines give the network the same inputs, so the models differ.")
    return said


def ap_gap(aps: dict[str, dict[str, float | None] | None]) -> float:
    """Return the largest difference of a number of COCO's summary; infinite if one side only has it."""
    one, two = aps[LEGACY], aps[NEW]
    if one is None or two is None:
        return 0.0 if one is two else math.inf
    pairs = [(one[name], two[name]) for name in one if (one[name], two[name]) != (None, None)]
    return max((math.inf if None in pair else abs(pair[0] - pair[1]) for pair in pairs), default=0.0)


def _ap_reason(aps: dict[str, dict[str, float | None] | None], bounds: Bounds) -> list[str]:
    gap = ap_gap(aps)
    return [f"An AP differs by {gap:.4f}, allowed {bounds.ap:g}."] if gap > bounds.ap else []


def _notes(results: Sequence[ImageResult], aps: dict[str, dict[str, float | None] | None]) -> list[str]:
    notes = []
    known = [stats["AP"] for stats in aps.values() if stats is not None]
    if not known:
        notes.append("The images have no objects, so there is no AP.")
    elif not any(known):
        notes.append("Both APs are 0, so they show nothing; the detections do.")
    if all(result.accepted for result in results) and not all(result.same_input for result in results):
        count = sum(not result.same_input for result in results)
        notes.append(
            f"The pipelines give the network other inputs in {counted(count, 'image')}, without an effect that counts."
        )
    return notes

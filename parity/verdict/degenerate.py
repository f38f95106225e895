"""Tell a run that proves nothing because its final outputs hold nothing: all alike, or not finite.

Under a checkpoint of constants every port matches: whatever query, class or layer is taken, the number is the same. So
final outputs are looked at, of inference and of the losses, and the weight matrices. What is zero for a good reason
does not count: a branch, mask or counter that starts at zero, a loss without objects. A freshly initialised detector is
not degenerate either: its box refinements are zero, but boxes follow from different references and scores from random
rows. It exercises less than seeded weights all the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from legacy_adapters.recording.kinds import RESULT
from legacy_adapters.recording.trace_writer import Record

from ..comparing.detections import Detections, results
from ..traces.kinds import Kind
from ..traces.trace import Recording, Trace

#: Numbers count as equal if they differ by this share of the largest: an error of rounding, no information.
SAME = 2.0**-18


def reasons(legacy: Recording, new: Trace) -> tuple[str, ...]:
    """Say why nothing can be learned from the legacy side's final outputs, one sentence each; empty if something can.

    The legacy side's are looked at: where only the new side's are constant or not finite, the sides differ.

    Args:
        legacy: the legacy side.
        new: the new side, which was given the same weights and has them at hand.

    Raises:
        TraceError: if what is looked at is not what was recorded; it can turn the verdict.
    """
    if isinstance(legacy, Trace):
        for record in legacy.records:
            if record.kind == Kind.LOSS or record.key[:3] == ("predict", Kind.TAP, RESULT):
                legacy.check(record)
    detections = results(legacy)
    losses = _losses(legacy)
    sentences = [*_not_finite(detections, losses), *_alike(detections, _have_masks(legacy))]
    if legacy.provenance.get("stopped") and not sentences:
        sentences += _nan_before_stop(legacy)
    layers = _alike_layers(losses)
    if layers:
        sentences.append(f"The loss terms are the same for every layer of the legacy side, such as {layers}.")
    if _constant_matrices(new):
        sentences.append("Every weight matrix holds a single number.")
    return tuple(f"Degenerate: {text} Give other weights or inputs." for text in sentences)


def _not_finite(detections: Mapping[int, Detections], losses: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    for image, values in detections.items():
        for name in ("scores", "bboxes"):
            if not bool(getattr(values, name).isfinite().all()):
                yield f"{name} of image {image} are not finite on the legacy side."
                return
    for phase, terms in losses.items():
        for name, value in terms.items():
            if not bool(torch.tensor(value).isfinite()):
                yield f"loss term `{name}` of phase {phase} is {value} on the legacy side."
                return


def _nan_before_stop(legacy: Recording) -> Iterator[str]:
    """Say where a legacy side that stopped before its end had made NaN, which a matching or an NMS refuses."""
    for phase, _, name, _, what in legacy.coverage.get("not_finite", ())[:1]:
        if "NaN" in what:
            yield f"the legacy side stopped after `{name}` gave {what} in phase {phase}."


def _have_masks(side: Recording) -> bool:
    """Tell whether the places of detections are told by masks that are not all the same, as well as by boxes."""
    images = {record.call for record in side.records if record.key[:3] == ("predict", Kind.TAP, RESULT)}
    found = (side.values_of("predict", Kind.TAP, RESULT, image).get("masks") for image in images)
    return any(masks is not None and len(masks) > 1 and bool((masks != masks[:1]).any()) for masks in found)


def _alike(detections: Mapping[int, Detections], have_masks: bool) -> Iterator[str]:
    """Say what the final detections have in common; images with a single one say nothing by themselves.

    With masks that differ, boxes may be the same: some code bases give boxes of zeros where only masks are made.
    """
    images = [values for values in detections.values() if len(values.scores)]
    several = [values for values in images if len(values.scores) > 1]
    counted = several or (images if len(images) > 1 else [])
    if not counted or not all(bool(values.scores.isfinite().all()) for values in counted):
        return
    scores = torch.cat([values.scores.double() for values in images])
    boxes = torch.cat([values.bboxes.double() for values in images])
    if _same(scores):
        yield f"all {len(scores)} final scores of the legacy side are {scores[0].item():.6g}."
    elif bool(((scores == 0) | (scores == 1)).all()):
        yield f"all {len(scores)} final scores of the legacy side are exactly 0 or 1."
    elif several and all(_same(values.scores.double()) for values in several):
        yield "the final scores of the legacy side are the same for all queries of an image."
    elif several and all(_by_label_only(values) for values in several):
        yield "the final scores of the legacy side depend on the class and on nothing else."
    elif len(several) > 1 and all(torch.equal(values.scores, several[0].scores) for values in several):
        yield "the final scores of the legacy side are the same for every image."
    if have_masks:
        return
    if len(boxes) > 1 and _same(boxes):
        yield f"all {len(boxes)} final boxes of the legacy side are the same."
    elif several and all(_same(values.bboxes.double()) for values in several):
        yield "the final boxes of the legacy side are the same for all queries of an image."


def _same(rows: Tensor) -> bool:
    """Tell whether all rows [n] or [n, k] are equal up to rounding."""
    return bool((rows.amax(0) - rows.amin(0) <= SAME * rows.abs().max()).all())


def _by_label_only(values: Detections) -> bool:
    """Tell whether detections of one label have one score, where most labels have several."""
    scores, labels = values.scores.double(), values.labels
    groups = [scores[labels == label] for label in labels.unique()]
    return 2 * len(groups) <= len(labels) and all(_same(group) for group in groups)


def _losses(side: Recording) -> dict[str, dict[str, float]]:
    """Return the loss terms of every phase, but for their sum."""
    terms: dict[str, dict[str, float]] = defaultdict(dict)
    for record in side.records:
        value = side.number(record) if record.kind == Kind.LOSS and record.is_float else None
        if value is not None and record.name != "total":
            terms[record.phase][f"{record.name} {record.slot}".rstrip()] = value
    return terms


def _alike_layers(losses: Mapping[str, Mapping[str, float]]) -> str:
    """Name two terms if every term of every phase is the same for all layers that have it; empty if one is not.

    Terms that are 0 say nothing: of the matched boxes, without objects.
    """
    example = ""
    for terms in losses.values():
        layers: dict[str, list[str]] = defaultdict(list)
        for name, value in terms.items():
            if value:
                layers[re.sub(r"\d+(?=\D)", "#", name)].append(name)
        for names in layers.values():
            if len(names) > 1 and not _same(torch.tensor([terms[name] for name in names], dtype=torch.float64)):
                return ""
            if len(names) > 1:
                example = example or f"`{names[0]}` and `{names[1]}`"
    return example


def _constant_matrices(trace: Trace) -> bool:
    """Tell whether each weight of at least two axes holds one number; the first that does not ends the search."""
    records = [r for r in trace.records if r.kind == Kind.PARAM and r.is_float and sum(x > 1 for x in r.shape) > 1]
    return bool(records) and all(_is_constant(trace, record) for record in records)


def _is_constant(trace: Trace, record: Record) -> bool:
    trace.check(record)
    tensor = trace.tensor(record)
    return bool((tensor == tensor.reshape(-1)[0]).all())

"""Parts of a report as lines of text and as plain data: decisions, detections, coverage."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from legacy_adapters import registry
from legacy_adapters.ground.words import counted

from ..comparing.coverage import SIDES, Coverage
from ..comparing.detections import ImageMatch, LoneDetection
from ..comparing.pairing import LEGACY, NEW, Unpaired
from ..decisions.trials import DecisionDifference, Trial
from .printing import finite

WIDTH = 80
_SHOWN_DECISIONS, _SHOWN_IMAGES = 3, 4
_INDENT = "  "
_ACTORS = {
    (NEW, NEW): "the new side",
    (NEW, LEGACY): "the new side, on the legacy side's numbers,",
    (LEGACY, NEW): "the legacy side, on the new side's numbers,",
}


def cut_list(prefix: str, names: Sequence[str], width: int = WIDTH) -> str:
    """Return ``prefix`` and as many of ``names`` as fit into one line, at least one, with the count of the rest."""
    line, shown = prefix, 0
    for number, name in enumerate(names, 1):
        longer = line + (", " if shown else "") + name
        rest = len(names) - number
        if shown and len(longer) + (len(_more(rest)) if rest else 0) > width:
            break
        line, shown = longer, number
    return line + (_more(len(names) - shown) if shown < len(names) else "")


def _more(count: int) -> str:
    return f" (+{count} more)"


def decision_line(decision: DecisionDifference) -> str:
    """Say where a decision differs, by how much it breaks its rule, and how that reads."""
    place = f"{decision.phase} {decision.name}#{decision.call}: "
    trial = decision.worst
    if trial is None:
        return place + decision.reading
    return f"{place}{_measured(decision, trial)}: {decision.reading}"


def witness_line(decision: DecisionDifference) -> str:
    """Say what the decision does that breaks its rule most; empty if nothing does."""
    trial = decision.worst
    if trial is None or not trial.margin.witness:
        return ""
    equal = decision.gaps and not any(decision.gaps.values())
    actor = "the new side" if equal and trial.decision == NEW else _ACTORS[trial.decision, trial.numbers]
    return f"{actor} {trial.margin.witness}"


def _measured(decision: DecisionDifference, trial: Trial) -> str:
    margin = trial.margin
    text = f"{margin.quantity} margin {margin.value:.2g}"
    if margin.quantity == "length" or not math.isfinite(margin.value):
        return text
    if decision.gaps and not any(decision.gaps.values()):
        return f"{text} on equal numbers"
    if trial.decision == trial.numbers:
        return f"{text} on its own numbers"
    return f"{text}, {decision.allowance} explains {margin.allowed:.2g}"


def decision_lines(decisions: Sequence[DecisionDifference]) -> list[str]:
    """Return a heading with counts and a line for each of the first few; nothing if none differs."""
    if not decisions:
        return []
    counts = Counter(_kind(decision) for decision in decisions)
    lines = [f"decided differently: {', '.join(f'{count} {kind}' for kind, count in counts.items())}"]
    lines += [_INDENT + decision_line(decision) for decision in decisions[:_SHOWN_DECISIONS]]
    left = len(decisions) - _SHOWN_DECISIONS
    return [*lines, f"{_INDENT}and {left} more, see --json"] if left > 0 else lines


def _kind(decision: DecisionDifference) -> str:
    if decision.obstacle:
        return "not tried"
    if not decision.is_explained:
        return "no tie"
    return "tie" if decision.accepted else "explained"


def detection_lines(images: Sequence[ImageMatch]) -> list[str]:
    """Return a heading and a few lines for each of the first images; nothing without images."""
    if not images:
        return []
    lines = ["detections, matched one to one"]
    for image in images[:_SHOWN_IMAGES]:
        lines += [_INDENT + line for line in _image_lines(image)]
    left = len(images) - _SHOWN_IMAGES
    return [*lines, f"{_INDENT}and {counted(left, 'more image')}, see --json"] if left > 0 else lines


def _image_lines(image: ImageMatch) -> list[str]:
    counts = f"{len(image.rows)} matched of {image.counts[LEGACY]} / {image.counts[NEW]}"
    moved = f", {image.moved} in another order" if image.moved else ""
    extremes = f", worst IoU {image.worst_iou:.6g}, largest score gap {image.score_gap:.2g}" if image.rows else ""
    lines = [f"image {image.image}: {counts}{moved}{extremes}"]
    for side in SIDES:
        if image.unmatched[side]:
            names = [_detection(detection) for detection in image.unmatched[side]]
            lines.append(cut_list(f"{_INDENT}{side} only: ", names, WIDTH - len(_INDENT)))
    return lines


def _detection(detection: LoneDetection) -> str:
    return f"label {detection.label} score {detection.score:.3g}"


def coverage_lines(coverage: Coverage) -> list[str]:
    """Return a line for each kind of thing that was not compared; long lists are cut."""
    return [cut_list(f"{_INDENT}{what}: ", names) for what, names in coverage_lists(coverage)]


def coverage_lists(coverage: Coverage) -> list[tuple[str, Sequence[str]]]:
    """Return each kind of thing that was not compared, with all there is of it; nothing of what is empty."""
    never = {side: set(coverage.never_executed[side]) for side in SIDES}
    lists = [("never ran on either side", sorted(never[LEGACY] & never[NEW]))]
    for side, other in ((LEGACY, NEW), (NEW, LEGACY)):
        lone = [f"{call.name} x{call.calls} ({call.phase})" for call in coverage.lone_calls if call.side == side]
        lists += [
            (f"never ran on the {side} side", sorted(never[side] - never[other])),
            (f"ran on the {side} side only", lone),
            (f"modules of the {side} side only", coverage.lone_modules[side]),
            (f"gradient on the {side} side only", coverage.gradient_only_on[side]),
            (f"losses of the {side} side only", coverage.losses_only_on[side]),
        ]
    lists += [
        (f"compared {what}", [f"{count} x {text}"])
        for what, texts in (("permuted", coverage.permuted), ("in part", coverage.selected))
        for text, count in texts.items()
    ]
    lists.append(("compared elsewhere", [unpaired_name(item) for item in coverage.explained_records]))
    return [(what, names) for what, names in lists if names]


def idle_lines(names: Sequence[str], family: str | None) -> list[str]:
    """Name the aliases and forms of a family of one's own that fit nothing; those of this package are for many models."""
    if family in registry.own():
        return []
    return [cut_list(f"{_INDENT}fits nothing in this run: ", [name]) for name in names]


def unpaired_name(item: Unpaired) -> str:
    """Name a record without a twin in one line."""
    record = item.record
    return f"{item.side} {record.phase} {record.kind} {record.name}#{record.call} {record.slot}".rstrip()


def decision_dict(decision: DecisionDifference) -> dict[str, Any]:
    """Return a decision that differs as plain data for JSON; what is not finite becomes None."""
    return {
        "phase": decision.phase, "name": decision.name, "call": decision.call, "accepted": decision.accepted,
        "explained": decision.is_explained, "reading": decision.reading, "summary": decision_line(decision),
        "witness": witness_line(decision),
        "allowance": decision.allowance,
        "basis_gaps": {slot: finite(gap) for slot, gap in decision.gaps.items()},
        "trials": [
            {
                "decision": trial.decision, "numbers": trial.numbers, "quantity": trial.margin.quantity,
                "margin": finite(trial.margin.value), "explained": finite(trial.margin.allowed),
                "is_tie": trial.margin.is_tie, "witness": trial.margin.witness,
            }
            for trial in decision.trials
        ],
    }  # fmt: skip


def image_dict(image: ImageMatch) -> dict[str, Any]:
    """Return how the detections of an image pair as plain data for JSON."""
    return {
        "image": image.image, "legacy": image.counts[LEGACY], "new": image.counts[NEW], "matched": len(image.rows),
        "in_another_order": image.moved, "worst_iou": image.worst_iou, "score_gap": finite(image.score_gap),
        "unmatched": {
            side: [{**asdict(detection), "score": finite(detection.score)} for detection in image.unmatched[side]]
            for side in SIDES
        },
    }  # fmt: skip


def coverage_dict(coverage: Coverage) -> dict[str, Any]:
    """Return what was and was not compared as plain data for JSON, nothing cut."""
    return {
        "legacy_leaf_calls": coverage.legacy_leaf_calls,
        "paired_leaf_calls": coverage.paired_leaf_calls,
        "excluded_leaf_calls": coverage.excluded_leaf_calls,
        "excluded_records": len(coverage.excluded_records),
        "enclosed_records": len(coverage.enclosed_records),
        "compared_elsewhere": [unpaired_name(item) for item in coverage.explained_records],
        "unaccounted": [unpaired_name(item) for item in coverage.unaccounted],
        "never_executed": {side: list(names) for side, names in coverage.never_executed.items()},
        "lone_calls": [asdict(lone) for lone in coverage.lone_calls],
        "lone_modules": {side: list(names) for side, names in coverage.lone_modules.items()},
        "gradients_on_one_side": list(coverage.gradients_on_one_side),
        "permuted": dict(coverage.permuted),
        "in_part": dict(coverage.selected),
        "gradient_only_on": {side: list(names) for side, names in coverage.gradient_only_on.items()},
        "losses_only_on": {side: list(names) for side, names in coverage.losses_only_on.items()},
    }

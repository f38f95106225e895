"""Which classes a run has shown: among the final detections, and under made-up predictions in which each wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from converters.rules import layout
from converters.rules.class_rows import class_counts
from converters.rules.mapping import Mapping as NameMapping
from legacy_adapters.ground.words import counted
from legacy_adapters.tasks import made_up

from ..comparing.detections import Detections, results
from ..comparing.pairing import LEGACY, NEW
from ..traces.kinds import Kind
from ..traces.trace import Recording, Trace

SIDES = (LEGACY, NEW)


@dataclass(frozen=True)
class Relabelling:
    """A label of the legacy side's that the new side gives as another one.

    Attributes:
        legacy: the label.
        new: that of the new side, in the same rows.
        rows: in how many.
    """

    legacy: int
    new: int
    rows: int


@dataclass(frozen=True)
class LabelCoverage:
    """Labels among the detections of a run.

    Attributes:
        classes: how many classes the model tells apart; None if not known.
        detections: final detections of inference, by side.
        images: with such detections.
        detected: labels among them, whatever their score, by side.
        of_made_up: labels among the detections of inference with made-up predictions, by side; empty without it.
        relabelled: how labels differ there, the most frequent first.
        names: what the configs call the classes, in the order of their labels, by side; without a side that does not tell.
    """

    classes: int | None = None
    detections: Mapping[str, int] = field(default_factory=dict)
    images: int = 0
    detected: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    of_made_up: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    relabelled: tuple[Relabelling, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def misnaming(self) -> str:
        """Say which label the two configs call otherwise; empty if none, or if one of them does not tell."""
        one, two = (self.names.get(side) for side in SIDES)
        if one is None or two is None or one == two:
            return ""
        if len(one) != len(two):
            return f"The legacy config names {counted(len(one), 'class', 'classes')} and the new one {len(two)}."
        other = [label for label in range(len(one)) if one[label] != two[label]]
        first = f"The configs call label {other[0]} otherwise: `{one[other[0]]}` is `{two[other[0]]}` on the new side"
        return f"{first}, and {len(other) - 1} more." if len(other) > 1 else f"{first}."

    def objections(self) -> list[str]:
        """Say why label mapping was not compared where it should have been."""
        made = [side for side in SIDES if self.of_made_up.get(side)]
        if len(made) != 1:
            return []
        lacking = NEW if made == [LEGACY] else LEGACY
        text = f"Inference with made-up predictions was not made on the {lacking} side"
        return [f"{text}; label mapping is not compared."]

    def lines(self) -> list[str]:
        """Return what is said of labels in a report; without inference nothing but the names."""
        if not self.detections:
            return self._lines_of_names()
        of = f" of {self.classes}" if self.classes else ""
        counts = {side: len(self.detected[side]) for side in SIDES}
        classes = f"{counts[LEGACY]}{of}"
        if self.detected[LEGACY] != self.detected[NEW]:
            classes = f"{counts[LEGACY]} on the legacy and {counts[NEW]} on the new side{of}"
        detections = f"{counted(self.detections[LEGACY], 'detection')} in {counted(self.images, 'image')}"
        lines = [f"classes detected {classes}: labels of {detections}"]
        if any(self.of_made_up.values()):
            checked = len(set(self.of_made_up[LEGACY]) & set(self.of_made_up[NEW]))
            lines.append(f"label mapping checked for {checked}{of} classes, by made-up predictions")
        else:
            lines.append("label mapping not checked: no module is known to give class logits and boxes")
        return lines + self._lines_of_names() + [
            f"  label {one.legacy} is given as {one.new} ({counted(one.rows, 'made-up detection')})"
            for one in self.relabelled[:5]
        ]

    def _lines_of_names(self) -> list[str]:
        if len(self.names) == len(SIDES):
            return [self.misnaming or f"class names of both configs equal: {len(self.names[LEGACY])}"]
        silent = [side for side in SIDES if self.names and side not in self.names]
        return [f"class names not compared: the {side} config tells none" for side in silent]


def label_coverage(legacy: Recording, new: Trace, rules: NameMapping) -> LabelCoverage:
    """Count the classes that both sides' detections show."""
    detected = {side: results(of) for side, of in ((LEGACY, legacy), (NEW, new))}
    of_made_up = {side: results(of, made_up.PHASE, made_up.NAME) for side, of in ((LEGACY, legacy), (NEW, new))}
    classes = _classes(new, rules)
    told = {side: of.provenance.get("class_names") for side, of in ((LEGACY, legacy), (NEW, new))}
    names = {side: tuple(of) for side, of in told.items() if of}
    if not all(detected.values()):
        return LabelCoverage(classes=classes, names=names)
    return LabelCoverage(
        classes=classes,
        detections={side: sum(map(len, images.values())) for side, images in detected.items()},
        images=len(detected[LEGACY]),
        detected={side: _labels(images) for side, images in detected.items()},
        of_made_up={side: _labels(images) for side, images in of_made_up.items()},
        relabelled=_relabelled(of_made_up[LEGACY], of_made_up[NEW]),
        names=names,
    )


def _classes(new: Trace, rules: NameMapping) -> int | None:
    """Return how many classes the model tells apart: as it says itself, or as many as its tensors have rows."""
    if new.provenance.get("classes") is not None:
        return new.provenance["classes"]
    weights = {r.name: layout.TensorSpec(r.dtype, r.shape) for r in new.records if r.kind == Kind.PARAM}
    return min(class_counts(weights, rules.class_keys), default=None)


def _labels(images: Mapping[int, Detections]) -> tuple[int, ...]:
    return tuple(sorted({label for detections in images.values() for label in detections.labels.tolist()}))


def _relabelled(legacy: Mapping[int, Detections], new: Mapping[int, Detections]) -> tuple[Relabelling, ...]:
    """Count by row, in images of as many detections on both sides, what each label has become."""
    counts: Counter[tuple[int, int]] = Counter()
    for image in legacy.keys() & new.keys():
        if len(legacy[image]) == len(new[image]):
            counts.update(zip(legacy[image].labels.tolist(), new[image].labels.tolist()))
    changed = ((one, two, rows) for (one, two), rows in counts.most_common() if one != two)
    return tuple(Relabelling(*change) for change in changed)

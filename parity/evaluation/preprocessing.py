"""Compare what both sides' transforms make of the same image files, and name the first one that differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from converters.errors import listed
from legacy_adapters.ground.words import counted
from legacy_adapters.inputs import TEST, TRAINING
from legacy_adapters.recording.trace_writer import Record
from legacy_adapters.tasks.preprocessing import ERROR, LEFT_OUT, MEMBERS, PREPROCESSOR, is_of_generator, text_of

from ..comparing.pairing import LEGACY, NEW
from ..traces.trace import Trace
from ..verdict.outcome import EXIT_CODES, INCOMPARABLE, MATCH, MISMATCH
from .transforms import describe, short, twins_of

SIDES = (LEGACY, NEW)
#: A value of up to so many elements is a setting: it may be of another type, if it holds the same numbers.
_SMALL = 16

#: What one transform left of one image, by slot.
Values = Mapping[str, Record]


@dataclass(frozen=True)
class StepDifference:
    """Where an image's way through a pipeline parts first.

    Attributes:
        phase: ``test`` or ``training N``.
        transform: name on the new side; of one that only one side has, on that side.
        image: its number.
        slot: of what it leaves, that differs; empty if the transform is on one side only.
        note: how it differs.
    """

    phase: str
    transform: str
    image: int
    slot: str
    note: str


@dataclass
class StepCount:
    """What was compared of a transform.

    Attributes:
        pipeline: ``test`` or ``training``.
        transform: its name.
        images: how often both sides ran it.
        equal: how often all that it leaves was equal.
        first: how often a difference began there.
    """

    pipeline: str
    transform: str
    images: int = 0
    equal: int = 0
    first: int = 0


@dataclass(frozen=True)
class PreprocessingVerdict:
    """The outcome.

    Attributes:
        outcome: ``MATCH``, ``MISMATCH`` or ``INCOMPARABLE``.
        reasons: why it is not a match, one sentence each.
        notes: what else is worth knowing, one sentence each.
        steps: what was compared, in order.
        differences: of each image and phase that differs, the first.
        refused: image -> why both sides refuse it.
        values: how many values were compared.
        images: how many files there were.
        provenance: of each side.
    """

    outcome: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    steps: tuple[StepCount, ...]
    differences: tuple[StepDifference, ...]
    refused: Mapping[int, str]
    values: int
    images: int
    provenance: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    @property
    def first(self) -> StepDifference | None:
        """The difference at the earliest transform of the first pipeline that differs."""
        order = {(step.pipeline, step.transform): number for number, step in enumerate(self.steps)}
        return min(
            self.differences, key=lambda one: order.get((pipeline_of(one.phase), one.transform), len(order)), default=None
        )


def pipeline_of(phase: str) -> str:
    """Return which pipeline a phase is of."""
    return phase.partition(" ")[0]


def judge(legacy: Trace, new: Trace, names: Sequence[str]) -> PreprocessingVerdict:
    """Compare two recordings of :mod:`legacy_adapters.tasks.preprocessing`.

    Args:
        legacy: the old side's.
        new: the new side's.
        names: of the image files, by their number.

    Raises:
        parity.traces.trace.TraceError: if a tensor cannot be read.
    """
    return _Judging(legacy, new, names).verdict()


class _Judging:
    """Compare phase by phase and image by image."""

    def __init__(self, legacy: Trace, new: Trace, names: Sequence[str]) -> None:
        self._traces, self._names = {LEGACY: legacy, NEW: new}, names
        self._twins = {kind: twins_of(legacy, new, kind) for kind in (TEST, TRAINING)}
        self._steps: dict[tuple[str, str], StepCount] = {}
        self._found: list[StepDifference] = []
        self._refused: dict[int, str] = {}
        self._lone: dict[str, set[str]] = {side: set() for side in SIDES}
        self._values = 0

    def verdict(self) -> PreprocessingVerdict:
        """Return what the comparison shows."""
        runs = {side: _by_image(trace) for side, trace in self._traces.items()}
        for phase, image in runs[LEGACY]:
            own = {side: runs[side].get((phase, image), {}) for side in SIDES}
            self._compare(phase, image, own)
        settings = self._settings()
        notes, missing = tuple(self._notes(settings)), self._missing_pipelines()
        passed = sum(step.images for step in self._steps.values() if step.transform == PREPROCESSOR)
        if self._found:
            outcome, reasons = MISMATCH, tuple(self._reasons(settings))
        elif missing or not passed:
            outcome, reasons = INCOMPARABLE, missing or ("No image went through both pipelines to their end.",)
        else:
            outcome, reasons = MATCH, ()
        return PreprocessingVerdict(
            outcome, reasons, notes, self._in_order(), tuple(self._found), self._refused, self._values, len(self._names),
            {side: trace.provenance for side, trace in self._traces.items()},
        )  # fmt: skip

    def _in_order(self) -> tuple[StepCount, ...]:
        """Return what was compared, pipeline by pipeline, each transform behind those that it holds."""
        kinds = (TEST, TRAINING)

        def place(step: StepCount) -> tuple:
            parts = step.transform.split("/")
            numbers = [int(head) if (head := part.partition(".")[0]).isdigit() else 10**6 for part in parts]
            return kinds.index(step.pipeline), numbers + [10**6]  # inner ones first

        return tuple(sorted(self._steps.values(), key=place))

    def _compare(self, phase: str, image: int, own: Mapping[str, Mapping[str, Values]]) -> None:
        """Follow one image through one pipeline, to the first difference."""
        twins = self._twins[pipeline_of(phase)]
        lone: list[tuple[str, str]] = []
        seen: set[str] = set()
        for name, values in own[LEGACY].items():
            twin = twins.of(name)
            if twin is None:
                lone.append((LEGACY, name))
            if twin is None or twin not in own[NEW]:
                continue  # another way was chosen inside a transform, whose own result tells
            lone += [(NEW, other) for other in _before(own[NEW], twin) if other not in seen and twins.is_lone(other)]
            seen |= {*_before(own[NEW], twin), twin}
            step = self._steps.setdefault((pipeline_of(phase), twin), StepCount(pipeline_of(phase), twin))
            step.images += 1
            difference = self._difference(phase, image, twin, values, own[NEW][twin])
            if difference is None:
                step.equal += 1
                if ERROR in values:
                    self._refused.setdefault(image, f"{twin}: {self._text(LEGACY, values[ERROR])}")
                for side, other in lone:  # what follows is equal
                    self._lone[side].add(other)
                lone = []
                continue
            if twin == PREPROCESSOR and self._mates(phase, image, values) & self._differing(phase):
                return  # the other image of the batch differs, and that is told there
            step.first += 1
            if name.partition(".")[2] != twin.partition(".")[2]:
                difference = replace(difference, note=f"{difference.note} (the legacy side has {name} in its place)")
            self._found.append(self._cause(phase, image, lone, difference))
            return
        if lone and any(side == LEGACY for side, _ in lone):
            self._found.append(self._cause(phase, image, lone, None))

    def _mates(self, phase: str, image: int, values: Values) -> set[int]:
        """Return the other images of a batch."""
        members = (record for slot, record in values.items() if slot.split(".")[0] == MEMBERS)
        return {int(self._traces[LEGACY].tensor(record).item()) for record in members} - {image}

    def _differing(self, phase: str) -> set[int]:
        return {one.image for one in self._found if one.phase == phase}

    def _cause(
        self, phase: str, image: int, lone: Sequence[tuple[str, str]], difference: StepDifference | None
    ) -> StepDifference:
        """Blame a transform that one side alone has, if the first difference is right behind it."""
        if not lone and difference is not None:
            return difference
        side, name = lone[0]
        what = f"is on the {side} side only" if difference is None else (
            f"is on the {side} side only; behind it {difference.transform} leaves another {difference.slot}: {difference.note}"
        )
        return StepDifference(phase, name, image, "", what)

    def _difference(self, phase: str, image: int, name: str, legacy: Values, new: Values) -> StepDifference | None:
        """Return the first difference of what one transform left; images come first, states of generators last."""
        slots = sorted(legacy.keys() | new.keys(), key=lambda slot: (is_of_generator(slot), slot not in ("img", "inputs")))
        for slot in slots:
            one, two = legacy.get(slot), new.get(slot)
            if one is None or two is None:
                note = self._lone_slot(name, slot, LEGACY if two is None else NEW, one or two)
                if note:
                    return StepDifference(phase, name, image, slot, note)
                continue
            self._values += 1
            if one.digest != two.digest and (note := self._note(slot, one, two)):
                return StepDifference(phase, name, image, slot, note)
        return None

    def _lone_slot(self, name: str, slot: str, side: str, record: Record) -> str:
        """Say why a value that only one side leaves counts; empty if it does not: it may keep more by the way."""
        if slot == ERROR:
            return f"only the {side} side fails: {self._text(side, record)}"
        if slot == LEFT_OUT:
            return f"only the {side} side leaves the image out"
        if name == PREPROCESSOR:
            return f"the {side} side alone gives it to the model"
        self._lone[side].add(f"{name} {slot}")
        return ""

    def _note(self, slot: str, legacy: Record, new: Record) -> str:
        """Say how two values differ; empty if they hold the same numbers as another type."""
        one, two = (self._traces[side].tensor(record) for side, record in ((LEGACY, legacy), (NEW, new)))
        if slot == ERROR:
            return ""  # both refuse the image, each in its own words
        if is_of_generator(slot):
            return "other random numbers were drawn"
        if one.numel() <= _SMALL and one.numel() == two.numel() and torch.equal(
            one.double().reshape(-1), two.double().reshape(-1)
        ):
            return ""
        if one.dtype == torch.uint8 and one.dim() == 1 and two.dtype == torch.uint8 and two.dim() == 1:
            return f"{self._text(LEGACY, legacy)!r} became {self._text(NEW, new)!r}"
        if slot == "inputs" and legacy.name == PREPROCESSOR and self._is_swapped(one, two):
            return "the three channels come in the opposite order before they are normalised"
        return describe(one, two)

    def _is_swapped(self, legacy: Tensor, new: Tensor) -> bool:
        """Tell whether inputs [bs, 3, h, w] are of the same pixels with their channels in the opposite order."""
        if legacy.shape != new.shape or legacy.dim() != 4 or legacy.size(1) != 3:
            return False
        pixels = []
        for side, tensor in ((LEGACY, legacy), (NEW, new)):
            given = {r.slot: r for r in self._traces[side].records if r.phase == "settings"}
            if "mean" not in given or "std" not in given:
                return False
            mean, std = (self._traces[side].tensor(given[slot]).double().reshape(1, -1, 1, 1) for slot in ("mean", "std"))
            pixels.append(tensor.double() * std + mean)
        is_padding = ((legacy == 0) & (new == 0)).all(1, keepdim=True)
        return bool((((pixels[0] - pixels[1].flip(1)).abs() < 0.01) | is_padding).all())

    def _text(self, side: str, record: Record) -> str:
        return text_of(self._traces[side].tensor(record).numpy())

    def _settings(self) -> list[str]:
        """Say which settings of the preprocessors differ."""
        sides = {
            side: {r.slot: r for r in trace.records if r.phase == "settings"} for side, trace in self._traces.items()
        }
        said = []
        for slot in sorted(sides[LEGACY].keys() | sides[NEW].keys()):
            one, two = (sides[side].get(slot) for side in SIDES)
            if one is not None and two is not None and one.digest == two.digest:
                continue
            told = [
                "not set" if r is None else short(self._traces[side].tensor(r)) for side, r in ((LEGACY, one), (NEW, two))
            ]
            if told[0] != told[1]:
                said.append(f"`{slot}` {told[0]} became {told[1]}")
        return said

    def _missing_pipelines(self) -> tuple[str, ...]:
        kinds = {side: set(trace.provenance.get("transforms", ())) for side, trace in self._traces.items()}
        lone = sorted(kinds[LEGACY] ^ kinds[NEW])
        return tuple(f"Only one side has a {kind} pipeline." for kind in lone)

    def _reasons(self, settings: Sequence[str]) -> Iterator[str]:
        images = {one.image for one in self._found}
        yield f"{len(images)} of {counted(len(self._names), 'image')} differ{'s' * (len(images) == 1)}."
        if settings:
            yield f"Settings of the preprocessor differ: {', '.join(settings)}."

    def _notes(self, settings: Sequence[str]) -> Iterator[str]:
        if settings and not self._found:
            yield f"Settings of the preprocessor differ without an effect: {', '.join(settings)}."
        for side, lone in self._lone.items():
            if lone:
                yield f"On the {side} side only, without an effect on what follows: {listed(sorted(lone))}."
        versions = {side: trace.provenance.get("packages", {}) for side, trace in self._traces.items()}
        for name in ("cv2", "numpy", "PIL"):
            told = [versions[side].get(name, {}).get("version") for side in SIDES]
            if None not in told and told[0] != told[1]:
                yield f"{name} is {told[0]} on the legacy side and {told[1]} on the new one."


def _by_image(trace: Trace) -> dict[tuple[str, int], dict[str, dict[str, Record]]]:
    """Return phase and image -> transform -> slot -> record, in the order in which they ran."""
    found: dict[tuple[str, int], dict[str, dict[str, Record]]] = {}
    for record in trace.records:
        if pipeline_of(record.phase) in (TEST, TRAINING):
            found.setdefault((record.phase, record.call), {}).setdefault(record.name, {})[record.slot] = record
    return found


def _before(values: Mapping[str, Values], name: str) -> list[str]:
    names = list(values)
    return names[: names.index(name)]

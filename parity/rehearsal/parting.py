"""Where two trainings part, and why: their step logs compared, in the order in which a step computes things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from legacy_adapters.whole.steplog import Step

#: Field of a step -> what it means if that is the first to differ, all before it being equal.
CAUSES = {
    "images": "the order of the data: other images come in this step",
    "pixels": "augmentation or loading: the same images come with other pixels",
    "objects": "augmentation or annotations: the same pixels come with other boxes or labels",
    "rates": "the schedule: the learning rates differ",
    "before": "the weights that the step begins with, though the step before ended with equal ones",
    "terms": "the model: losses differ with equal weights, images and objects; a draw or a computation",
    "total": "the sum of the losses: all terms are equal",
    "norm": "the gradient or the order in which its norm is summed: all losses are equal",
    "after": "the update: optimizer or clipping, with equal losses, norm and rates",
}
UPDATE_BY_NORM = "the order in which the norm of the gradient is summed: its last bits, and nothing before them, differ"
_ULPS = 16  # a norm whose sum is rounded otherwise is that close, in units of float32


@dataclass(frozen=True)
class Parting:
    """How far two trainings are the same.

    Attributes:
        compared: steps that both logs have.
        equal: how many of them, from the first on, are equal in every bit of every field.
        step: number of the first that differs; None if none does.
        field: of it that is the first to differ; see :data:`CAUSES`.
        cause: in words; empty if none differs.
        detail: the two values, or the loss terms that differ.
        same_losses: how many steps, from the first on, have the same losses, whatever else.
    """

    compared: int
    equal: int
    step: int | None
    field: str | None
    cause: str
    detail: str
    same_losses: int

    @property
    def identical(self) -> bool:
        """Whether there is something to compare and nothing differs."""
        return self.compared > 0 and self.step is None


def part(one: Sequence[Step], other: Sequence[Step]) -> Parting:
    """Compare two logs, step by step of the same number.

    Args:
        one: of the training that is the reference.
        other: of the other one; it may begin later, or end earlier.
    """
    by_number = {step.step: step for step in one}
    pairs = [(by_number[step.step], step) for step in other if step.step in by_number]
    same_losses = next((i for i, (a, b) in enumerate(pairs) if a.terms != b.terms), len(pairs))
    for count, (a, b) in enumerate(pairs):
        differing = next((f.name for f in fields(Step) if getattr(a, f.name) != getattr(b, f.name)), None)
        if differing is not None:
            cause = UPDATE_BY_NORM if differing == "norm" and _only_rounding(a.norm, b.norm) else CAUSES[differing]
            return Parting(len(pairs), count, b.step, differing, cause, _detail(a, b, differing), same_losses)
    return Parting(len(pairs), len(pairs), None, None, "", "", same_losses)


def _only_rounding(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return False
    a, b = float.fromhex(one), float.fromhex(other)
    return abs(a - b) <= _ULPS * 2.0**-24 * max(abs(a), abs(b))


def _detail(a: Step, b: Step, field: str) -> str:
    if field == "terms":
        names = sorted(name for name in {*a.terms, *b.terms} if a.terms.get(name) != b.terms.get(name))
        first = names[0]
        return f"{len(names)} of {len(a.terms)} terms, {first} {_number(a.terms.get(first))} and {_number(b.terms.get(first))}"
    one, other = getattr(a, field), getattr(b, field)
    if field == "images":
        return f"ids {', '.join(map(str, one))} and {', '.join(map(str, other))}"
    if field == "rates":
        return f"{', '.join(map(_number, one))} and {', '.join(map(_number, other))}"
    return f"{_number(one)} and {_number(other)}" if field in ("total", "norm") else f"digests {one} and {other}"


def _number(value: str | None) -> str:
    return "none" if value is None else f"{float.fromhex(value):.9g}"

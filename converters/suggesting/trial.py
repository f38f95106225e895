"""Try rules on two models: convert the weights of A, run B, and compare what both give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import prod
from typing import TYPE_CHECKING, Any

from converters.formats.stored import StoredTensor
from converters.rules.kinds import Rule
from converters.rules.values import applied
from converters.suggesting.choices import Choice
from converters.suggesting.flows import first_missing
from converters.suggesting.links import Link
from converters.suggesting.process import ModelProcess, Run, RunError

if TYPE_CHECKING:
    import numpy as np

MOST_RUNS = 600
_TOLERANCE = {True: 1e-9, False: 1e-4}  # of differences, relative to the largest number; in float64, in float32


@dataclass(frozen=True)
class Picked:
    """A question and the number of the answer that was picked."""

    choice: Choice
    number: int

    def links(self, known: str, reason: str) -> list[Link]:
        """Return the answer as links."""
        return [Link(rule, known, reason) for rule in self.choice.options[self.number]]


@dataclass(frozen=True)
class End:
    """What the last runs say.

    Attributes:
        is_equal: The outputs of both models are equal but for rounding.
        sentence: That in words.
        picked: The questions with the one answer with which they are.
        undecided: The questions that have several such answers.
    """

    is_equal: bool
    sentence: str
    picked: tuple[Picked, ...] = ()
    undecided: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class Gap:
    """How far outputs are from each other: the largest difference, None where it cannot be told, and largest number."""

    largest: float | None
    scale: float


class Trial:
    """Both models, and what is tried with them."""

    def __init__(
        self, one: ModelProcess, other: ModelProcess, weights: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray],
        inputs: tuple[Any, Any],
    ) -> None:  # fmt: skip
        """Run both once, in float64 if that is possible.

        Args:
            one, other: The models.
            weights: Of A.
            own: Of B, for what has no rule.
            inputs: Of A and of B.

        Raises:
            RunError: If one of them cannot be run.
        """
        self._other, self._weights, self._own, self._inputs = other, weights, own, inputs
        self.runs = 0
        self._set: dict[str, Rule] = {}
        try:
            other.run({}, inputs[1], True)
            self.precise, self.reference = True, one.run({}, inputs[0], True, True)
        except RunError:
            other.run({}, inputs[1], False)
            self.precise, self.reference = False, one.run({}, inputs[0], False, True)

    @cached_property
    def idle(self) -> frozenset[str]:
        """The parameters of A that its outputs do not depend on."""
        return frozenset(self.reference.idle)

    def run(self, rules: Iterable[Rule]) -> Run:
        """Run B with the weights that rules make of those of A, and its own where no rule makes any."""
        import numpy as np

        self.runs += 1
        wanted = {key: rule for rule in rules for key in rule.targets}
        changed = {key: self._own[key] for key in self._set.keys() - wanted.keys()}
        for rule in {id(rule): rule for key, rule in wanted.items() if self._set.get(key) != rule}.values():
            sources = [self._weights[key] for key in rule.sources]
            stored = [StoredTensor.of(str(value.dtype), value.shape, value.tobytes()) for value in sources]
            for key, tensor in zip(rule.targets, applied(rule, stored)):
                changed[key] = np.frombuffer(tensor.data(), sources[0].dtype).reshape(tensor.shape)
        self._set = wanted
        return self._other.run(changed, self._inputs[1], self.precise)

    def end(self, fixed: Sequence[Rule], picked: Sequence[Picked], rest: Sequence[Choice]) -> End:
        """Compare outputs, find answers to the questions that are left, and see which could be others.

        Args:
            fixed: The rules that are no answer to a question.
            picked: Questions with their answers.
            rest: Questions without.
        """
        choices = (*(pick.choice for pick in picked), *rest)
        numbers = [*(pick.number for pick in picked), *([0] * len(rest))]
        gap = self._gap(fixed, choices, numbers)
        count = prod(len(choice.options) for choice in rest)
        if not self._is_equal(gap) and 1 < count <= MOST_RUNS:
            for tail in product(*(range(len(choice.options)) for choice in rest)):
                tried = [*numbers[: len(picked)], *tail]
                found = self._gap(fixed, choices, tried)
                if self._is_equal(found):
                    numbers, gap = tried, found
                    break
        if not self._is_equal(gap):
            return End(False, self._unequal(gap, fixed, choices, numbers))
        free = self._free(fixed, choices, numbers)
        pairs = list(enumerate(zip(choices, numbers)))
        return End(
            True,
            self._equal(gap) + (" So it does with other answers to what is open." if free else ""),
            tuple(Picked(choice, number) for at, (choice, number) in pairs if at not in free),
            tuple(choice for at, (choice, _) in pairs if at in free),
        )

    def _free(self, fixed: Sequence[Rule], choices: Sequence[Choice], numbers: Sequence[int]) -> set[int]:
        """Return the questions that have other answers, or none, with which the outputs are equal as well."""
        free: set[int] = set()
        begun = self.runs
        for other in self._others(choices, numbers):
            if self.runs - begun > MOST_RUNS:
                return set(range(len(choices)))
            changed = {at for at, number in enumerate(other) if number != numbers[at]}
            if not changed <= free and self._is_equal(self._gap(fixed, choices, other)):
                free |= changed
        return free

    @staticmethod
    def _others(choices: Sequence[Choice], numbers: Sequence[int]) -> Iterator[list[int | None]]:
        """Yield all other answers if they are few, or else those to one question or two; None is no answer."""
        for at in range(len(choices)):
            yield [*numbers[:at], None, *numbers[at + 1 :]]
        if prod(len(choice.options) for choice in choices) <= MOST_RUNS:
            yield from (list(all_) for all_ in product(*(range(len(choice.options)) for choice in choices)))
            return
        for count in (1, 2):
            for places in combinations(range(len(choices)), count):
                for options in product(*(range(len(choices[at].options)) for at in places)):
                    if all(option != numbers[at] for at, option in zip(places, options)):
                        other: list[int | None] = list(numbers)
                        for at, option in zip(places, options):
                            other[at] = option
                        yield other

    def _gap(self, fixed: Sequence[Rule], choices: Sequence[Choice], numbers: Sequence[int | None]) -> Gap:
        import numpy as np

        ours, theirs = self.reference.outputs, self._answered(fixed, choices, numbers).outputs
        scale = max((float(np.abs(out).max()) for out in ours if out.size), default=0.0)
        if not ours or [out.shape for out in ours] != [out.shape for out in theirs]:
            return Gap(None, scale)
        gaps = [float(np.abs(one - other).max()) for one, other in zip(ours, theirs) if one.size]
        return Gap(max(gaps, default=0.0) if all(gap == gap for gap in gaps) else float("inf"), scale)

    def _answered(self, fixed: Sequence[Rule], choices: Sequence[Choice], numbers: Sequence[int | None]) -> Run:
        answers = [rule for choice, at in zip(choices, numbers) if at is not None for rule in choice.options[at]]
        return self.run([*fixed, *answers])

    def _is_equal(self, gap: Gap) -> bool:
        return gap.largest is not None and gap.scale > 0 and gap.largest <= _TOLERANCE[self.precise] * gap.scale

    def _equal(self, gap: Gap) -> str:
        digits = "float64" if self.precise else "float32"
        idle = len(self.idle)
        rest = f" {idle} parameters of A have no effect on them; of these the run says nothing." if idle else ""
        return (
            "with the weights of A by these rules, B gives the outputs of A. The largest of all differences, in "
            f"{digits}, is {gap.largest:.2g}, of numbers up to {gap.scale:.3g}.{rest}"
        )

    def _unequal(self, gap: Gap, fixed: Sequence[Rule], choices: Sequence[Choice], numbers: Sequence[int]) -> str:
        if gap.largest is None:
            return "none, for the outputs of the two models have other numbers or shapes"
        first = first_missing(self.reference, self._answered(fixed, choices, numbers))
        where = f"; the first module of A whose result B does not have is `{first}`" if first else ""
        return (
            f"none; with the weights of A, the outputs of B differ by up to {gap.largest:.3g}, of numbers up to "
            f"{gap.scale:.3g}{where}. Nothing that is open was decided by running the models."
        )

"""Try rules on two models: convert the weights of A, run B, and compare what both give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import prod
from typing import TYPE_CHECKING, Any

from converters.formats.stored import StoredTensor
from converters.rules.kinds import Rule
from converters.rules.values import applied
from converters.suggesting.choices import Choice
from converters.suggesting.drawing import drawn
from converters.suggesting.flows import changed_results, first_missing, first_other, has_any, share_of
from converters.suggesting.gaps import Gap, gap_of
from converters.suggesting.links import Link
from converters.suggesting.process import ModelProcess, Run, RunError

if TYPE_CHECKING:
    import numpy as np

MOST_RUNS = 600
_BLANK, _NOTHING = "all outputs of A are 0 or not finite", "no tensors were found in what A returns"
_MOST_ALL = 128  # answers to all questions together that are all tried
_MOST_MOVED = 64  # weights without effect on the outputs of which it is tried whether they have one elsewhere


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
        undecided: The questions that have several such answers, or all where not every answer was tried.
        beside: Answers to these with which the outputs are equal.
        first: The first module of A whose output is another one in B, if one is known.
        fault: Why they are not equal, in a phrase; of no use where they are.
        is_whole: Whether every other answer was tried; False where these were too many.
    """

    is_equal: bool
    sentence: str
    picked: tuple[Picked, ...] = ()
    undecided: tuple[Choice, ...] = ()
    beside: tuple[Rule, ...] = ()
    first: str | None = None
    fault: str = "the outputs of both models differ"
    is_whole: bool = True


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
        self._one, self._other, self._weights, self._own = one, other, weights, own
        self._inputs = [inputs]
        self.runs = 0
        self._set: dict[str, Rule] = {}
        try:
            other.run({}, inputs[1], True)
            self.precise, self.reference = True, one.run({}, inputs[0], True, True)
        except RunError:
            other.run({}, inputs[1], False)
            self.precise, self.reference = False, one.run({}, inputs[0], False, True)
        if self.reference.idle:
            self._draw()
        self.idle: frozenset[str] = frozenset(self.reference.idle)

    def _draw(self) -> None:
        """Run both with random inputs in addition, if these show an effect of weights that have none otherwise."""
        import numpy as np

        more = drawn(self._inputs[0])
        if more is None:
            return
        try:
            self._other.run({}, more[1], self.precise)
            second = self._one.run({}, more[0], self.precise, True)
        except RunError:
            return
        if set(self.reference.idle) <= set(second.idle) or not all(np.isfinite(out).all() for out in second.outputs):
            return
        idle = tuple(name for name in self.reference.idle if name in second.idle)
        self._inputs.append(more)
        self.reference = replace(_joined([self.reference, second]), idle=idle)

    @property
    def is_drawn(self) -> bool:
        """Tell whether both are run with random inputs in addition."""
        return len(self._inputs) > 1

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
        first, *others = self._inputs
        runs = [self._other.run(changed, first[1], self.precise)]
        return _joined([*runs, *(self._other.run({}, inputs[1], self.precise) for inputs in others)])

    def blind(
        self, rules: Sequence[Rule], beside: Sequence[Rule], flips: Mapping[str, Sequence[Rule]]
    ) -> dict[str, Rule]:
        """Return the keys of A of which another rule gives the same outputs, and no module other results.

        Args:
            rules, beside: With which the outputs are equal; those beside are answers of several that are.
            flips: By key of A what else its rule could be.
        """
        share = share_of(self.reference, self.run([*rules, *beside]))
        found = {}
        for key, others in flips.items():
            kept = [rule for rule in rules if key not in rule.sources]
            for other in others:
                run = self.run([*kept, *beside, other])
                if self.gap(run).is_equal and share_of(self.reference, run) >= share:
                    found[key] = other
                    break
        return found

    def unproven(self, rules: Sequence[Rule], beside: Sequence[Rule]) -> tuple[str, ...]:
        """Return the keys of A whose numbers change neither an output nor a result that B has, too.

        Args:
            rules, beside: With which the outputs are equal; those beside are not asked about.
        """
        import numpy as np

        doubtful = []
        for rule in rules:
            idle = [key for key in rule.sources if rule.targets and key in self.idle]
            # of several that become one, the place of the last follows from those of the others
            doubtful += idle if len(idle) > 1 or len(rule.sources) == 1 else []
        final = self.run([*rules, *beside]) if doubtful else None
        generator = np.random.default_rng(0)
        found = list(doubtful[_MOST_MOVED:])
        for key in doubtful[:_MOST_MOVED]:
            value = self._weights[key]
            moved = value + (np.abs(value).max(initial=0.0) or 1.0) * generator.standard_normal(value.shape)
            try:
                after = self._run_one({key: moved.astype(value.dtype)})
            finally:
                self._run_one({key: value})
            results = changed_results(self.reference, after)
            if self.gap(after).is_equal and not has_any(final, results):
                found.append(key)
        return tuple(found)

    def _run_one(self, changed: Mapping[str, np.ndarray]) -> Run:
        first, *others = self._inputs
        runs = [self._one.run(changed, first[0], self.precise)]
        return _joined([*runs, *(self._one.run({}, inputs[0], self.precise) for inputs in others)])

    def gap(self, run: Run) -> Gap:
        """Compare the outputs of a run with those of A."""
        return gap_of(self.reference.outputs, run.outputs, self.precise)

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
        if not gap.is_equal and 1 < count <= MOST_RUNS:
            for tail in product(*(range(len(choice.options)) for choice in rest)):
                tried = [*numbers[: len(picked)], *tail]
                found = self._gap(fixed, choices, tried)
                if found.is_equal:
                    numbers, gap = tried, found
                    break
        if not gap.is_equal:
            answers = [rule for choice, at in zip(choices, numbers) for rule in choice.options[at]]
            return self._unequal(gap, self._answered(fixed, choices, numbers), [*fixed, *answers])
        others = self._free(fixed, choices, numbers)
        free = set(range(len(choices))) if others is None else others
        more = " So it does with other answers to what is open." if free else ""
        more = " Other answers to what is open are too many to try them all." if others is None else more
        pairs = list(enumerate(zip(choices, numbers)))
        return End(
            True,
            self._equal(gap) + more,
            tuple(Picked(choice, number) for at, (choice, number) in pairs if at not in free),
            tuple(choice for at, (choice, _) in pairs if at in free),
            tuple(rule for at, (choice, number) in pairs if at in free for rule in choice.options[number]),
            is_whole=others is not None,
        )

    def _free(self, fixed: Sequence[Rule], choices: Sequence[Choice], numbers: Sequence[int]) -> set[int] | None:
        """Return the questions that have other answers, or none, with which the outputs are equal as well.

        None where there are too many answers to try them all.
        """
        free: set[int] = set()
        begun = self.runs
        for other in self._others(choices, numbers):
            if self.runs - begun > MOST_RUNS:
                return None
            changed = {at for at, number in enumerate(other) if number != numbers[at]}
            if not changed <= free and self._gap(fixed, choices, other).is_equal:
                free |= changed
        return free

    @staticmethod
    def _others(choices: Sequence[Choice], numbers: Sequence[int]) -> Iterator[list[int | None]]:
        """Yield all other answers if they are few, or else those to one question or two; None is no answer."""
        for at in range(len(choices)):
            yield [*numbers[:at], None, *numbers[at + 1 :]]
        if prod(len(choice.options) for choice in choices) <= _MOST_ALL:
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
        return self.gap(self._answered(fixed, choices, numbers))

    def _answered(self, fixed: Sequence[Rule], choices: Sequence[Choice], numbers: Sequence[int | None]) -> Run:
        answers = [rule for choice, at in zip(choices, numbers) if at is not None for rule in choice.options[at]]
        return self.run([*fixed, *answers])

    def _equal(self, gap: Gap) -> str:
        digits = "float64" if self.precise else "float32"
        more = " Random inputs of the same shapes were tried, too." if self.is_drawn else ""
        return (
            "with the weights of A by these rules, B gives the outputs of A. The largest of all differences, in "
            f"{digits}, is {gap.largest:.2g}, of numbers up to {gap.scale:.3g}.{more}"
        )

    def _unequal(self, gap: Gap, run: Run, rules: Sequence[Rule]) -> End:
        if not self.reference.outputs:
            return End(False, f"none, for {_NOTHING}", fault=_NOTHING)
        if gap.largest is None:
            return End(False, "none, for the outputs of the two models have other numbers or shapes")
        if not gap.scale:
            return End(False, f"none, for {_BLANK}", fault=_BLANK)
        other = first_other(self.reference, run, _counterparts(rules, self._weights, self._own))
        missing = first_missing(self.reference, run)
        where = f"; the first module of A whose result B does not have is `{missing}`" if missing else ""
        where = f"; the first module whose output differs is `{other}`" if other else where
        largest = f"{gap.largest:.3g}" if gap.largest != float("inf") else "more than can be told"
        sentence = (
            f"none; with the weights of A, the outputs of B differ by up to {largest}, of numbers up to "
            f"{gap.scale:.3g}{where}. Nothing that is open was decided by running the models."
        )
        return End(False, sentence, first=other or missing)


def _joined(runs: Sequence[Run]) -> Run:
    """Return several runs as one, with the idle parameters of the first."""
    return Run(
        tuple(out for run in runs for out in run.outputs), tuple(call for run in runs for call in run.calls),
        runs[0].idle,
    )  # fmt: skip


def _counterparts(rules: Iterable[Rule], a: Iterable[str], b: Iterable[str]) -> dict[str, str]:
    """Return the modules of A whose own tensors are those of one module of B, and no others, with that one."""
    to: dict[str, set[str]] = {}
    back: dict[str, set[str]] = {}
    for rule in rules:
        for source in rule.sources:
            for target in rule.targets:
                one, other = source.rpartition(".")[0], target.rpartition(".")[0]
                to.setdefault(one, set()).add(other)
                back.setdefault(other, set()).add(one)
    linked = {key for rule in rules for key in (*rule.sources, *rule.targets)}
    loose = {key.rpartition(".")[0] for key in (*a, *b) if key not in linked}
    return {
        one: next(iter(others))
        for one, others in to.items()
        if len(others) == 1 and back[next(iter(others))] == {one} and one and not {one, *others} & loose
    }

"""Suggest rules for two models that can be run: what names leave open is tried, and the outputs are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.formats.stored import StoredTensor
from converters.rules.kinds import Rule
from converters.rules.values import applied
from converters.suggesting import finding
from converters.suggesting.choices import Choice, choices_of
from converters.suggesting.links import RUN, Findings, Link
from converters.suggesting.process import ModelProcess, Run, RunError
from converters.suggesting.suggestion import Suggestion, told
from converters.suggesting.tensors import Held, Side

if TYPE_CHECKING:
    import numpy as np

_SEEDS = (1, 2)
_TOLERANCE = {True: 1e-9, False: 1e-4}  # of differences, relative to the largest number; in float64, in float32
_MOST_RUNS = 600
_DIGITS = {True: 1e-7, False: 1e-3}  # relative differences up to which two calls give the same
_NO_INPUTS = "neither file has a function inputs(), which returns what the model is called with"


def suggest_models(a: str | Path, b: str | Path) -> Suggestion:
    """Propose rules from the keys of one model to those of another, both of which Python files build.

    Args:
        a, b: Files with `build()`, and one of them or both with `inputs()`.

    Raises:
        CheckpointError: If a file has no model that can be built.
    """
    with ModelProcess(a, _SEEDS[0]) as one, ModelProcess(b, _SEEDS[1]) as other:
        weights = one.state()
        sides = _side("A", weights), _side("B", other.state())
        found = replace(finding.find(*sides), notes=())
        try:
            found, proof = _Trial(one, other, sides, weights, found).proven()
        except RunError as error:
            proof = f"none, for the models were not both run: {error}"
        return told(*sides, found, str(a), str(b), proof)


def _side(name: str, weights: Mapping[str, np.ndarray]) -> Side:
    return Side(name, {key: Held(key, str(value.dtype), value.shape, None) for key, value in weights.items()})


@dataclass(frozen=True)
class _Gap:
    """How far outputs are from each other.

    Attributes:
        largest: The largest difference; None where they cannot be compared.
        scale: The largest number of the first.
    """

    largest: float | None
    scale: float


class _Trial:
    """Both models, and what is tried with them."""

    def __init__(
        self, one: ModelProcess, other: ModelProcess, sides: tuple[Side, Side], weights: Mapping[str, np.ndarray],
        found: Findings,
    ) -> None:  # fmt: skip
        self.one, self.other, self.sides, self.weights, self.found = one, other, sides, weights, found
        self.choices = choices_of(found.opens)
        self.runs = 0
        self.inputs = self._inputs()
        self.precise, self.reference = self._reference()

    def _inputs(self) -> tuple[Any, Any]:
        of_a, of_b = self.one.inputs(), self.other.inputs()
        if of_a is None and of_b is None:
            raise RunError(_NO_INPUTS)
        return (of_b if of_a is None else of_a), (of_a if of_b is None else of_b)

    def _reference(self) -> tuple[bool, Run]:
        """Run A, in float64 if both can be."""
        try:
            self.other.run({}, self.inputs[1], True)
            return True, self.one.run({}, self.inputs[0], True, True)
        except RunError:
            self.other.run({}, self.inputs[1], False)
            return False, self.one.run({}, self.inputs[0], False, True)

    def proven(self) -> tuple[Findings, str]:
        """Return the findings with what the runs decide, and what the last run says."""
        picks = self._climb([0] * len(self.choices))
        gap = self._gap(picks)
        if not self._is_equal(gap) and self._combinations() <= _MOST_RUNS - self.runs:
            picks = next((all_ for all_ in self._all() if self._is_equal(self._gap(all_))), picks)
            gap = self._gap(picks)
        if not self._is_equal(gap):
            return self.found, self._unequal(gap, picks)
        decided = self._decided(picks)
        links = [
            Link(rule, RUN, "of all that fits, the outputs are equal with this alone")
            for number in decided
            for rule in self.choices[number].options[picks[number]]
        ]
        settled = {id(item) for number in decided for item in self.choices[number].opens}
        opens = tuple(
            replace(item, reason=f"{item.reason}, and the outputs are equal with more than one")
            if any(id(item) in map(id, choice.opens) for choice in self.choices)
            else item
            for item in self.found.opens
            if id(item) not in settled
        )
        return replace(self.found, links=(*self.found.links, *links), opens=opens), self._equal(gap)

    def _equal(self, gap: _Gap) -> str:
        digits = "float64" if self.precise else "float32"
        idle = len(self.reference.idle)
        rest = f" {idle} parameters have no effect on the outputs; of them it proves nothing." if idle else ""
        return (
            f"with the weights of A by these rules, B gives the outputs of A: the largest of all differences in {digits} is "
            f"{gap.largest:.3g}, of numbers up to {gap.scale:.3g}.{rest}"
        )

    def _unequal(self, gap: _Gap, picks: Sequence[int]) -> str:
        if gap.largest is None:
            return "none, for the outputs of the two models have other numbers or shapes"
        found = _told(self._run(picks))
        first = next((path for path, call in self.reference.calls if not self._is_in(call, found)), None)
        where = f"; the first module of A whose result B does not have is `{first}`" if first else ""
        return (
            f"none; with the weights of A by these rules, the outputs of B differ by up to {gap.largest:.3g}, of numbers up "
            f"to {gap.scale:.3g}{where}. Nothing that is open was decided by it"
        )

    def _climb(self, picks: list[int]) -> list[int]:
        """Choose, one question after the other, what makes most modules of B give what a module of A gives."""
        for _ in range(3):
            before = list(picks)
            for number, choice in enumerate(self.choices):
                scores = []
                for option in range(len(choice.options)):
                    if self.runs >= _MOST_RUNS:
                        return picks
                    scores.append(self._score([*picks[:number], option, *picks[number + 1 :]]))
                picks[number] = max(range(len(scores)), key=scores.__getitem__)
            if picks == before:
                break
        return picks

    def _score(self, picks: Sequence[int]) -> int:
        found = _told(self._run(picks))
        return sum(self._is_in(call, found) for _, call in self.reference.calls)

    def _is_in(self, call: tuple[float, ...], found: Mapping[float, list[tuple[float, ...]]]) -> bool:
        near = _DIGITS[self.precise]
        return any(
            all(abs(one - other) <= near * abs(one) for one, other in zip(call, held)) for held in found.get(call[0], ())
        )

    def _decided(self, picks: Sequence[int]) -> list[int]:
        """Return the questions whose answer no other answers could take the place of."""
        free: set[int] = set()
        if self._combinations() <= _MOST_RUNS:
            others = (all_ for all_ in self._all() if list(all_) != list(picks))
        else:
            others = self._near(picks)
        for other in others:
            if self.runs >= 2 * _MOST_RUNS:
                return []
            if self._is_equal(self._gap(other)):
                free |= {number for number, pick in enumerate(other) if pick != picks[number]}
        return [number for number in range(len(self.choices)) if number not in free]

    def _near(self, picks: Sequence[int]) -> Any:
        """Yield what differs in the answers to one question, or two."""
        for count in (1, 2):
            for numbers in combinations(range(len(self.choices)), count):
                for options in product(*(range(len(self.choices[number].options)) for number in numbers)):
                    other = list(picks)
                    for number, option in zip(numbers, options):
                        other[number] = option
                    if all(other[number] != picks[number] for number in numbers):
                        yield other

    def _combinations(self) -> int:
        count = 1
        for choice in self.choices:
            count *= len(choice.options)
        return count

    def _all(self) -> Any:
        return product(*(range(len(choice.options)) for choice in self.choices))

    def _run(self, picks: Sequence[int]) -> Run:
        self.runs += 1
        rules = [link.rule for link in self.found.links]
        rules += [rule for choice, pick in zip(self.choices, picks) for rule in choice.options[pick]]
        return self.other.run(self._made(rules), self.inputs[1], self.precise)

    def _made(self, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
        """Return the weights of B that rules make of those of A."""
        import numpy as np

        made: dict[str, np.ndarray] = {}
        for rule in rules:
            sources = [self.weights[key] for key in rule.sources]
            stored = [StoredTensor.of(str(value.dtype), value.shape, value.tobytes()) for value in sources]
            for key, tensor in zip(rule.targets, applied(rule, stored)):
                made[key] = np.frombuffer(tensor.data(), sources[0].dtype).reshape(tensor.shape)
        return made

    def _gap(self, picks: Sequence[int]) -> _Gap:
        import numpy as np

        ours, theirs = self.reference.outputs, self._run(picks).outputs
        scale = max((float(np.abs(out).max()) for out in ours if out.size), default=0.0)
        if not ours or [out.shape for out in ours] != [out.shape for out in theirs]:
            return _Gap(None, scale)
        gaps = [float(np.abs(one - other).max()) for one, other in zip(ours, theirs) if one.size]
        return _Gap(max(gaps, default=0.0) if all(gap == gap for gap in gaps) else float("inf"), scale)

    def _is_equal(self, gap: _Gap) -> bool:
        return gap.largest is not None and gap.largest <= _TOLERANCE[self.precise] * max(gap.scale, 1e-30)


def _told(run: Run) -> dict[float, list[tuple[float, ...]]]:
    """Return what a run's calls gave, by their numbers of elements."""
    found: dict[float, list[tuple[float, ...]]] = {}
    for _, call in run.calls:
        found.setdefault(call[0], []).append(call)
    return found

"""What flows through modules when both models are run, and how much of it is the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from converters.suggesting.pairing import Flows
from converters.suggesting.process import Run
from converters.suggesting.tensors import Side, ancestors

Sums = tuple[float, ...]
_NEAR = 1e-6  # relative difference up to which the sums of two tensors are the same; runs are in float64 where possible


def flows_of(sides: tuple[Side, Side], one: Run, other: Run) -> Flows:
    """Return for the keys of both sides what the modules that they are in are given and give, by numbers.

    What is the same in both runs has the same number; what only one run has is left out.
    """
    known = _Known()
    of_a: dict[str, set[str]] = defaultdict(set)
    of_b: dict[str, set[str]] = defaultdict(set)
    for path, kind, sums in one.calls:
        of_a[path].add(f"{kind} {known.number(sums)}")
    for path, kind, sums in other.calls:
        number = known.find(sums)
        if number is not None:
            of_b[path].add(f"{kind} {number}")
    return _of_keys(sides[0], of_a), _of_keys(sides[1], of_b)


def _of_keys(side: Side, of_modules: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return what flows through the modules that keys are in, but for the whole; of their own module by itself."""
    found = {}
    for key in side.tensors:
        own, *above = ancestors(key)
        around = [path for path in above if path] + ([own] if own and side.has_parts(own) else [])
        found[key] = {f"around {flow}" for path in around for flow in of_modules.get(path, ())}
        if own and not side.has_parts(own):
            found[key] |= of_modules.get(own, set())
    return found


def share_of(one: Run, other: Run) -> int:
    """Count the results of modules of the first run that some module of the other gives, too."""
    known = _Known()
    for _, kind, sums in other.calls:
        if kind == "out":
            known.number(sums)
    return sum(known.find(sums) is not None for _, kind, sums in one.calls if kind == "out")


def first_missing(one: Run, other: Run) -> str | None:
    """Name the first module whose result no module of the other run gives; None if there is none."""
    known = _Known()
    for _, _, sums in other.calls:
        known.number(sums)
    return next((path for path, kind, sums in one.calls if kind == "out" and known.find(sums) is None), None)


def has_any(run: Run, results: Iterable[Sums]) -> bool:
    """Tell whether some module of a run gives one of these results."""
    known = _Known()
    for _, kind, sums in run.calls:
        if kind == "out":
            known.number(sums)
    return any(known.find(sums) is not None for sums in results)


def changed_results(before: Run, after: Run) -> list[Sums]:
    """Return the results of modules of a run that are others in another run of the same model."""
    if [call[:2] for call in before.calls] != [call[:2] for call in after.calls]:
        return []
    pairs = zip(before.calls, after.calls)
    return [one[2] for one, two in pairs if one[1] == "out" and not _are_near(one[2], two[2])]


def first_other(one: Run, other: Run, modules: Mapping[str, str]) -> str | None:
    """Name the first module of A whose result its counterpart of B, which is called as well, does not give.

    Args:
        one, other: The runs.
        modules: Paths of modules of A with those of their counterparts.
    """
    given: dict[str, _Known] = {}
    for path, kind, sums in other.calls:
        if kind == "out":
            given.setdefault(path, _Known()).number(sums)
    for path, kind, sums in one.calls:
        if kind == "out" and modules.get(path) in given and given[modules[path]].find(sums) is None:
            return path
    return None


def _are_near(one: Sums, other: Sums) -> bool:
    return all(abs(first - second) <= _NEAR * abs(first) for first, second in zip(one, other))


class _Known:
    """Numbers for tensors that are told apart by their sums, up to rounding."""

    def __init__(self) -> None:
        self._by_count: dict[float, list[tuple[Sums, int]]] = defaultdict(list)
        self._next = 0

    def number(self, sums: Sums) -> int:
        """Return the number of a tensor, a new one if it is not known."""
        found = self.find(sums)
        if found is None:
            found, self._next = self._next, self._next + 1
            self._by_count[sums[0]].append((sums, found))
        return found

    def find(self, sums: Sums) -> int | None:
        """Return the number of a tensor that is known."""
        for held, number in self._by_count.get(sums[0], ()):
            if _are_near(sums, held):
                return number
        return None

"""Whether what a rule only names is turned: the other orders of axes that sizes do not tell from none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING

from converters.rules.kinds import Keep, Permute, Rename, Rule
from converters.suggesting import fitting
from converters.suggesting.flows import share_of
from converters.suggesting.links import RUN, Link, Open
from converters.suggesting.tensors import Side

if TYPE_CHECKING:
    from converters.suggesting.trial import Trial

_MOST_FLIPS = 150  # beyond which tensors of more than two dimensions are not turned
_FEW = 6  # matrices of which all are turned and not, in every combination
_WHY = "of the orders of its axes, the outputs are equal with this alone"


def flips(sides: tuple[Side, Side], rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    """Return for the keys of A that a rule only names, or turns, the rules with the other orders of axes that fit."""
    found: dict[str, list[Rule]] = {}
    a, b = sides
    for rule in rules:
        is_named, is_turned = isinstance(rule, (Keep, Rename)), isinstance(rule, Permute) and rule.axes is not None
        if not (is_named or is_turned):
            continue
        held, target = a.tensors[rule.sources[0]], b.tensors[rule.targets[0]]
        if "float" not in held.dtype or held.dtype != target.dtype:
            continue
        others = [
            other
            for other in (*fitting.rules_of_sizes(held, target), *fitting.turns_unseen(held, target))
            if isinstance(other, (Keep, Rename, Permute)) and other != rule
        ]
        if others:
            found[held.key] = others
    many = sum(map(len, found.values())) > _MOST_FLIPS
    return {key: others for key, others in found.items() if not many or len(a.tensors[key].shape) == 2}


def turned(sides: tuple[Side, Side], links: Iterable[Link], trial: Trial) -> list[Link]:
    """Return links with another order of axes, with which more modules agree, or all outputs; none if none helps."""
    rules = [link.rule for link in links]
    open_to = flips(sides, rules)
    made: dict[str, Rule] = {}
    base = share_of(trial.reference, trial.run(rules))
    for key, others in open_to.items():
        for other in others:
            run = trial.run(_with(rules, {**made, key: other}))
            share = share_of(trial.reference, run)
            if share > base or trial.gap(run).is_equal:
                base, made = share, {**made, key: other}
    if made:
        return [Link(rule, RUN, _WHY) for rule in made.values()]
    matrices = [key for key in open_to if len(sides[0].tensors[key].shape) == 2]
    for tried in _all(open_to, matrices) if len(matrices) <= _FEW else ():
        if trial.gap(trial.run(_with(rules, tried))).is_equal:
            return [Link(rule, RUN, _WHY) for rule in tried.values()]
    return []


def _all(open_to: Mapping[str, list[Rule]], keys: list[str]) -> Iterator[dict[str, Rule]]:
    for numbers in product(*(range(len(open_to[key]) + 1) for key in keys)):
        tried = {key: open_to[key][number - 1] for key, number in zip(keys, numbers) if number}
        if len(tried) > 1:
            yield tried


def _with(rules: Iterable[Rule], other: Mapping[str, Rule]) -> list[Rule]:
    return [other.get(rule.sources[0], rule) if len(rule.sources) == 1 else rule for rule in rules]


def opened(link: Link, others: Iterable[Rule], reason: str) -> Open:
    """Return a link as a question."""
    rule = link.rule
    return Open(rule.sources, rule.targets, reason, ((rule,), *((other,) for other in others)))

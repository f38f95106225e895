"""Suggest rules for two models that can be run: what names leave open is tried, and the outputs are compared."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.suggesting import finding
from converters.suggesting.choices import choices_of
from converters.suggesting.flows import flows_of, share_of
from converters.suggesting.links import RUN, Findings, Link
from converters.suggesting.pairing import FLOWING
from converters.suggesting.process import ModelProcess, RunError
from converters.suggesting.suggestion import Suggestion, told
from converters.suggesting.tensors import Held, Side
from converters.suggesting.trial import MOST_RUNS, Picked, Trial

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

_SEEDS = (1, 2)
_WAVES = 100
_MOST_ANSWERS = 150  # to two questions together
_NO_INPUTS = "neither file has a function inputs(), which returns what the model is called with"
_ALONE = "of all that fits, the outputs are equal with this alone"


def suggest_models(a: str | Path, b: str | Path) -> Suggestion:
    """Propose rules from the keys of one model to those of another, both of which Python files build.

    Args:
        a, b: Files with `build()`, and one of them or both with `inputs()`.

    Raises:
        CheckpointError: If a file has no model that can be built.
    """
    with ModelProcess(a, _SEEDS[0]) as one, ModelProcess(b, _SEEDS[1]) as other:
        weights, own = one.state(), other.state()
        sides = _side("A", weights), _side("B", own)
        found = replace(finding.find(*sides), notes=())
        try:
            trial = Trial(one, other, weights, own, _inputs(one, other))
            found, proof = _proven(sides, found, trial)
        except RunError as error:
            proof = f"none, for the models were not both run: {error}"
        return told(*sides, found, str(a), str(b), proof)


def _side(name: str, weights: Mapping[str, np.ndarray]) -> Side:
    return Side(name, {key: Held(key, str(value.dtype), value.shape, None) for key, value in weights.items()})


def _inputs(one: ModelProcess, other: ModelProcess) -> tuple[Any, Any]:
    """Return what each model is called with; what only one file says is for both.

    Raises:
        RunError: If no file says it.
    """
    of_a, of_b = one.inputs(), other.inputs()
    if of_a is None and of_b is None:
        raise RunError(_NO_INPUTS)
    return (of_b if of_a is None else of_a), (of_a if of_b is None else of_b)


def _proven(sides: tuple[Side, Side], named: Findings, trial: Trial) -> tuple[Findings, str]:
    """Return the findings with what runs decide, and what the last run says.

    Whatever is given to modules whose weights are known is the same in both runs, and tells which modules they are; so
    one layer is known after the other. Where that tells nothing more, the answers to what is open are tried. All of it
    counts only if the outputs are equal at last.
    """
    found, picked = named, []
    for _ in range(_WAVES):
        before = found
        rules = [link.rule for link in found.links]
        assumed = [link for pick in picked for link in pick.links(RUN, _ALONE)]
        flows = flows_of(sides, trial.reference, trial.run(rules))
        found = finding.find(*sides, flows, assumed)
        if found.linked_a != before.linked_a:
            continue
        picks = _next(found, trial)
        if not picks:
            break
        picked += picks
        found = replace(found, links=(*found.links, *(link for pick in picks for link in pick.links(RUN, _ALONE))))
    rest = choices_of(found.opens)
    taken = {id(rule) for pick in picked for rule in pick.choice.options[pick.number]}
    fixed = [link for link in found.links if id(link.rule) not in taken]
    ended = trial.end([link.rule for link in fixed], picked, rest)
    if not ended.is_equal:
        return named, ended.sentence
    links = [_as_run(link, trial) for link in fixed] + [
        link for pick in ended.picked for link in pick.links(RUN, _ALONE)
    ]
    open_again = tuple(
        replace(item, reason=f"{item.reason}, and the outputs are equal with more than one")
        for choice in ended.undecided
        for item in choice.opens
    )
    tried = {id(item) for choice in rest for item in choice.opens}
    untried = tuple(item for item in found.opens if id(item) not in tried)
    return replace(found, links=tuple(links), opens=(*untried, *open_again), notes=()), ended.sentence


def _as_run(link: Link, trial: Trial) -> Link:
    """Say of a link that a run told it, where what flows through the modules was needed for it."""
    has_effect = not trial.idle.issuperset(link.rule.sources)
    return replace(link, known=RUN) if FLOWING in link.reason and has_effect else link


def _next(found: Findings, trial: Trial) -> list[Picked]:
    """Return the first question, or two, to which one answer makes more modules agree than any other, and than none."""
    rules = [link.rule for link in found.links]
    base = share_of(trial.reference, trial.run(rules))
    choices = choices_of(found.opens)
    single = [Picked(choice, 0) for choice in choices if len(choice.options) == 1]
    rules += [link.rule for pick in single for link in pick.links(RUN, _ALONE)]
    if single and share_of(trial.reference, trial.run(rules)) > base:
        return single
    several = [choice for choice in choices if len(choice.options) > 1]
    for count in (1, 2):
        for asked in combinations(several, count):
            answers = list(product(*(range(len(choice.options)) for choice in asked)))
            if len(answers) > _MOST_ANSWERS:
                continue
            if trial.runs > MOST_RUNS:
                return []
            options = [[rule for choice, at in zip(asked, ats) for rule in choice.options[at]] for ats in answers]
            scores = [share_of(trial.reference, trial.run([*rules, *option])) for option in options]
            best = max(range(len(scores)), key=scores.__getitem__)
            if scores.count(scores[best]) == 1 and scores[best] > base:
                return [*single, *(Picked(choice, at) for choice, at in zip(asked, answers[best]))]
    return []

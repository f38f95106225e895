"""Suggest rules for two models that can be run: what names leave open is tried, and the outputs are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import CheckpointError
from converters.suggesting import finding
from converters.suggesting.choices import Choice, choices_of
from converters.suggesting.drawing import are_alike
from converters.suggesting.flows import flows_of, share_of
from converters.suggesting.links import RUN, Findings, Link
from converters.suggesting.pairing import FLOWING
from converters.suggesting.process import ModelProcess, RunError
from converters.suggesting.suggestion import Suggestion, told
from converters.suggesting.tensors import Held, Side
from converters.suggesting.trial import MOST_RUNS, End, Picked, Trial
from converters.suggesting.turning import flips, opened, turned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

_SEEDS = (1, 2)
_WAVES = 100
_MOST_ANSWERS = 150  # to two questions together
_NO_INPUTS = "neither file has a function inputs(), which returns what the model is called with"
_TURNS = 4  # times that tensors are turned and all is tried again
_SHOWN = 6  # keys that a sentence lists
_UNLIKE = "The two functions inputs() return other numbers; give one file alone such a function."
_EITHER = "a pair, but the outputs are equal with either order of its axes"
_ALONE = "of all that fits, the outputs are equal with this alone"


def suggest_models(a: str | Path, b: str | Path) -> Suggestion:
    """Propose rules from the keys of one model to those of another, both of which Python files build.

    Args:
        a, b: Files with `build()`, and one of them or both with `inputs()`.

    Raises:
        CheckpointError: If a file has no model that can be built.
    """
    with ModelProcess(a, _SEEDS[0]) as one, ModelProcess(b, _SEEDS[1]) as other:
        try:
            weights, own, kinds = one.state(), other.state(), (one.kinds(), other.kinds())
        except RunError as error:
            raise CheckpointError(f"Cannot take the weights of `{a}` and `{b}`: {error}.") from error
        sides = _side("A", weights, kinds[0]), _side("B", own, kinds[1])
        named = replace(finding.find(*sides), notes=())
        try:
            inputs = _inputs(one, other)
            ended = _proven(sides, named, Trial(one, other, weights, own, inputs))
            if ended.fault and not are_alike(inputs):
                ended = replace(ended, proof=f"{ended.proof} {_UNLIKE}")
        except _NoInputs as error:
            ended = Proven(named, f"none: {error}")
        except RunError as error:
            ended = Proven(named, f"none, for the models were not both run: {error}", "the models were not both run")
        return told(*sides, ended.found, str(a), str(b), ended.proof, ended.fault, ended.unproven)


@dataclass(frozen=True)
class Proven:
    """What is known after both models were run.

    Attributes:
        found: What belongs together.
        proof: What the last run says, in a sentence.
        fault: Why that is no proof, in a phrase; None where it is one, or nothing was to be run.
        unproven: Keys of A of whose rules the runs say nothing.
    """

    found: Findings
    proof: str
    fault: str | None = None
    unproven: tuple[str, ...] = ()


class _NoInputs(RunError):
    """Nothing was to be run."""


def _side(name: str, weights: Mapping[str, np.ndarray], kinds: Mapping[str, str]) -> Side:
    held = {key: Held(key, str(value.dtype), value.shape, None) for key, value in weights.items()}
    return Side(name, held, kinds)


def _inputs(one: ModelProcess, other: ModelProcess) -> tuple[Any, Any]:
    """Return what each model is called with; what only one file says is for both.

    Raises:
        _NoInputs: If no file says it.
    """
    of_a, of_b = one.inputs(), other.inputs()
    if of_a is None and of_b is None:
        raise _NoInputs(_NO_INPUTS)
    return (of_b if of_a is None else of_a), (of_a if of_b is None else of_b)


def _proven(sides: tuple[Side, Side], named: Findings, trial: Trial) -> Proven:
    """Return the findings with what runs decide, and what the last run says.

    Where the outputs are not equal at last, tensors are turned that sizes do not tell from turned ones, and all is
    tried again with what helps.
    """
    assumed: list[Link] = []
    for _ in range(_TURNS):
        found, picked = _layer_by_layer(sides, named, trial, assumed)
        rest = choices_of(found.opens, sides)
        taken = {id(rule) for pick in picked for rule in pick.choice.options[pick.number]}
        fixed = [link for link in found.links if id(link.rule) not in taken]
        ended = trial.end([link.rule for link in fixed], picked, rest)
        if ended.is_equal:
            return _told_by(sides, trial, found, fixed, rest, ended)
        more = turned(sides, found.links, trial)
        if not more:
            break
        keys = {key for link in more for key in link.rule.sources}
        assumed = [*(link for link in assumed if not keys & set(link.rule.sources)), *more]
    return Proven(_without_touched(sides, named, ended.first), ended.sentence, ended.fault)


def _layer_by_layer(
    sides: tuple[Side, Side], named: Findings, trial: Trial, turns: Sequence[Link]
) -> tuple[Findings, list[Picked]]:
    """Return what is found if every layer that is known tells the next one.

    Whatever is given to modules whose weights are known is the same in both runs, and tells which modules they are; so
    one layer is known after the other. Where that tells nothing more, the answers to what is open are tried. All of it
    counts only if the outputs are equal at last.
    """
    found, picked = named, []
    for _ in range(_WAVES):
        before = found
        rules = [link.rule for link in found.links]
        assumed = [*turns, *(link for pick in picked for link in pick.links(RUN, _ALONE))]
        flows = flows_of(sides, trial.reference, trial.run(rules))
        found = finding.find(*sides, flows, assumed)
        if found.linked_a != before.linked_a:
            continue
        picks = _next(sides, found, trial)
        if not picks:
            break
        picked += picks
        found = replace(found, links=(*found.links, *(link for pick in picks for link in pick.links(RUN, _ALONE))))
    return found, picked


def _told_by(
    sides: tuple[Side, Side], trial: Trial, found: Findings, fixed: Sequence[Link], rest: Sequence[Choice], ended: End
) -> Proven:
    """Return what equal outputs tell, and what they do not."""
    links = [_as_run(link, trial) for link in fixed] + [
        link for pick in ended.picked for link in pick.links(RUN, _ALONE)
    ]
    why = "the outputs are equal with more than one" if ended.is_whole else "the answers are too many to try them all"
    open_again = [
        replace(item, reason=f"{item.reason}, and {why}") for choice in ended.undecided for item in choice.opens
    ]
    tried = {id(item) for choice in rest for item in choice.opens}
    untried = [item for item in found.opens if id(item) not in tried]
    rules = [link.rule for link in links]
    blind = trial.blind(rules, ended.beside, flips(sides, rules))
    open_turns = [
        opened(link, [blind[link.rule.sources[0]]], _EITHER) for link in links if link.rule.sources[0] in blind
    ]
    links = [link for link in links if link.rule.sources[0] not in blind]
    unproven = trial.unproven([link.rule for link in links], ended.beside)
    sentence = ended.sentence
    if unproven:
        few = ", ".join(unproven[:_SHOWN]) + (f" and {len(unproven) - _SHOWN} more" if len(unproven) > _SHOWN else "")
        what = f"{len(unproven)} parameters of A have" if len(unproven) > 1 else "1 parameter of A has"
        sentence += f" {what} no effect on them; of these the run says nothing: {few}."
    opens = (*untried, *open_again, *open_turns)
    return Proven(replace(found, links=tuple(links), opens=opens, notes=()), sentence, None, unproven)


def _without_touched(sides: tuple[Side, Side], named: Findings, first: str | None) -> Findings:
    """Return what names say without the rules of the first module whose output differs, which are open then.

    If one of them may be turned, so may all of its kind.
    """
    if first is None:
        return named
    others = flips(sides, [link.rule for link in named.links])
    a, b = sides
    is_in = {id(link): any(key.startswith(f"{first}.") for key in link.rule.sources) for link in named.links}
    kinds = {
        (a.kinds.get(link.rule.sources[0]), b.kinds.get(link.rule.targets[0]))
        for link in named.links
        if is_in[id(link)] and link.rule.sources[0] in others
    }
    links, opens = [], list(named.opens)
    for link in named.links:
        rule = link.rule
        is_of_kind = rule.sources[0] in others and (a.kinds.get(rule.sources[0]), b.kinds.get(rule.targets[0])) in kinds
        if is_in[id(link)] or is_of_kind:
            reason = f"a pair by their names, but with it the output of `{first}` is another one"
            reason = reason if is_in[id(link)] else f"a pair by their names, and of the kind of `{first}`, that failed"
            opens.append(opened(link, others.get(rule.sources[0], ()), reason))
        else:
            links.append(link)
    return replace(named, links=tuple(links), opens=tuple(opens))


def _as_run(link: Link, trial: Trial) -> Link:
    """Say of a link that a run told it, where what flows through the modules was needed for it."""
    has_effect = not trial.idle.issuperset(link.rule.sources)
    return replace(link, known=RUN) if FLOWING in link.reason and has_effect else link


def _next(sides: tuple[Side, Side], found: Findings, trial: Trial) -> list[Picked]:
    """Return the first question, or two, to which one answer makes more modules agree than any other, and than none."""
    rules = [link.rule for link in found.links]
    base = share_of(trial.reference, trial.run(rules))
    choices = choices_of(found.opens, sides)
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

"""Rankings: the best of a list of scores, best first."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from legacy_adapters.recording.replay import is_ranking

from .rule import INFINITE, Alternative, Margin, Rule, is_choice, unchosen


class Ranking(Rule):
    """The k best of a list of scores, best first unless ``sorted`` is false: ``topk``, ``sort``, ``argsort``.

    One call may rank several lists, along the last axis: each is a decision of its own, and the worst one counts.
    """

    quantity = "score"
    basis = ("scores",)
    options = ("sorted",)

    def rests_on(self, slots: Collection[str]) -> bool:
        return is_ranking(slots)

    def aligned(
        self, one: Mapping[str, Tensor], two: Mapping[str, Tensor], basis: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Cut a ranking of all scores to the length of another one.

        ``sort`` gives all and leaves the cut to its caller, ``topk`` gives what is wanted: the same decision so far.
        """
        if not len(one) == len(two) == 1:
            return one, two
        (first,), (second,) = one.values(), two.values()
        if not first.dim() or first.shape[:-1] != second.shape[:-1]:
            return one, two
        lengths = first.size(-1), second.size(-1)
        if not basis["scores"].dim() or max(lengths) != basis["scores"].size(-1):
            return one, two
        shorter = min(lengths)
        return {slot: t[..., :shorter] for slot, t in one.items()}, {slot: t[..., :shorter] for slot, t in two.items()}

    def margin(
        self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor], errors: Mapping[str, float]
    ) -> Margin:
        """Try ``decision`` on ``basis``; of several lists return the margin of the worst."""
        lists = _lists(decision, basis)
        if lists is None:
            return super().margin(decision, basis, errors)
        margins = [super(Ranking, self).margin(*one, errors) for one in lists]
        worst = max(range(len(margins)), key=lambda number: margins[number].value)
        found = margins[worst]
        return replace(found, witness=f"in list {worst} {found.witness}") if found.witness else found

    def alternatives(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> list[Alternative]:
        """Return the ways in which a decision could have fallen otherwise; of several lists the closest of each way."""
        lists = _lists(decision, basis)
        if lists is None:
            return super().alternatives(decision, basis)
        closest_of: dict[str, Alternative] = {}
        for number, one in enumerate(lists):
            for way in super().alternatives(*one):
                here = replace(way, where=f"list {number}: {way.where}")
                known = closest_of.setdefault(way.name, replace(here, exact=0))
                nearer = here if here.ulps < known.ulps else known
                closest_of[way.name] = replace(nearer, exact=known.exact + way.exact)
        return list(closest_of.values())

    def _misfit(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> str:
        fits = len(decision) == 1 and basis["scores"].dim() == 1
        return "" if fits else "is not a choice from a list of scores"

    def _margin(
        self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor], errors: Mapping[str, float]
    ) -> Margin:
        """Return by how much the list [k] fails to be the k largest of the scores [n] in descending order."""
        (chosen,) = decision.values()
        scores, allowed = basis["scores"], 2 * errors["scores"]
        if not is_choice(chosen, len(scores)):
            return self.broken(f"is not a list of different indices below {len(scores)}")
        if not len(chosen):
            return Margin(self.quantity, 0.0, allowed)
        picked, rest = scores[chosen], unchosen(chosen, len(scores))
        rises, missed = picked[1:] - picked[:-1], scores[rest] - picked.min()
        rises = rises if _is_sorted(basis) else rises[:0]
        worst = torch.cat([rises, missed, torch.zeros(1)]).max().item()
        if not worst > 0.0:
            return Margin(self.quantity, worst, allowed)
        if len(rises) and rises.max().item() == worst:
            return Margin(self.quantity, worst, allowed, rise_witness(chosen, scores, rises))
        lost, last = int(rest[missed.argmax()]), int(chosen[scores[chosen].argmin()])
        text = f"leaves out {_scored(lost, scores)} and takes {_scored(last, scores)}"
        return Margin(self.quantity, worst, allowed, text)

    def _alternatives(self, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> list[Alternative]:
        (chosen,) = decision.values()
        scores = basis["scores"]
        left = unchosen(chosen, len(scores))
        if not _is_sorted(basis):
            chosen = chosen[scores[chosen].argsort(descending=True)]
        return [*(order(chosen, scores) if _is_sorted(basis) else []), *cut(chosen, left[scores[left].argsort(descending=True)], scores)]


def _is_sorted(basis: Mapping[str, Tensor]) -> bool:
    """Tell whether the best come first; else the k best may come in any order, as those of ``topk(sorted=False)``."""
    return "sorted" not in basis or bool(basis["sorted"])


def _lists(
    decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]
) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]] | None:
    """Return decision and basis of each list that a call ranks; None if it ranks one, or the two do not fit."""
    if len(decision) != 1:
        return None
    ((slot, chosen),) = decision.items()
    scores = basis["scores"]
    if scores.dim() < 2 or chosen.shape[:-1] != scores.shape[:-1] or not chosen.shape[:-1].numel():
        return None
    rows = zip(chosen.reshape(-1, chosen.size(-1)), scores.reshape(-1, scores.size(-1)), strict=True)
    return [({slot: one}, {**basis, "scores": two}) for one, two in rows]


def rise_witness(chosen: Tensor, scores: Tensor, rises: Tensor) -> str:
    """Name the two neighbours in a list of which the second has the better score by most."""
    place = int(rises.argmax())
    one, two = chosen[place : place + 2].tolist()
    return f"lists {_scored(one, scores)} before {_scored(two, scores)}"


def _scored(index: int, scores: Tensor) -> str:
    return f"{index} ({scores[index].item():.8g})"


def order(chosen: Tensor, scores: Tensor) -> list[Alternative]:
    """Compare neighbours in the list ``chosen``."""
    if len(chosen) < 2:
        return []
    return [_closest_scores("order", chosen[:-1], chosen[1:], scores, "{} before {}")]


def cut(chosen: Tensor, left: Tensor, scores: Tensor) -> list[Alternative]:
    """Compare the last of ``chosen`` with those ``left`` out, best first."""
    if not len(chosen) or not len(left):
        return []
    equal = int((scores[left] == scores[chosen[-1]]).sum())
    best = left[: max(equal, 1)]
    return [_closest_scores("cut", chosen[-1].expand(len(best)), best, scores, "{} in, {} out")]


def _closest_scores(name: str, upper: Tensor, lower: Tensor, scores: Tensor, where: str) -> Alternative:
    """Return the closest of pairs of indices ``upper`` and ``lower`` [p] by score; p is at least 1."""
    gaps, ulps = score_gaps(scores[upper], scores[lower])
    return closest(name, "score", gaps, ulps, upper, lower, where)


def score_gaps(upper: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gaps of pairs of scores, and in units in the last place of both together."""
    gaps = torch.where(upper == lower, 0.0, upper - lower)  # equal infinities, too
    return gaps, gaps / (ulp(upper) + ulp(lower))


def closest(
    name: str, quantity: str, gaps: Tensor, ulps: Tensor, one: Tensor, two: Tensor, where: str
) -> Alternative:
    """Return the smallest of ``gaps`` above 0, in units in the last place, between indices ``one`` and ``two``."""
    exact = gaps == 0
    open_gaps = ~exact & gaps.isfinite()
    place = int(torch.where(open_gaps, ulps, INFINITE).argmin() if open_gaps.any() else exact.int().argmax())
    text = where.format(int(one[place]), int(two[place]))
    if not open_gaps.any():
        return Alternative(name, quantity, INFINITE, INFINITE, int(exact.sum()), text)
    return Alternative(name, quantity, gaps[place].item(), ulps[place].item(), int(exact.sum()), text)


def ulp(values: Tensor) -> Tensor:
    """Return the distance from each value to the next float32, as float64."""
    return torch.as_tensor(np.spacing(values.abs().float().numpy())).double()

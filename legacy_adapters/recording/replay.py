"""The decisions of another run, found by what they rest on: images or levels may be handled in another order."""

from __future__ import annotations

from typing import Any, Callable, Collection, Dict, List, Mapping, Optional, Tuple

import torch

Decision = Dict[str, torch.Tensor]
#: Slots of a basis whose numbers tell which decision is meant.
TELLING = ("scores", "boxes", "cost", "heights")
_SKETCH = "basis/"
_PROJECTIONS = 6
_DIMENSIONS = 4
#: Two bases of one decision are closer than this, unless something is wrong.
_NEAR = 0.01


class ReplayError(Exception):
    """The decisions bundle does not fit this run."""


def decision_key(phase: str, name: str, call: int, slot: str) -> str:
    """Name one tensor of a decisions bundle."""
    return "{}/{}/{}/{}".format(phase, name, call, slot)


def is_ranking(basis: Collection[str]) -> bool:
    """Tell by the slots of its basis whether a decision lists the best of some scores."""
    return "scores" in basis and "boxes" not in basis


def sketch_key(phase: str, name: str, call: int) -> str:
    """Name the sketch of what a decision rests on, in the same bundle."""
    return _SKETCH + decision_key(phase, name, call, "")


def renamed_decision(key: str, name_of: Callable[[str], Optional[str]]) -> str:
    """Return a key of a decisions bundle with another name of the tap; ``name_of`` gives it, or None for the same."""
    head = _SKETCH if key.startswith(_SKETCH) else ""
    phase, name, rest = key[len(head) :].split("/", 2)
    return "{}{}/{}/{}".format(head, phase, name_of(name) or name, rest)


def sketch(basis: Mapping[str, Any]) -> Optional[torch.Tensor]:
    """Return a few numbers that tell a basis from others, float64 [slots, 4 + 8]; None if it has none that tell.

    Per slot: the extents, padded with -1; mean, root mean square and projections, all of the size of its elements.
    """
    rows = [_row(torch.as_tensor(basis[slot])) for slot in TELLING if slot in basis]
    return torch.stack(rows) if rows else None


def _row(tensor: torch.Tensor) -> torch.Tensor:
    numbers = torch.nan_to_num(tensor.detach().cpu().double().reshape(-1), 0.0, 0.0, 0.0)
    extents = ([float(extent) for extent in tensor.shape] + [-1.0] * _DIMENSIONS)[:_DIMENSIONS]
    count = max(numbers.numel(), 1)
    places = torch.arange(numbers.numel(), dtype=torch.float64)
    projections = [(numbers * torch.cos((1 + k) * places)).sum() / count**0.5 for k in range(_PROJECTIONS)]
    values = [numbers.sum() / count, (numbers.square().sum() / count).sqrt(), *projections]
    return torch.cat([torch.tensor(extents, dtype=torch.float64), torch.stack(values)])


def distance(one: torch.Tensor, two: torch.Tensor) -> float:
    """Return how far two sketches are apart, as a share of their size; infinite for bases of other forms.

    Dimensions of length 1 are no part of a form.
    """
    if one.shape != two.shape or _lengths(one) != _lengths(two):
        return float("inf")
    one, two = one[:, _DIMENSIONS:], two[:, _DIMENSIONS:]
    size = torch.maximum(one[:, 1], two[:, 1]).clamp(min=1e-300)
    return float(((one - two).abs().amax(-1) / size).max())


def _lengths(of: torch.Tensor) -> List[List[float]]:
    return [[length for length in row[:_DIMENSIONS].tolist() if length not in (1.0, -1.0)] for row in of]


class Replay:
    """Hands out each decision once.

    Args:
        bundle: tensors by :func:`decision_key`, and sketches of what decisions rest on by :func:`sketch_key`.
    """

    def __init__(self, bundle: Mapping[str, torch.Tensor]) -> None:
        self._decisions: Dict[Tuple[str, str, int], Decision] = {}
        self._sketches: Dict[Tuple[str, str, int], torch.Tensor] = {}
        for key, tensor in bundle.items():
            is_sketch = key.startswith(_SKETCH)
            phase, name, call, slot = key[len(_SKETCH) if is_sketch else 0 :].split("/", 3)
            place = (phase, name, int(call))
            if is_sketch:
                self._sketches[place] = tensor
            else:
                self._decisions.setdefault(place, {})[slot] = tensor
        self._left = dict(self._sketches)

    def draw(self, phase: str, name: str, call: int) -> Decision:
        """Return a random draw; empty if the other side made none, which then has no twin."""
        return self._decisions.get((phase, name, call), {})

    def decision(self, phase: str, name: str, call: int, basis: Optional[Mapping[str, Any]]) -> Decision:
        """Return the decision that rests on what ``basis`` holds, or on what is nearest to it.

        If nothing is near, something went wrong before; then it is the one of this name and number. Empty if there is
        none left: the other side decided less often, and this decision has no twin.

        Raises:
            ReplayError: if nothing was decided in this phase at all.
        """
        own = (phase, name, call)
        place = self._nearest(own, None if basis is None else sketch(basis))
        if place is not None:
            self._left.pop(place, None)
            return self._decisions.get(place, {})
        if own not in self._decisions and not any(key[0] == phase for key in self._sketches):
            raise ReplayError(
                "the decisions bundle holds no decision {}, nor any of this phase: it was recorded with other inputs or "
                "checks, or the other side decides by functions that are not watched".format(
                    decision_key(phase, name, call, "")
                )
            )
        if own in self._sketches and own not in self._left:
            return {}
        self._left.pop(own, None)
        return self._decisions.get(own, {})

    def _nearest(self, own: Tuple[str, str, int], found: Optional[torch.Tensor]) -> Optional[Tuple[str, str, int]]:
        if found is None:
            return None
        gaps: List[Tuple[float, bool, bool, int, str]] = [
            (distance(kept, found), place != own, place[1] != own[1], place[2], place[1])
            for place, kept in self._left.items()
            if place[0] == own[0]
        ]
        if not gaps:
            return None
        gap, _, _, call, name = min(gaps)
        return (own[0], name, call) if gap < _NEAR else None

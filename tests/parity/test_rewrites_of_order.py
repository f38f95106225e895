"""Work in another order, decisions by other functions and gradient checkpointing: the same bits, the same verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import pytest
import scipy.optimize
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from legacy_adapters.recording import taps as tap_lib
from parity.comparing.compare import EXACT
from parity.verdict.verdict import MATCH, MISMATCH

from .rewrites import BOTH, DIM, random_only, verdict_on

pytestmark = pytest.mark.parametrize("tolerance", BOTH, ids=lambda tolerance: tolerance.name)

IMAGES = 3


def taps(model: nn.Module) -> list[tap_lib.Tap]:
    return [*tap_lib.rankings(), *tap_lib.matchings({}), *tap_lib.random_taps()]


class Head(nn.Module):
    """Scores the queries of each image, picks the best and matches them with the numbers 0 to 2."""

    order: Iterable[int] = range(IMAGES)
    count = 3

    def __init__(self) -> None:
        super().__init__()
        self.score, self.box = nn.Linear(DIM, 1), nn.Linear(DIM, 3)

    def pick(self, scores: Tensor) -> Tensor:
        return scores.topk(self.count).indices

    def match(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(map(torch.as_tensor, scipy.optimize.linear_sum_assignment(cost)))

    def of_image(self, queries: Tensor) -> Tensor:
        picked = queries[self.pick(self.score(queries).squeeze(-1))]
        boxes = self.box(picked)
        rows, cols = self.match((boxes.detach() - torch.arange(3.0).to(boxes)).abs())
        return (boxes[rows] - cols[:, None]).square().sum()

    def forward(self, images: list[Tensor]) -> Tensor:
        losses = [torch.zeros(())] * len(images)
        for image in self.order:
            losses[image] = self.of_image(images[image])
        return torch.stack(losses).mean()


class Model(nn.Module):
    """Cuts the batch into images."""

    def __init__(self, make: Callable[[], nn.Module] = Head) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(DIM, DIM), make()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.head(list(self.stem(x).chunk(IMAGES)))}


class Reversed(Head):
    """Handles the last image first; the gradients of the layers add up in another order, too."""

    order = range(IMAGES - 1, -1, -1)


class MatchedFirst(Head):
    """Takes the decisions first, in another order; then goes on as the others do."""

    def forward(self, images: list[Tensor]) -> Tensor:
        scores = [self.score(queries).squeeze(-1) for queries in images]
        picks = {image: self.pick(scores[image]) for image in reversed(range(IMAGES))}
        boxes = [self.box(images[image][picks[image]]) for image in range(IMAGES)]
        goals = torch.arange(3.0).to(scores[0])
        pairs = {image: self.match((boxes[image].detach() - goals).abs()) for image in (1, 0, 2)}
        losses = [(boxes[i][pairs[i][0]] - pairs[i][1][:, None]).square().sum() for i in range(IMAGES)]
        return torch.stack(losses).mean()


class TorchTopk(Head):
    def pick(self, scores: Tensor) -> Tensor:
        return torch.topk(scores, k=3, dim=0)[1]


class Sort(Head):
    def pick(self, scores: Tensor) -> Tensor:
        return scores.sort(descending=True).indices[:3]


class TorchSort(Head):
    def pick(self, scores: Tensor) -> Tensor:
        return torch.sort(scores, dim=-1, descending=True, stable=True)[1][:3]


class Argsort(Head):
    def pick(self, scores: Tensor) -> Tensor:
        return torch.argsort(scores, descending=True)[:3]


class NegatedArgsort(Head):
    def pick(self, scores: Tensor) -> Tensor:
        return (-scores).argsort()[:3]


class OneMore(Head):
    """Lists one more than is wanted."""

    def pick(self, scores: Tensor) -> Tensor:
        return scores.topk(4).indices[:3]


class OfAll(Head):
    """Ranks the queries of all images in one call."""

    def forward(self, images: list[Tensor]) -> Tensor:
        self.picks = iter(self.score(torch.stack(images)).squeeze(-1).topk(self.count).indices[:, :3])
        return super().forward(images)

    def pick(self, scores: Tensor) -> Tensor:
        return next(self.picks)


class OneMoreOfAll(OfAll):
    count = 4


class OtherImport(Head):
    def match(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        from scipy.optimize import linear_sum_assignment as solve

        rows, cols = solve(cost_matrix=cost.numpy())
        return torch.from_numpy(rows), torch.from_numpy(cols)


class SortedFirst(MatchedFirst, Argsort):
    pass


HARMLESS = (MatchedFirst, TorchTopk, Sort, TorchSort, Argsort, NegatedArgsort, OneMore, OtherImport, SortedFirst)


@pytest.mark.parametrize("make", HARMLESS)
@pytest.mark.parametrize("turned", [False, True], ids=["", "the other way round"])
def test_same_decisions_match_whatever_order_and_function(tmp_path, tolerance, make, turned):
    sides = (Model, partial(Model, make))
    verdict = verdict_on(tmp_path, *(sides[::-1] if turned else sides), tolerance, taps)
    assert verdict.outcome == MATCH, (verdict.reasons, verdict.divergence)


@pytest.mark.parametrize("sides", [(OfAll, OneMoreOfAll), (OneMoreOfAll, OfAll)])
def test_longer_lists_in_one_call_match(tmp_path, tolerance, sides):
    verdict = verdict_on(tmp_path, *(partial(Model, make) for make in sides), tolerance, taps)
    assert verdict.outcome == MATCH, (verdict.reasons, verdict.divergence)


@pytest.mark.parametrize("make", [Reversed, type("ReversedSort", (Reversed, Argsort), {})])
def test_images_in_another_order_match_where_sums_may_round_otherwise(tmp_path, tolerance, make):
    verdict = verdict_on(tmp_path, Model, partial(Model, make), tolerance, taps)
    # added up in another order, these are other bits; everything else is the same
    differing = {c.pair.new.kind for c in verdict.comparisons if not c.accepted}
    assert differing <= ({"grad"} if tolerance.name == EXACT else set()), verdict.divergence


class FewerBySort(Head):
    def pick(self, scores: Tensor) -> Tensor:
        return scores.sort(descending=True).indices[:2]


class SmallestBySort(Head):
    def pick(self, scores: Tensor) -> Tensor:
        return scores.sort().indices[:3]


class FewerByTopk(Head):
    count = 2


class SecondFirst(Head):
    def pick(self, scores: Tensor) -> Tensor:
        return scores.sort(descending=True).indices[[1, 0, 2]]


class MixedUp(Head):
    """Gives one image the queries of another."""

    def forward(self, images: list[Tensor]) -> Tensor:
        return super().forward([images[0], images[2], images[2]])


class MixedUpMatching(Head):
    """Matches every image as the first."""

    def match(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "_first") or len(self._first) == 2 and self._first[1] != cost.dtype:
            self._first = (super().match(cost), cost.dtype)
        else:
            super().match(cost)
        return self._first[0]


class OneMoreIsUsed(Head):
    """Takes the fourth query for the third."""

    def pick(self, scores: Tensor) -> Tensor:
        return scores.topk(4).indices[[0, 1, 3]]


class DearestMatching(Head):
    def match(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        return super().match(-cost)


FAULTS = (FewerBySort, SmallestBySort, FewerByTopk, SecondFirst, OneMoreIsUsed, MixedUp, MixedUpMatching, DearestMatching)


@pytest.mark.parametrize("make", FAULTS)
def test_other_decisions_are_a_mismatch(tmp_path, tolerance, make):
    verdict = verdict_on(tmp_path, Model, partial(Model, make), tolerance, taps)
    assert verdict.outcome == MISMATCH, verdict.reasons


class Dropping(nn.Module):
    """Multiplies with random numbers, as DropPath does, and drops some."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.2, self.training) * torch.rand((len(x), 1), dtype=x.dtype)


class Layers(nn.Module):
    """Three layers; the first two are the same."""

    reentrant: bool | None = None
    preserve = True

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (
            nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(inplace=True), Dropping(), nn.LayerNorm(DIM)) for _ in range(2)
        )

    def layer(self, module: nn.Module, x: Tensor) -> Tensor:
        if self.reentrant is None or not torch.is_grad_enabled():
            return module(x)
        return checkpoint(module, x, use_reentrant=self.reentrant, preserve_rng_state=self.preserve)

    def forward(self, images: list[Tensor]) -> Tensor:
        x = torch.cat(images)
        for module in (self.one, self.one, self.two):
            x = x + self.layer(module, x)
        return x.square().mean()


class Checkpointed(Layers):
    reentrant = False


class Reentrant(Layers):
    reentrant = True


@pytest.mark.parametrize("make", [Checkpointed, Reentrant])
@pytest.mark.parametrize("turned", [False, True], ids=["", "the other way round"])
def test_gradient_checkpointing_matches(tmp_path, tolerance, make, turned):
    sides = (partial(Model, Layers), partial(Model, make))
    verdict = verdict_on(tmp_path, *(sides[::-1] if turned else sides), tolerance, random_only)
    assert verdict.outcome == MATCH, (verdict.reasons, verdict.divergence)
    assert any(c.pair.new.kind == "in_grad" and c.pair.new.name == "head.one.0" for c in verdict.comparisons)


class OtherDraws(Checkpointed):
    """Draws other numbers when it computes again."""

    preserve = False


class ScaledAgain(Reentrant):
    """Computes something else the second time."""

    def layer(self, module: nn.Module, x: Tensor) -> Tensor:
        scales = iter((1.0, 1.001))
        if not torch.is_grad_enabled():
            return module(x)
        return checkpoint(lambda y: module(y) * next(scales), x, use_reentrant=True)


def test_checkpointing_that_computes_something_else_is_a_mismatch(tmp_path, tolerance):
    verdict = verdict_on(tmp_path, partial(Model, Layers), partial(Model, ScaledAgain), tolerance, random_only)
    assert verdict.outcome == MISMATCH, verdict.reasons


def test_checkpointing_with_other_draws_is_a_mismatch(tmp_path, tolerance):
    if tolerance.name != EXACT:
        pytest.skip("draws are replayed, the second time as well")
    verdict = verdict_on(tmp_path, partial(Model, Layers), partial(Model, OtherDraws), tolerance, random_only)
    assert verdict.outcome == MISMATCH, verdict.reasons

"""What code is divided into modules is a side's own affair, as long as all that is computed is equal."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH

from .rewrites import BOTH, DIM, random_only, verdict_on

pytestmark = pytest.mark.parametrize("tolerance", BOTH, ids=lambda tolerance: tolerance.name)


class Layer(nn.Module):
    """A residual branch with an activation and dropout, modules without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act, self.drop = nn.Linear(DIM, DIM), nn.GELU(), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.act(self.linear(x)))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls, self.box = nn.Linear(DIM, 3), nn.Linear(DIM, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls(x), self.box(x).sigmoid()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head, self.scale = Layer(), Head(), nn.Linear(3, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def predictions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(x)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores, boxes = self.predictions(self.features(x))
        return {"cls": self.scale(scores).square().mean(), "box": boxes.square().mean()}


class WithoutHead(Model):
    """Calls what the head holds by itself."""

    def predictions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.head.cls(x), self.head.box(x).sigmoid()


class ByFunctions(Model):
    """Calls functions in place of modules."""

    def features(self, x: Tensor) -> Tensor:
        y = functional.gelu(self.layer.linear(x))
        return x + functional.dropout(y, 0.2, self.training)


class ByBernoulli(ByFunctions):
    """Draws what dropout draws by another function."""

    def features(self, x: Tensor) -> Tensor:
        y = functional.gelu(self.layer.linear(x))
        return x + (y * torch.empty_like(y).bernoulli_(0.8).div_(0.8) if self.training else y)


@pytest.mark.parametrize("new", [WithoutHead, ByFunctions, ByBernoulli])
@pytest.mark.parametrize("turned", [False, True], ids=["", "the other way round"])
def test_the_same_code_divided_otherwise_matches(tmp_path, tolerance, new, turned):
    sides = (new, Model) if turned else (Model, new)
    verdict = verdict_on(tmp_path, *sides, tolerance, random_only)
    assert verdict.outcome == MATCH, (verdict.reasons, verdict.divergence)


class WithoutSigmoid(WithoutHead):
    def predictions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.head.cls(x), self.head.box(x)


class WithoutDropout(ByFunctions):
    def features(self, x: Tensor) -> Tensor:
        return x + functional.gelu(self.layer.linear(x))


class Larger(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 1.01


class WrongEnd(WithoutHead):
    """Does without the head's module, which is harmless, and makes an error behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Larger(3, 3)


class WithoutActivation(Model):
    def features(self, x: Tensor) -> Tensor:
        return x + self.layer.drop(self.layer.linear(x))


@pytest.mark.parametrize(
    ("new", "where", "says"),
    [
        (WithoutSigmoid, "the detector", "calls `head`"),
        (WithoutDropout, "layer.drop", "random state"),
        (WrongEnd, "scale", "gives another output for equal inputs"),
        (WithoutActivation, "layer", "`layer.drop`"),
    ],
)
def test_an_error_beside_it_is_named(tmp_path, tolerance, new, where, says):
    verdict = verdict_on(tmp_path, Model, new, tolerance, random_only)
    assert verdict.outcome == MISMATCH, verdict.reasons
    assert (verdict.divergence.where, says in verdict.divergence.message) == (where, True), verdict.divergence


class Clamped(Model):
    """Has a module that changes nothing of what it is given here."""

    def __init__(self) -> None:
        super().__init__()
        self.clamp = nn.Hardtanh(-1e6, 1e6)

    def features(self, x: Tensor) -> Tensor:
        return x + self.clamp(self.layer(x) * 2)


class NotClamped(Clamped):
    def features(self, x: Tensor) -> Tensor:
        return x + self.layer(x) * 2


class CalledForNothing(Model):
    """Calls a module with weights once more and uses nothing of it."""

    def features(self, x: Tensor) -> Tensor:
        self.head.cls(torch.zeros_like(x))
        return self.layer(x)


@pytest.mark.parametrize(("legacy", "new"), [(Clamped, NotClamped), (CalledForNothing, Model)])
def test_what_cannot_be_seen_is_no_match(tmp_path, tolerance, legacy, new):
    """A clamp that has nothing to clamp here may be forgotten; so may what a module with weights computes."""
    verdict = verdict_on(tmp_path, legacy, new, tolerance, random_only)
    assert verdict.outcome == INCOMPARABLE, verdict.reasons

"""Modules that are wrapped, subclassed, inserted, removed or called again compute the same; missing work does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parity.comparing.compare import EXACT
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH

from .rewrites import BOTH, DIM, verdict_on

pytestmark = pytest.mark.parametrize("tolerance", BOTH, ids=lambda tolerance: tolerance.name)


class Lossy(nn.Module):
    """Gives the loss by a module of its own."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.first, self.loss = nn.Linear(DIM, DIM), loss

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.loss(self.first(x), x).mean()}


class Views(nn.Module):
    """An activation behind a linear layer on three axes, whose output is a view."""

    inplace = False

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(DIM, DIM), nn.ReLU(inplace=self.inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.fc(x[None]))[0]


class ViewsInPlace(Views):
    inplace = True


class CutOff(Views):
    """Lets no gradient through for a part of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat([x[:1].detach(), x[1:]]))


class Block(nn.Module):
    """Linear, norm, activation, dropout without effect; a residual connection and another activation."""

    inplace = False

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(DIM, DIM), nn.LayerNorm(DIM)
        self.act, self.drop = nn.ReLU(inplace=self.inplace), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.drop(self.act(self.norm(self.fc(x)))))


class Model(nn.Module):
    """Two blocks, the second called twice; the loss is the mean of the squares."""

    def __init__(self, make: Callable[[], nn.Module] = Block) -> None:
        super().__init__()
        self.first, self.second = make(), make()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.second(self.second(self.first(x))).square().mean()}


class MyLinear(nn.Linear):
    """A linear layer with a part of its own."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.part = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.part(super().forward(x))


class MyNorm(nn.LayerNorm):
    def forward(self, inputs: Tensor, eps: float = 1e-5) -> Tensor:
        return F.layer_norm(inputs, self.normalized_shape, self.weight, self.bias, eps)


class Wrapper(nn.Module):
    """Holds the one module that does the work."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Tensor) -> Tensor:
        return self.inner(*args)


class InPlace(Block):
    inplace = True


class Subclassed(Block):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = MyLinear(DIM, DIM), MyNorm(DIM)


class Wrapped(Block):
    def __init__(self) -> None:
        super().__init__()
        self.act, self.drop = Wrapper(self.act), Wrapper(Wrapper(self.drop))


class WithoutDropout(Block):
    def __init__(self) -> None:
        super().__init__()
        del self.drop

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.act(self.norm(self.fc(x))))


class IdentityForDropout(Block):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Identity()


class MoreIdentities(Block):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.more = nn.Identity(), nn.Sequential(nn.Identity(), nn.Dropout(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.more(super().forward(self.before(x)))


class Functional(Block):
    """Applies the activation as a function."""

    def __init__(self) -> None:
        super().__init__()
        del self.act

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.drop(F.relu(self.norm(self.fc(x)))))


class TwoActivations(Block):
    """Has a module for each place."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.drop(self.act(self.norm(self.fc(x)))))


class Again(Block):
    """Normalises twice, with one result."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        with torch.no_grad():
            self.norm(y)
        return self.act(x + self.drop(self.act(self.norm(y))))


HARMLESS = (InPlace, Subclassed, Wrapped, WithoutDropout, IdentityForDropout, MoreIdentities, Functional,
            TwoActivations)  # fmt: skip


@pytest.mark.parametrize("turned", [False, True], ids=["", "the other way round"])
def test_view_that_is_overwritten_in_place_matches(tmp_path, tolerance, turned):
    sides = (partial(Model, Views), partial(Model, ViewsInPlace))
    verdict = verdict_on(tmp_path, *(sides[::-1] if turned else sides), tolerance)
    assert verdict.outcome == MATCH, (verdict.reasons, verdict.divergence)


@pytest.mark.parametrize("legacy", [Views, ViewsInPlace])
def test_gradient_that_is_cut_off_in_part_is_a_mismatch(tmp_path, tolerance, legacy):
    assert verdict_on(tmp_path, partial(Model, legacy), partial(Model, CutOff), tolerance).outcome == MISMATCH


@pytest.mark.parametrize("make", HARMLESS)
@pytest.mark.parametrize("turned", [False, True], ids=["", "the other way round"])
def test_same_work_in_other_modules_matches(tmp_path, tolerance, make, turned):
    sides = (Model, partial(Model, make))
    verdict = verdict_on(tmp_path, *(sides[::-1] if turned else sides), tolerance)
    assert verdict.outcome == MATCH, (verdict.reasons, verdict.divergence)


class NoDropout(WithoutDropout):
    """Lacks a dropout that drops."""


class Dropping(Block):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.1)


class LeakyInPlace(Block):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.LeakyReLU(1e-6, inplace=True)


class ActsOnTheInput(InPlace):
    """An activation in place changes what is still needed."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.fc(self.act(x + 0)))) + x
        return self.act(y)


class NearIdentity(Block):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Hardtanh(-1.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.more(super().forward(x))


class BackwardOfItsOwn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 1.001


class IdentityThatScalesGradients(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return BackwardOfItsOwn.apply(x)


class InsertedScaling(Block):
    def __init__(self) -> None:
        super().__init__()
        self.more = IdentityThatScalesGradients()

    def forward(self, x: Tensor) -> Tensor:
        return self.more(super().forward(x))


class WithoutNorm(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.drop(self.act(self.fc(x))))


FAULTS = [
    (Dropping, NoDropout),
    (Block, LeakyInPlace),
    (Block, ActsOnTheInput),
    (Block, NearIdentity),
    (Block, InsertedScaling),
    (Block, WithoutNorm),
]


@pytest.mark.parametrize(("legacy", "new"), FAULTS, ids=lambda make: make.__name__)
def test_other_work_is_a_mismatch(tmp_path, tolerance, legacy, new):
    verdict = verdict_on(tmp_path, partial(Model, legacy), partial(Model, new), tolerance)
    assert verdict.outcome == MISMATCH, verdict.reasons


def test_wrapped_loss_matches(tmp_path, tolerance):
    wrapped = partial(Lossy, Wrapper(nn.MSELoss()))
    assert verdict_on(tmp_path, partial(Lossy, nn.MSELoss()), wrapped, tolerance).outcome == MATCH


def test_loss_in_a_tensor_of_one_matches(tmp_path, tolerance):
    class InOne(Wrapper):
        def forward(self, *args: Tensor) -> Tensor:
            return self.inner(*args)[None]

    sides = (partial(Lossy, Wrapper(nn.MSELoss())), partial(Lossy, InOne(nn.MSELoss())))
    assert verdict_on(tmp_path, *sides, tolerance).outcome == MATCH


@pytest.mark.parametrize("turned", [False, True], ids=["", "the other way round"])
def test_loss_in_a_tensor_of_one_may_round_otherwise(tmp_path, tolerance, turned):
    if tolerance.name == EXACT:
        pytest.skip("the sums have other bits")

    class OtherSum(Wrapper):
        def forward(self, one: Tensor, two: Tensor) -> Tensor:
            return ((one - two).square().flip(0) / one.numel()).sum()[None]

    sides = (partial(Lossy, Wrapper(nn.MSELoss())), partial(Lossy, OtherSum(nn.MSELoss())))
    verdict = verdict_on(tmp_path, *(sides[::-1] if turned else sides), tolerance)
    assert verdict.outcome == MATCH, verdict.divergence


def test_wrapped_loss_with_a_factor_is_a_mismatch(tmp_path, tolerance):
    class Scaled(Wrapper):
        def forward(self, *args: Tensor) -> Tensor:
            return self.inner(*args) * 1.01

    scaled = partial(Lossy, Scaled(nn.MSELoss()))
    assert verdict_on(tmp_path, partial(Lossy, nn.MSELoss()), scaled, tolerance).outcome == MISMATCH


class Measured(Block):
    """Has a module whose result leads nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.measure = nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        self.measure(x)
        return super().forward(x)


def test_module_whose_result_is_compared_nowhere_is_no_match(tmp_path, tolerance):
    assert verdict_on(tmp_path, partial(Model, Measured), Model, tolerance).outcome == INCOMPARABLE
    assert verdict_on(tmp_path / "turned", Model, partial(Model, Measured), tolerance).outcome == INCOMPARABLE


def test_layer_called_again_on_the_same_matches_if_no_gradient_is_lost(tmp_path, tolerance):
    assert verdict_on(tmp_path, Model, partial(Model, Again), tolerance).outcome == MATCH

"""Draws of the same numbers match, whichever of torch's functions makes them."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from parity.verdict.verdict import MATCH, MISMATCH

from .rewrites import BOTH, DIM, random_only, verdict_on

pytestmark = pytest.mark.parametrize("tolerance", BOTH, ids=lambda tolerance: tolerance.name)
Draw = Callable[[Tensor], Tensor]


class Noisy(nn.Module):
    """Shifts its input by one draw and scales the sum by another, for draws are numbered in one sequence."""

    def __init__(self, first: Draw, second: Draw | None = None) -> None:
        super().__init__()
        self.layer, self.first, self.second = nn.Linear(DIM, DIM), first, second or first

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.layer(x)
        y = y + self.first(y.detach()).to(y.dtype)
        return {"loss": (y * self.second(y.detach()).to(y.dtype)).square().mean()}


def _ones(x: Tensor) -> Tensor:
    return torch.ones_like(x)


UNIFORM = (
    lambda x: torch.rand_like(x),
    lambda x: torch.rand(x.shape, dtype=x.dtype),
    lambda x: torch.rand(*x.shape, dtype=x.dtype),
    lambda x: torch.empty_like(x).uniform_(),
    lambda x: x.new_empty(x.shape).uniform_(0, 1),
)
NORMAL = (
    lambda x: torch.randn_like(x),
    lambda x: torch.randn(x.shape, dtype=x.dtype),
    lambda x: x.new_empty(x.shape).normal_(),
    lambda x: x.clone().normal_(mean=0.0, std=1.0),
)
WHOLE = (
    lambda x: torch.randint_like(x, 0, 7),
    lambda x: torch.randint_like(x, 7),
    lambda x: torch.randint(7, x.shape),
    lambda x: torch.randint(0, 7, x.shape, dtype=x.dtype),
    lambda x: torch.randint(low=0, high=7, size=x.shape),
    lambda x: torch.empty(x.shape, dtype=torch.int64).random_(7),
    lambda x: torch.empty_like(x).random_(0, 7),
)
DROPPED = (
    lambda x: nn.functional.dropout(x, 0.4),
    lambda x: torch.dropout(x, 0.4, train=True),
    lambda x: nn.Dropout(0.4)(x),
    lambda x: nn.functional.dropout(x.clone(), p=0.4, inplace=True),
)
SAME = [(family[0], other) for family in (UNIFORM, NORMAL, WHOLE, DROPPED) for other in family[1:]]


@pytest.mark.parametrize(("one", "other"), SAME)
@pytest.mark.parametrize("turned", [False, True], ids=["", "the other way round"])
def test_functions_that_draw_the_same_match(tmp_path, tolerance, one, other, turned):
    sides = partial(Noisy, one), partial(Noisy, other, one)
    verdict = verdict_on(tmp_path, *(sides[::-1] if turned else sides), tolerance, random_only)
    assert verdict.outcome == MATCH, (verdict.reasons, verdict.divergence)


#: Held where no function that is watched is looked for.
RAND = [torch.rand_like]
UNWATCHED = (
    (UNIFORM[0], lambda x: RAND[0](x)),
    (NORMAL[0], lambda x: torch.normal(0.0, 1.0, x.shape, dtype=x.dtype)),
)


@pytest.mark.parametrize(("one", "other"), UNWATCHED)
@pytest.mark.parametrize("turned", [False, True], ids=["", "the other way round"])
def test_a_draw_by_a_function_that_is_not_watched_matches(tmp_path, tolerance, one, other, turned):
    sides = partial(Noisy, one, _ones), partial(Noisy, other, _ones)
    verdict = verdict_on(tmp_path, *(sides[::-1] if turned else sides), tolerance, random_only)
    assert verdict.outcome == MATCH, (verdict.reasons, verdict.divergence)


@pytest.mark.parametrize(
    "other", [torch.zeros_like, lambda x: RAND[0](x).mul(0.0) + RAND[0](x), lambda x: RAND[0](x) + 1], ids=["none", "two", "other"]
)
def test_a_draw_that_is_not_made_is_told(tmp_path, tolerance, other):
    """Where nothing is drawn, or more than once, the random states differ even if the numbers do not."""
    verdict = verdict_on(tmp_path, partial(Noisy, UNIFORM[0], _ones), partial(Noisy, other, _ones), tolerance, random_only)
    assert verdict.outcome == MISMATCH, verdict.reasons


OTHER = (
    (UNIFORM[0], lambda x: torch.empty_like(x).uniform_(0, 1.5)),
    (UNIFORM[0], lambda x: torch.rand(x.shape[::-1], dtype=x.dtype).T),
    (UNIFORM[0], lambda x: torch.rand_like(x[:1]).expand_as(x)),
    (UNIFORM[0], lambda x: torch.randn_like(x)),
    (NORMAL[0], lambda x: torch.empty_like(x).normal_(std=2)),
    (WHOLE[0], lambda x: torch.randint(6, x.shape)),
    (WHOLE[0], lambda x: torch.randint(1, 7, x.shape)),
    (WHOLE[0], lambda x: torch.rand_like(x) * 7),
    (DROPPED[0], lambda x: torch.dropout(x, 0.3, True)),
    (DROPPED[0], lambda x: torch.dropout(x, 0.4, False)),
)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_another_draw_is_a_mismatch(tmp_path, tolerance, one, other):
    verdict = verdict_on(tmp_path, partial(Noisy, one), partial(Noisy, other), tolerance, random_only)
    assert verdict.outcome == MISMATCH, verdict.reasons

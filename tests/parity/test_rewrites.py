"""A rewrite that keeps every bit matches, and the fault nearest to it does not: arguments, wrappers, order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH

from .rewrites import BOTH, DIM, verdict_on

pytestmark = pytest.mark.parametrize("tolerance", BOTH, ids=lambda tolerance: tolerance.name)


class Scale(nn.Module):
    """Multiplies two tensors and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor, weight: Tensor, factor: float = 2.0) -> Tensor:
        return self.fc(x * weight) * factor


class Model(nn.Module):
    """Calls ``part`` on the input; the loss is the mean of what ``loss`` gives."""

    def __init__(self, part: Callable[[], nn.Module] = Scale, call: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.part, self.call = part(), call or (lambda part, x, weight: part(x, weight))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.call(self.part, x, x.sigmoid()).square().mean()}


class OtherNames(Scale):
    def forward(self, inputs: Tensor, scales: Tensor, gain: float = 2.0) -> Tensor:
        return super().forward(inputs, scales, gain)


class Reordered(Scale):
    def forward(self, *, factor: float = 2.0, weight: Tensor, x: Tensor) -> Tensor:
        return super().forward(x, weight, factor)


class Starred(Scale):
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(*args, **kwargs)


class MoreArguments(Scale):
    def forward(self, x: Tensor, weight: Tensor, factor: float = 2.0, mask: Tensor | None = None, eps: float = 1e-5):
        return super().forward(x, weight, factor)


class HiddenFactor(Scale):
    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return super().forward(x, weight, 2.0)


HARMLESS_ARGUMENTS = {
    "other names": partial(Model, OtherNames),
    "by keyword in another order": partial(Model, Scale, lambda part, x, w: part(weight=w, x=x)),
    "another order of parameters": partial(Model, Reordered, lambda part, x, w: part(x=x, weight=w)),
    "args and kwargs": partial(Model, Starred, lambda part, x, w: part(x, weight=w)),
    "args": partial(Model, Starred),
    "None given": partial(Model, MoreArguments, lambda part, x, w: part(x, w, mask=None)),
    "a number more": partial(Model, MoreArguments, lambda part, x, w: part(x, w, 2.0, None, 0.1)),
    "a number less": partial(Model, HiddenFactor),
    "known tensor more": partial(Model, MoreArguments, lambda part, x, w: part(x, w, mask=x)),
    "default given": partial(Model, Scale, lambda part, x, w: part(x, w, 2.0)),
    "whole number": partial(Model, Scale, lambda part, x, w: part(x, w, 2)),
    "numpy number": partial(Model, Scale, lambda part, x, w: part(x, w, np.float32(2.0))),
    "numpy whole number": partial(Model, Scale, lambda part, x, w: part(x, w, np.int64(2))),
    "tensor for a number": partial(Model, Scale, lambda part, x, w: part(x, w, torch.tensor(2))),
    "tensor of one number": partial(Model, Scale, lambda part, x, w: part(x, w, torch.tensor([2.0]))),
}


@pytest.mark.parametrize("new", HARMLESS_ARGUMENTS.values(), ids=HARMLESS_ARGUMENTS.keys())
def test_other_ways_to_pass_the_same_match(tmp_path, tolerance, new):
    verdict = verdict_on(tmp_path, Model, new, tolerance)
    assert verdict.outcome == MATCH, verdict.reasons


class Unused(Scale):
    """Computes as the legacy side does, whatever it is given as ``mask``."""

    def forward(self, x: Tensor, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x, weight)


FAULTY_ARGUMENTS = {
    "swapped under other names": (
        partial(Model, OtherNames, lambda part, x, w: part(w + 0.0, x * 1.5)), "the detector",
    ),
    "another number": (partial(Model, Scale, lambda part, x, w: part(x, w, 2.0000002)), "the detector"),
    "another default": (partial(Model, type("D", (Scale,), {"forward": lambda self, x, weight, factor=3.0:
                                                             Scale.forward(self, x, weight, factor)})), "the detector"),
    "another tensor under another name": (
        partial(Model, OtherNames, lambda part, x, w: part(x, w * 1.01)), "the detector",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("new", "where"), FAULTY_ARGUMENTS.values(), ids=FAULTY_ARGUMENTS.keys())
def test_other_arguments_are_a_mismatch_of_the_caller(tmp_path, tolerance, new, where):
    verdict = verdict_on(tmp_path, Model, new, tolerance)
    assert verdict.outcome == MISMATCH and verdict.divergence.where == where, verdict.divergence


def test_argument_that_the_new_side_forgets_is_no_match_even_without_effect(tmp_path, tolerance):
    legacy = partial(Model, Unused, lambda part, x, w: part(x, w, x > 0))
    verdict = verdict_on(tmp_path, legacy, partial(Model, Unused), tolerance)
    assert verdict.outcome == INCOMPARABLE and "without `mask`" in verdict.divergence.message


def test_argument_more_of_unknown_content_is_no_match(tmp_path, tolerance):
    new = partial(Model, Unused, lambda part, x, w: part(x, w, x + 1))
    assert verdict_on(tmp_path, partial(Model, Unused), new, tolerance).outcome == INCOMPARABLE

"""Random draws that do not stand in a function's result, or change a tensor in place, are recorded and can be forced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from legacy_adapters.recording import taps
from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.trace_writer import TraceWriter
from parity.traces.trace import Trace, decisions

from .test_taps import use

X = torch.linspace(-1.0, 1.0, 60).reshape(3, 4, 5)
KEPT = torch.arange(60).reshape(3, 4, 5) % 3 > 0


def plain(call, seed=0):
    torch.manual_seed(seed)
    return call()


def recorded(folder: Path, call, replay=None, seed=0):
    torch.manual_seed(seed)
    result, records = use(folder, taps.random_taps(), call, replay)
    return result, records, torch.get_rng_state()


def drawn(folder: Path, call, seed: int):
    """Return the result and what was drawn, as a bundle for a replay."""
    torch.manual_seed(seed)
    recorder = Recorder(TraceWriter(str(folder)))
    with taps.installed(taps.random_taps(), recorder, None), recorder.in_phase("train"):
        result = call()
    recorder.writer.finish({}, dict(recorder.coverage(), without_gradient=[]))
    return result, decisions(Trace.load(folder))


@pytest.mark.parametrize("x", [X, X.transpose(0, 1), X[:, ::2]], ids=["contiguous", "transposed", "strided"])
@pytest.mark.parametrize("inplace", [False, True])
def test_recording_dropout_changes_no_bit_of_it(tmp_path, x, inplace):
    def call():
        return functional.dropout(x.clone(), 0.3, inplace=inplace)

    result, records, state = recorded(tmp_path, call)
    assert torch.equal(result, plain(call)) and torch.equal(state, torch.get_rng_state())
    assert [(r.kind, r.name, r.slot) for r in records] == [
        ("basis", "dropout", "dropout.shape"), ("basis", "dropout", "dropout.p"), ("tap", "dropout", "draw"),
    ]  # fmt: skip


ATTENTION = nn.MultiheadAttention(5, 1, dropout=0.3)
DRAWS = {
    "dropout": lambda: nn.Dropout(0.3)(X),
    "dropout in place": lambda: nn.Dropout(0.3, inplace=True)(X.clone()),
    "dropout of attention": lambda: ATTENTION(X, X, X)[0],
    "bernoulli": lambda: torch.bernoulli(X.abs()),
    "bernoulli in place": lambda: torch.empty(3, 4).bernoulli_(0.3),
    "permutation": lambda: torch.randperm(7),
    "permutation by name": lambda: torch.randperm(n=7),
}


@pytest.mark.parametrize("call", DRAWS.values(), ids=list(DRAWS))
def test_replayed_draw_gives_the_same_result_whatever_the_generator_says(tmp_path, call):
    with torch.no_grad():
        result, bundle = drawn(tmp_path / "first", call, seed=1)
        again, _, _ = recorded(tmp_path / "again", call, bundle, seed=2)
        other = plain(call, seed=2)
    assert len(bundle) == 1 and torch.equal(again, result) and not torch.equal(other, result)


def test_forced_dropout_has_the_gradient_of_what_it_keeps(tmp_path):
    x = X.clone().requires_grad_()
    result, _, state = recorded(tmp_path, lambda: functional.dropout(x, 0.5), {"train/dropout/0/draw": KEPT})
    result.sum().backward()
    assert torch.equal(result, X * KEPT * 2.0) and torch.equal(x.grad, KEPT * 2.0)
    plain(lambda: functional.dropout(X, 0.5))
    assert torch.equal(state, torch.get_rng_state())  # it draws all the same, and throws that away


@pytest.mark.parametrize("module", [nn.Dropout(0.0), nn.Dropout(1.0), nn.Dropout(0.5).eval()])
def test_dropout_that_draws_nothing_is_no_draw(tmp_path, module):
    assert not recorded(tmp_path, lambda: module(X))[1]


def test_dropout_under_gradient_checkpointing_keeps_the_forced_elements_in_both_runs(tmp_path):
    from torch.utils.checkpoint import checkpoint

    x = X.clone().requires_grad_()
    weight = torch.full((5,), 2.0, requires_grad=True)

    def call():
        def layer(x):
            return functional.dropout(x * weight, 0.5)

        checkpoint(layer, x, use_reentrant=False).sum().backward()

    recorded(tmp_path, call, {"train/dropout/0/draw": KEPT})
    assert torch.equal(x.grad, KEPT * 4.0)


def test_permutation_of_another_length_is_not_forced(tmp_path):
    result, _, _ = recorded(tmp_path, lambda: torch.randperm(4), {"train/noise/0/draw": torch.tensor([1, 0])})
    assert sorted(result.tolist()) == [0, 1, 2, 3]

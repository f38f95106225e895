"""What models of anybody's own do that is easy to miss: hooks on tensors, anchors, several backward passes, output names."""

import threading

import pytest
import torch
from torch import nn

import parity
from converters.rules.mapping import Rename
from parity.scripts.checking import Checked
from parity.scripts.goldens import check_module, record_module
from parity.scripts.outputs import renamed_outputs

X = torch.linspace(-1, 1, 12).reshape(3, 4)


class Net(nn.Module):
    """Two layers and what is made of them."""

    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.own = nn.Linear(4, 5), nn.Linear(4, 5), forward

    def forward(self, x):
        return self.own(self, x)


def both(self, x):
    return self.a(x), self.b(x)


def test_hooks_on_parameters_are_part_of_a_model():
    old, new = Net(both), Net(both)
    old.a.weight.register_hook(lambda gradient: gradient * 0.5)
    verdict = parity.check(old, new, X)
    assert (verdict.outcome, verdict.divergence.where) == (parity.MISMATCH, "a.weight")
    assert parity.check(old, old, X).outcome == parity.MATCH


def test_tensors_that_are_no_buffers_are_widened_for_the_run_in_float64():
    class Anchored(nn.Module):
        def __init__(self, shift=0.0):
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.anchors = nn.Linear(4, 4), [torch.arange(4.0) + shift]

        def forward(self, x):
            return self.layer(self.anchors[0]) + x.mean()

    assert parity.check(Anchored(), Anchored(0.1), X).outcome == parity.MISMATCH


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_gradients_of_gradients_are_compared(factor):
    class Forces(nn.Module):
        def __init__(self, factor=1.0):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.factor = nn.Linear(4, 8), nn.Linear(8, 1), factor

        def forward(self, x):
            x = x.detach().requires_grad_()
            energy = self.b(self.a(x).tanh()).sum()
            return energy, torch.autograd.grad(energy, x, create_graph=True)[0] * self.factor

    expected = parity.MATCH if factor == 1.0 else parity.MISMATCH
    assert parity.check(Forces(), Forces(factor), X).outcome == expected


@pytest.mark.parametrize(
    ("forward", "where", "says"),
    [
        (lambda self, x: (self.a(x), self.b(x).detach()), "the model", "gives an output 1 that is cut off"),
        (lambda self, x: (*both(self, x), self.a(x) * 2), "the model", "The new model alone gives the output `2`"),
    ],
    ids=["cut off", "one more"],
)
def test_an_output_is_blamed_and_not_the_loss_that_is_made_of_it(forward, where, says):
    divergence = parity.check(Net(both), Net(forward), X).divergence
    assert divergence.where == where and says in divergence.message


def named(first, second):
    return lambda self, x: {first: self.a(x), second: self.b(x)}


@pytest.mark.parametrize(
    ("forward", "renamed"),
    [
        (named("boxes", "scores"), ()),
        (both, ()),
        (lambda self, x: [named("boxes", "scores")(self, x)], ()),
        (named("boxes", "logits"), (("scores", "logits"),)),
        (lambda self, x: both(self, x)[::-1], (("boxes", "1"), ("scores", "0"))),
    ],
    ids=["same", "tuple", "within a list", "other name", "other order"],
)
def test_outputs_under_other_names_are_told(forward, renamed):
    verdict = parity.check(Net(named("boxes", "scores")), Net(forward), X)
    assert verdict.outcome == parity.MATCH and verdict.renamed_outputs == renamed
    assert ("outputs under other names" in parity.summary(verdict)) == bool(renamed)
    assert renamed_outputs([]) == ()


def test_a_golden_file_asks_for_the_same_output_names():
    golden = record_module(Net(named("boxes", "scores")), Checked(X), print)
    assert check_module(golden, Net(named("boxes", "scores")), Checked(X), print).outcome == parity.MATCH
    verdict = check_module(golden, Net(named("boxes", "logits")), Checked(X), print)
    assert verdict.outcome == parity.MISMATCH and "`logits` where `scores` was recorded" in verdict.reasons[0]


class WrongInFloat32(torch.autograd.Function):
    """Hands on what it is given; its backward is wrong in float32 only."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 0.75 if gradient.dtype == torch.float32 else gradient


def test_gradients_that_use_the_room_of_a_jump_are_counted():
    verdict = parity.check(Net(both), Net(lambda self, x: (WrongInFloat32.apply(self.a(x)), self.b(x))), X)
    assert "gradients of these within half their size only" in parity.summary(verdict)


def test_weights_that_no_rule_pairs_are_not_said_to_change_on_one_side_only(tmp_path):
    for name in ("old", "new"):
        torch.manual_seed(0)
        model = nn.Sequential()
        model.add_module(name, nn.Linear(4, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with parity.capture(model, tmp_path / name):
            model(X).sum().backward()
            optimizer.step()
    verdict = parity.compare(tmp_path / "old", tmp_path / "new")
    assert verdict.outcome == parity.INCOMPARABLE and "is changed" not in parity.summary(verdict)
    assert "was asked for" not in parity.summary(verdict) and "Give rules" in parity.summary(verdict)


def test_calls_by_several_threads_at_a_time_are_refused(tmp_path):
    meeting = threading.Barrier(2)

    def forward(self, x):
        meeting.wait(10)
        return self.a(x)

    model = Net(forward)
    with pytest.raises(parity.INPUT_ERRORS, match="Several threads"), parity.capture(model, tmp_path / "t"):
        threads = [threading.Thread(target=model, args=(X,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not list(tmp_path.iterdir())


def test_what_was_compiled_in_place_is_refused_and_a_rule_alone_is_taken(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].compile()
    with pytest.raises(parity.INPUT_ERRORS, match="Module `0` was compiled in place"):
        parity.check(model, model, X)
    with pytest.raises(parity.INPUT_ERRORS, match="takes no key"):
        parity.check(nn.Linear(4, 4), nn.Linear(4, 4), X, rules=Rename("a.*", "b.*"))

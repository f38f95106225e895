"""What cannot be said of modules and scripts, and why: in one sentence each, never a match."""

import threading
from dataclasses import replace

import pytest
import torch
from torch import nn

import parity
from converters.rules.mapping import Rename, Split
from parity.scripts.checking import Checked
from parity.scripts.goldens import check_module, record_module, too_loose
from parity.scripts.judging import judge_scripts
from parity.traces.kinds import FLOW
from parity.traces.trace import Trace

X = torch.linspace(-1, 1, 12).reshape(3, 4)


class Net(nn.Module):
    """Two layers and what is made of them; ``options`` are for that."""

    def __init__(self, forward, **options):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.norm, self.own = nn.Linear(4, 5), nn.Linear(5, 5), nn.LayerNorm(5), forward
        self.options = options

    def forward(self, x, *more):
        return self.own(self, x, *more)


def plain(self, x, *more):
    return self.norm(self.b(self.a(x)))


def scaled(self, x):
    return plain(self, x) * self.options.get("factor", 1.0)


def only_in_float32(self, x):
    if x.dtype == torch.float64:
        raise TypeError("float32 only")
    return scaled(self, x)


def other_path_in_float64(self, x):
    return plain(self, x) if x.dtype == torch.float32 else self.norm(self.a(x))


def refused(call, *arguments, **options):
    with pytest.raises(parity.INPUT_ERRORS) as raised:
        call(*arguments, **options)
    text = str(raised.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("forwards", [(only_in_float32, scaled), (scaled, only_in_float32)], ids=["old", "new"])
def test_what_stops_in_float64_has_no_measured_rounding(forwards):
    side = "old" if forwards[0] is only_in_float32 else "new"
    old, new = (Net(forward, factor=factor) for forward, factor in zip(forwards, (1.0, 1.0 + 1e-6)))
    verdict = parity.check(old, new, X)
    assert verdict.outcome == parity.INCOMPARABLE
    assert f"in float64 the {side} side stops with TypeError: float32 only" in verdict.reasons[0]
    assert verdict.reasons[0].endswith("Pass tolerance='fixed' or 'exact'.")
    assert parity.check(old, new, X, tolerance="fixed", rtol=1e-3, atol=1e-5).outcome == parity.MATCH


@pytest.mark.parametrize("options", [dict(gradients=True), dict(loss=lambda out: out.sum())], ids=["asked", "own loss"])
def test_a_model_without_gradients_cannot_go_backward(options):
    cut = Net(lambda self, x: plain(self, x).detach())
    assert parity.check(cut, cut, X).outcome == parity.MATCH
    assert refused(parity.check, cut, cut, X, **options).startswith("Nothing that the model gives needs a gradient;")


def test_what_cannot_be_copied_is_said_with_what_to_do_instead():
    locked = Net(plain)
    locked.lock = threading.Lock()
    text = refused(parity.check, locked, Net(plain), X)
    assert text.startswith("old cannot be copied (TypeError: ") and text.endswith("record it with parity.capture instead.")
    text = refused(parity.check, Net(plain), Net(plain), X.clone().requires_grad_() * 2)
    assert text.startswith("The inputs cannot be copied (RuntimeError: ") and "detach their tensors first." in text


def test_hooks_on_gradients_that_were_added_up_are_part_of_a_model():
    old, new = Net(plain), Net(plain)

    def halve(weight):
        weight.grad.mul_(0.5)

    old.a.weight.register_post_accumulate_grad_hook(halve)
    verdict = parity.check(old, new, X)
    assert (verdict.outcome, verdict.divergence.where) == (parity.MISMATCH, "a.weight")


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, parity.MATCH), (1.001, parity.MISMATCH)])
def test_complex_weights_are_held_to_their_rounding(factor, outcome):
    class Turned(nn.Module):
        def __init__(self, turn, factor):
            super().__init__()
            self.angle, self.turn, self.factor = nn.Parameter(torch.polar(torch.ones(4), torch.arange(4.0))), turn, factor

        def forward(self, x):
            return torch.view_as_real(self.turn(x, self.angle)) * self.factor

    two_products = Turned(lambda x, a: torch.complex(x * a.real, x * a.imag), 1.0)
    halves = Turned(lambda x, a: (x / 3 * a) * 3, factor)
    assert parity.check(two_products, halves, X).outcome == outcome


def script(model, folder, steps):
    with parity.capture(model, folder) as recording:
        steps(model, recording)
    return folder


def compared(tmp_path, old_steps, new_steps, old=None, new=None):
    script(old or Net(plain), tmp_path / "old", old_steps)
    script(new or Net(plain), tmp_path / "new", new_steps)
    return parity.compare(tmp_path / "old", tmp_path / "new")


def test_an_input_that_one_script_alone_gives_is_no_difference_of_the_models(tmp_path):
    verdict = compared(tmp_path, lambda model, _: model(X), lambda model, _: model(X, 2 * X))
    assert verdict.outcome == parity.INCOMPARABLE
    assert "Only one model is given `" in verdict.reasons[0] and verdict.reasons[0].endswith("give both the same inputs.")


def test_modules_alone_say_nothing_of_the_model_around_them(tmp_path):
    verdict = compared(tmp_path, lambda model, _: model.a(X), lambda model, _: model.a(X))
    assert verdict.outcome == parity.INCOMPARABLE
    assert verdict.reasons[0].startswith("The model itself is not called in the block, only modules of it")


def test_results_that_are_recorded_stand_for_the_model(tmp_path):
    def steps(model, recording):
        recording.tap("result", model.a(X) * 2)

    assert compared(tmp_path, steps, steps).outcome == parity.MATCH


def test_a_loss_is_blamed_where_both_models_give_the_same(tmp_path):
    def times(factor):
        return lambda model, _: (model(X).square().sum() * factor).backward()

    verdict = compared(tmp_path, times(1.0), times(2.0))
    assert verdict.outcome == parity.MISMATCH and "loss" in verdict.divergence.message


def test_a_module_is_blamed_and_not_the_weights_that_are_changed_after_it(tmp_path):
    def once_more(model, _):
        model(X)
        with torch.no_grad():
            model.a.weight.mul_(2)
        model(X)

    new = Net(plain)
    new.norm.eps = 0.1
    verdict = compared(tmp_path, lambda model, _: (model(X), model(X)), once_more, new=new)
    assert (verdict.outcome, verdict.divergence.where) == (parity.MISMATCH, "norm")


def test_equal_gradients_of_before_are_not_what_differs(tmp_path):
    def steps(model, _):
        model(X).square().sum().backward()

    models = [Net(plain), Net(plain)]
    for model in models:
        model.a.weight.grad = torch.ones_like(model.a.weight)
    models[1].b.weight.register_hook(lambda gradient: gradient * 2)
    verdict = compared(tmp_path, steps, steps, *models)
    assert (verdict.outcome, verdict.divergence.where) == (parity.MISMATCH, "b.weight"), verdict.reasons


def test_gradients_between_modules_count_where_both_sides_recorded_them(tmp_path):
    def steps(model, _):
        model(X).square().sum().backward()

    one, two = (Trace.load(script(Net(plain), tmp_path / name, steps)) for name in ("one", "two"))
    older = replace(one, records=tuple(record for record in one.records if record.kind not in FLOW),
                    provenance={**one.provenance, "gradient_flow": False})  # fmt: skip
    for sides in ((older, two), (two, older)):
        verdict = judge_scripts(*sides, ())
        assert verdict.outcome == parity.MATCH and not any(c.pair.new.kind in FLOW for c in verdict.comparisons)
    assert any(c.pair.new.kind in FLOW for c in judge_scripts(one, two, ()).comparisons)


def test_a_golden_file_takes_renaming_rules_only():
    golden = record_module(Net(plain), Checked(X), print)
    rules = [Split("a.weight", ("first.weight", "second.weight"))]
    text = refused(check_module, golden, Net(plain), Checked(X, rules=rules), print)
    assert text.startswith("A golden file holds no whole tensors, so rules with it can only rename;")


def fails(self, x):
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (fails, "Nothing is recorded: the module stops with ValueError: no such thing"),
        (only_in_float32, "Nothing is recorded: in float64 the module stops with TypeError: float32 only"),
        (other_path_in_float64, "In float64 the module does not compute module_in `b`"),
    ],
    ids=["at once", "in float64", "another path in float64"],
)
def test_no_golden_file_is_made_of_what_does_not_run_to_its_end(forward, says):
    assert refused(record_module, Net(forward), Checked(X), print).startswith(says)


def test_weights_of_other_last_bits_that_the_file_does_not_hold_are_refused():
    golden = replace(record_module(Net(plain), Checked(X), print), given={})
    model = Net(plain)
    with torch.no_grad():
        model.a.weight.mul_(1 + 1.2e-7)
    text = refused(check_module, golden, model, Checked(X), print)
    assert text.startswith("The weights differ from those that were recorded in their last bits: `a.weight`.")
    assert text.endswith("let the test load the weights from a file.")


def test_rounding_that_could_hide_an_error_is_told():
    cancelled = Net(lambda self, x: self.norm(self.a(x) + 1e7 - 1e7))
    text = too_loose(record_module(cancelled, Checked(X), print))
    assert text.startswith("The rounding of ") and "Use weights and inputs that are better conditioned." in text
    assert too_loose(record_module(Net(plain), Checked(X), print)) == ""


def test_a_rule_that_gives_a_key_which_stays_is_refused():
    old = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    text = refused(parity.check, old, old, X, rules=[Rename("0.*", "1.*")])
    assert "Rule 0 (`rename 0.* -> 1.*`) gives `1." in text and "of its own that no rule takes" in text


def test_a_golden_file_in_place_of_a_module_is_sent_to_its_own_function():
    text = refused(parity.check, "net.npz", Net(plain), X)
    assert text == "Expected a torch.nn.Module, found 'net.npz'; a golden file is checked by parity.check_golden."

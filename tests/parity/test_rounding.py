"""Under derived tolerance what is only rounding is held to zero in float64, whatever order a port sums in."""

import json
from pathlib import Path

import pytest
import torch

from legacy_adapters.recording.trace_writer import Record
from parity.comparing import derived
from parity.comparing.compare import Tolerance
from parity.comparing.derived import only_rounding
from parity.comparing.evidence import Norms, TraceEvidence, spreads
from parity.comparing.layers import Layers
from parity.comparing.pairing import Pair
from parity.verdict.verdict import MATCH, MISMATCH, judge

from .synthetic import SAME_NAMES, Rec, write_trace
from .test_derived import sample
from .test_families import parity

FAMILY = Path(__file__).with_name("rounding_family")
BIASES = ["conv.bias", "key.bias"]
RUN = ("--tolerance", "derived", "--check", "train", "--steps", 2, "--threads", 1, "--json")


@pytest.mark.parametrize(
    ("size", "spread", "expected"),
    [
        (1e-17, 1e-9, True),
        (0.0, 1e-9, True),
        (1e-12, 1e-9, False),  # small, and yet no rounding in float64
        (1e-9, 1e-9, False),
        (1.0, 1e-9, False),
        (0.0, 0.0, False),  # zero in every run: its step is compared as ever
        (1e-17, 0.0, False),
    ],
)
def test_a_gradient_is_only_rounding_if_float64_tells_it_from_zero_by_no_more(size, spread, expected):
    assert only_rounding(sample([size, 0.0], spread=Norms(spread, spread))) is expected


def family_with(folder, right, wrong):
    """Return a copy of the family with an error in its port."""
    folder.mkdir()
    for file in FAMILY.glob("*.py"):
        code = file.read_text()
        assert file.name != "new.py" or right in code
        (folder / file.name).write_text(code.replace(right, wrong) if file.name == "new.py" else code)
    return folder


def test_steps_of_biases_without_effect_are_named_and_all_else_matches():
    result = parity("run", "--family", FAMILY, *RUN)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["verdict"] == "MATCH" and report["seeds_before"] == []
    assert sorted(report["only_rounding"]) == BIASES


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        # what has no effect gets one, so that its gradient is not zero but for rounding any more
        ("self.key.bias.sum()", "key.bias"),
        # what has an effect gets a little more
        ("(self.query.bias.detach() - self.query.bias).sum()", "query.bias"),
    ],
)
def test_a_wrong_gradient_is_found_all_the_same(tmp_path, wrong, name):
    right = "mean(1)).flip(0)"
    family = family_with(tmp_path / "family", right, f"{right} + {wrong} * points.new_tensor([0.0, 0.0, 1e-4])")
    result = parity("run", "--family", family, *RUN)
    assert result.exit_code == 1, result.output
    differing = [one for one in json.loads(result.stdout)["differing"] if not one["accepted"]]
    assert name in {one["name"] for one in differing if one["kind"] == "grad"}


LAYERS, WIDTH, ROWS = 12, 8, 24


def gradients(precision=torch.float32, order=None, last_bit=None, real=0.0, swapped=False, noise=1.0):
    """Return the gradients that attention over some rows has for its keys, of layers with weights of their own.

    Args:
        precision: that it computes in.
        order: seed of the order of rows, over which gradients are sums; None for the legacy side's.
        last_bit: seed of a change of the weights in the last bit.
        real: share of its sum that the bias of the keys has an effect by.
        swapped: the gradients of the biases of keys and queries have changed places.
        noise: times that what is left of a sum that cancels is larger.
    """
    records = []
    for seed in range(LAYERS):
        draws = torch.Generator().manual_seed(seed)
        x = torch.randn(ROWS, WIDTH, generator=draws)
        weights = [torch.randn(WIDTH, WIDTH, generator=draws) / WIDTH**0.5 for _ in range(2)]
        biases = [torch.randn(WIDTH, generator=draws) for _ in range(2)]
        if last_bit is not None:
            bits = torch.Generator().manual_seed(last_bit)
            weights = [w * (1 + 2.0**-23 * torch.randint(-1, 2, w.shape, generator=bits)) for w in weights]
        rows = torch.arange(ROWS) if order is None else torch.randperm(ROWS, generator=torch.Generator().manual_seed(order))
        x, goal = x[rows].to(precision), torch.randn(ROWS, WIDTH, generator=draws)[rows].to(precision)
        query, key = (torch.nn.Linear(WIDTH, WIDTH).to(precision) for _ in range(2))
        with torch.no_grad():
            for linear, weight, bias in zip((query, key), weights, biases):
                linear.weight.copy_(weight)
                linear.bias.copy_(bias)
        scores = (query(x) @ key(x).t()).softmax(-1) @ x  # [rows, width]
        ((scores * goal).sum() + real * key.bias.sum()).backward()
        grads = {"key.weight": key.weight.grad, "key.bias": noise * key.bias.grad, "query.bias": query.bias.grad}
        if swapped:
            grads["key.bias"], grads["query.bias"] = grads["query.bias"], grads["key.bias"]
        records += [Rec("grad", f"layers.{seed}.{name}", grad) for name, grad in grads.items()]
    return records


def judged(folder, **port):
    """Judge the gradients of a port against those of the legacy side, which has been run four times."""
    sides = dict(legacy=gradients(), reference=gradients(torch.float64), new=gradients(**port),
                 new_reference=gradients(torch.float64, **port))  # fmt: skip
    traces = {name: write_trace(folder / name, *records) for name, records in sides.items()}
    runs = [write_trace(folder / f"run{seed}", *gradients(last_bit=seed)) for seed in range(3)]
    evidence = TraceEvidence(spread=spreads([traces["legacy"], *runs], traces["reference"]), **traces)
    return judge(traces["legacy"], traces["new"], SAME_NAMES, (), Tolerance("derived"), evidence)


@pytest.mark.parametrize("order", range(4))
def test_a_port_may_sum_what_cancels_in_any_order(tmp_path, order):
    verdict = judged(tmp_path, order=order)
    assert verdict.outcome == MATCH, [(c.pair.new.name, c.difference.note) for c in verdict.comparisons if not c.accepted]
    zero = {c.pair.new.name for c in verdict.comparisons if c.finding is not None and c.finding.is_zero}
    assert zero == {f"layers.{layer}.key.bias" for layer in range(LAYERS)}


def test_spreads_of_the_legacy_side_alone_would_reject_more_rounding(tmp_path, monkeypatch):
    assert judged(tmp_path / "all", noise=40.0).outcome == MATCH
    monkeypatch.setattr(derived, "REMAINS", 0.0)
    assert judged(tmp_path / "alone", noise=40.0).outcome == MISMATCH


@pytest.mark.parametrize("fault", [dict(real=1e-6), dict(swapped=True)], ids=str)
def test_a_gradient_that_should_cancel_and_does_not_is_found(tmp_path, fault):
    verdict = judged(tmp_path, order=1, **fault)
    assert verdict.outcome == MISMATCH
    rejected = {c.pair.new.name: c.difference.note for c in verdict.comparisons if not c.accepted}
    assert {f"layers.{layer}.key.bias" for layer in range(LAYERS)} <= set(rejected)
    assert rejected["layers.0.key.bias"].endswith("on the legacy side it is zero but for rounding, as float64 shows")


@pytest.mark.parametrize(("sizes", "expected"), [
    ({"a.b.key.bias": 0.0, "a.b.key.weight": 4.0, "a.c.weight": 2.0}, 4.0),
    # nothing else in the layer is more than rounding, nor in the one around it
    ({"a.b.key.bias": 0.0, "a.b.key.weight": 0.0, "a.c.weight": 2.0, "head.weight": 8.0}, 2.0),
    ({"a.b.key.bias": 0.0, "head.weight": 8.0}, 8.0),
    ({"a.b.key.bias": 0.0}, 0.0),
])  # fmt: skip
def test_rounding_is_measured_by_the_innermost_layer_that_has_more_than_that(sizes, expected):
    class Evidence:
        def sample(self, pair):
            return sample([sizes[pair.new.name], 0.0], spread=Norms(1e-9, 1e-9))

    records = [Record("train", "grad", name, 0, "", "F32", (2,), name, "") for name in sizes]
    pairs = [Pair(record, record) for record in records]
    layers = Layers(pairs, Evidence())
    assert layers.size(pairs[0].new) == expected
    assert layers.size(Record("predict", "grad", "a.b.key.bias", 0, "", "F32", (2,), "", "")) == 0.0  # of another phase

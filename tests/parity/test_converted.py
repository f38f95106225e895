"""Parameters that rules split, join or change otherwise are compared as the new side has them, element by element."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from converters.rules import engine, layout
from converters.rules.layout import Layout
from converters.rules.mapping import Concat, Keep, Mapping, Reshape, Slice, Split
from legacy_adapters.training.states import RecordedStates
from parity.cli.main import cli
from parity.comparing.compare import DERIVED, Tolerance
from parity.comparing.converted import in_new_form
from parity.comparing.evidence import TraceEvidence, spreads
from parity.comparing.pairing import LEGACY, NEW
from parity.sides.sides import states_in_new_form, twin_names
from parity.traces.trace import TraceError
from parity.verdict.initial import initial_differences
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH, judge

from ..fused import MAPPING, Legacy, New, image, legacy_weights
from .synthetic import Rec, judged, write_trace

CHECKS = ["grad", "train"]
TRAIN = dict(checks=CHECKS, steps=1, clip_order="twin", epoch_length="endless", forced=False, optimizer="AdamW",
             optimizer_groups=1, frozen_in_groups=0)  # fmt: skip


def trained(model, weights, clip=0.0):
    """Return the records of a model's weights, of a pass forward and back, and of one step of AdamW."""
    model.load_state_dict(weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.125, betas=(0.5, 0.75))
    records = [Rec("param", name, value.clone(), phase="weights") for name, value in model.state_dict().items()]

    def backward():
        optimizer.zero_grad()
        result = model(image())
        total = (result * torch.arange(1.0, 4.0)).sum()
        total.backward()
        return result, total

    result, total = backward()
    records += [Rec("module_out", "", result), Rec("loss", "total", total)]
    records += [Rec("grad", name, value.grad.clone()) for name, value in model.named_parameters()]
    _, total = backward()
    records.append(Rec("loss", "total", total, phase="step 1"))
    for name, value in model.named_parameters():
        records.append(Rec("setting", name, torch.tensor(0.125, dtype=torch.float64), "lr", phase="step 1"))
        records.append(Rec("grad", name, value.grad.clone(), phase="step 1"))
    optimizer.step()
    for name, value in model.named_parameters():
        state = optimizer.state[value]
        records += [Rec("optim_state", name, state[slot].clone(), slot, phase="step 1") for slot in state]
        records.append(Rec("state", name, value.detach().clone(), phase="step 1"))
    return records


@pytest.fixture(scope="module")
def sides():
    """Return the records of both forms of a model on the same weights."""
    weights = legacy_weights()
    specs = Layout("tiny", {key: layout.spec_of(value) for key, value in weights.items()})
    new = engine.convert(weights, MAPPING, "new", specs.mapped(MAPPING)).state_dict
    return trained(Legacy(), weights), trained(New(), dict(new))


def verdict_of(folder, legacy, new, mapping=MAPPING, **kwargs):
    return judged(folder, legacy, new, mapping=mapping, on_legacy=TRAIN, on_new=TRAIN, **kwargs)


def test_both_forms_match_bit_by_bit_in_everything_they_record(tmp_path, sides):
    verdict = verdict_of(tmp_path, *sides)
    assert verdict.outcome == MATCH, verdict.reasons
    assert len(verdict.comparisons) == len(sides[1]) and verdict.coverage.unaccounted == ()
    assert all(comparison.identical for comparison in verdict.comparisons)


def changed(records, kind, name, phase=None, slot="", by=1.0):
    """Return records with the first element of some changed."""
    found = []
    for record in records:
        if (record.kind, record.name, record.slot) == (kind, name, slot) and phase in (None, record.phase):
            value = record.tensor.clone()
            value.reshape(-1)[-1] += by
            record = replace(record, values=value)
        found.append(record)
    assert sum(one is not two for one, two in zip(found, records)) >= 1
    return found


@pytest.mark.parametrize("kind", ["param", "grad", "optim_state", "state"])
@pytest.mark.parametrize(
    "name",
    ["block.q.weight", "block.k.bias", "block.v.weight", "block.gate_up.weight", "block.mix.weight", "block.order",
     "places", "classes.weight"],
)  # fmt: skip
def test_one_other_element_is_found_under_the_name_of_its_parameter(tmp_path, sides, kind, name):
    slot = "exp_avg_sq" if kind == "optim_state" else ""
    verdict = verdict_of(tmp_path, sides[0], changed(sides[1], kind, name, slot=slot))
    assert verdict.outcome == MISMATCH
    rejected = [c for c in verdict.comparisons if not c.accepted]
    assert {(c.pair.new.kind, c.pair.new.name) for c in rejected} == {(kind, name)}
    assert all(c.difference.metrics.max_abs == 1.0 for c in rejected)
    assert name in verdict.divergence.message


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("block.qkv.weight", "block.qkv.weight -> block.v.weight"),
        ("block.up.bias", "block.gate.bias + block.up.bias -> block.gate_up.bias"),
        ("block.mix.weight", "block.mix.weight"),
    ],
)
def test_a_legacy_record_is_called_by_what_it_is_made_of(tmp_path, sides, name, told):
    verdict = verdict_of(tmp_path, changed(sides[0], "grad", name, "train"), sides[1])
    assert [c.pair.legacy.name for c in verdict.comparisons if not c.accepted] == [told]


def test_settings_are_those_of_every_part(tmp_path, sides):
    verdict = verdict_of(tmp_path, sides[0], changed(sides[1], "setting", "block.k.weight", slot="lr"))
    assert verdict.outcome == MISMATCH and "for 1 of 15 parameters: `block.k.weight`." in verdict.divergence.message


@pytest.mark.parametrize(("kind", "slot"), [("setting", "lr"), ("optim_state", "step")])
def test_parts_that_differ_in_what_the_whole_has_once_are_no_match(tmp_path, sides, kind, slot):
    verdict = verdict_of(tmp_path, changed(sides[0], kind, "block.up.bias", slot=slot), sides[1])
    assert verdict.outcome != MATCH
    lone = {(item.side, item.record.name) for item in verdict.coverage.unaccounted}
    assert lone == {(LEGACY, "block.gate.bias"), (LEGACY, "block.up.bias"), (NEW, "block.gate_up.bias")}


def test_a_gradient_of_only_one_part_leaves_the_whole_without_a_twin(tmp_path, sides):
    legacy = [r for r in sides[0] if (r.kind, r.name, r.phase) != ("grad", "block.up.bias", "train")]
    on_legacy = dict(TRAIN, without_gradient=("block.up.bias",))
    verdict = judged(tmp_path, legacy, sides[1], mapping=MAPPING, on_legacy=on_legacy, on_new=TRAIN)
    assert verdict.outcome == INCOMPARABLE
    lone = {(item.side, item.record.kind, item.record.name) for item in verdict.coverage.unaccounted}
    assert lone == {(LEGACY, "grad", "block.gate.bias"), (NEW, "grad", "block.gate_up.bias")}


def test_parameters_without_gradient_are_told_by_their_names_on_the_new_side(tmp_path):
    mapping = Mapping("f", (Split("a", ("b", "c")), Concat(("d", "e"), "f")))
    verdict = judged(tmp_path, [Rec("grad", "d", [1.0])], [], mapping=mapping,
                     on_legacy=dict(without_gradient=("a", "d", "e")), on_new=dict(without_gradient=("b",)))  # fmt: skip
    assert verdict.coverage.gradients_on_one_side == ("c", "f")


def test_a_shape_that_does_not_fit_is_never_passed_over(tmp_path):
    mapping = Mapping("f", (Split("a", ("b", "c")),))
    verdict = judged(tmp_path, [Rec("grad", "a", [1.0, 2.0, 3.0])], [Rec("grad", "b", [1.0]), Rec("grad", "c", [2.0])],
                     mapping=mapping)  # fmt: skip
    assert verdict.outcome == INCOMPARABLE and len(verdict.coverage.unaccounted) == 3


def test_a_rest_that_is_not_the_number_the_rule_says_is_no_match(tmp_path):
    mapping = Mapping("f", (Slice("a", "a", 0, 0, 2, 3, rest=0.0),))
    new = [Rec("param", "a", [1.0, 2.0], phase="weights"), Rec("grad", "a", [1.0, 1.0])]
    for rest, outcome in ((0.0, MATCH), (3.0, MISMATCH)):
        legacy = [Rec("param", "a", [1.0, 2.0, rest], phase="weights"), Rec("grad", "a", [1.0, 1.0, 5.0])]
        assert judged(tmp_path / str(rest), legacy, new, mapping=mapping).outcome == outcome


def test_counts_of_records_still_hold(tmp_path, sides):
    legacy = write_trace(tmp_path / "legacy", *sides[0], **TRAIN)
    made = in_new_form(legacy, MAPPING)
    assert len(made.records) == len(sides[1]) > 0
    assert sum(entry["count"] for entry in made.coverage["records"]) == len(made.records)
    assert in_new_form(made, MAPPING) is made
    assert in_new_form(legacy, Mapping("f", (Keep("**"),))) is legacy


def test_derived_tolerance_rests_on_the_same_parts(tmp_path, sides):
    def run(name, records, dtype=torch.float32, by=0.0):
        records = [replace(r, values=r.tensor.to(dtype) * (1 + by)) if r.kind == "grad" else r for r in records]
        return write_trace(tmp_path / name, *records, **TRAIN)

    legacy, *repeats = (in_new_form(run(f"l{n}", sides[0], by=n * 2.0**-22), MAPPING) for n in range(3))
    reference = in_new_form(run("reference", sides[0], torch.float64), MAPPING)
    spread = spreads([legacy, *repeats], reference)
    for name, by, outcome in (("near", 2.0**-22, MATCH), ("far", 0.75, MISMATCH)):
        new = run(name, sides[1], by=by)
        evidence = TraceEvidence(legacy, reference, spread, new, run(f"{name}64", sides[1], torch.float64))
        verdict = judge(legacy, new, MAPPING, (), Tolerance(DERIVED), evidence)
        assert verdict.outcome == outcome, verdict.reasons
    assert {key[2] for key in spread} >= {"block.qkv.weight -> block.k.weight", "block.order"}


def test_damage_of_a_whole_is_not_taken_for_another_value(tmp_path, sides):
    trace = write_trace(tmp_path / "legacy", *sides[0], **TRAIN)
    (record,) = (r for r in trace.records if (r.kind, r.name, r.phase) == ("grad", "block.qkv.weight", "train"))
    shard = trace.folder / trace.shard_of(record.digest)
    place = trace._files[shard.name].spans[record.digest]
    data = bytearray(shard.read_bytes())
    data[place.start] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(TraceError, match="block.qkv.weight"):
        in_new_form(trace, MAPPING)


def test_a_forced_step_starts_from_the_legacy_state_as_the_new_side_has_it(tmp_path, sides):
    write_trace(tmp_path / "legacy", *sides[0], **TRAIN)
    folder = states_in_new_form(tmp_path / "legacy", MAPPING)
    given = {key: value for *key, value in ((k, n, s, t) for k, n, s, t in RecordedStates(str(folder), {}).after("step 1"))
             for key in [tuple(key)]}  # fmt: skip
    expected = {(r.kind, r.name, r.slot): r.tensor for r in sides[1] if r.kind in ("state", "optim_state")}
    assert given.keys() == expected.keys()
    assert all(torch.equal(given[key], value) for key, value in expected.items())
    assert states_in_new_form(tmp_path / "legacy", MAPPING) == folder


def test_the_new_side_sums_norms_in_the_order_of_the_legacy_parameters(tmp_path, sides):
    legacy = in_new_form(write_trace(tmp_path / "legacy", *sides[0], **TRAIN), MAPPING)
    names = list(twin_names(legacy.records, MAPPING)["setting"])
    assert names == [
        "places", "block.order", "block.q.weight", "block.k.weight", "block.v.weight", "block.q.bias", "block.k.bias",
        "block.v.bias", "block.out.weight", "block.out.bias", "block.gate_up.weight", "block.gate_up.bias",
        "block.mix.weight", "classes.weight", "classes.bias",
    ]  # fmt: skip


def calls(model, weights):
    """Return the records of a model's modules, one of them per layer, and how often each leaf ran."""
    model.load_state_dict(weights)
    records = [Rec("param", name, value.clone(), phase="weights") for name, value in model.state_dict().items()]
    counts = {}

    def hook(name):
        def note(module, given, result):
            records.extend([Rec("module_in", name, given[0].clone(), "0"), Rec("module_out", name, result.clone())])
            if name and not list(module.children()):
                counts[name] = counts.get(name, 0) + 1

        return note

    for name, module in model.named_modules():
        module.register_forward_hook(hook(name))
    with torch.no_grad():
        records.append(Rec("loss", "total", model(image()).sum()))
    return records, counts


@pytest.fixture(scope="module")
def called():
    """Return records and counts of calls of both forms on the same weights."""
    weights = legacy_weights()
    specs = Layout("tiny", {key: layout.spec_of(value) for key, value in weights.items()})
    new = engine.convert(weights, MAPPING, "new", specs.mapped(MAPPING)).state_dict
    return calls(Legacy(), weights), calls(New(), dict(new))


def of_calls(folder, legacy, new, legacy_calls, new_calls):
    return judged(folder, legacy, new, mapping=MAPPING, on_legacy=dict(leaf_calls=legacy_calls, checks=["loss"]),
                  on_new=dict(leaf_calls=new_calls, checks=["loss"]))  # fmt: skip


def test_a_fused_module_is_explained_by_what_is_computed_with_its_results(tmp_path, called):
    (legacy, ours), (new, theirs) = called
    verdict = of_calls(tmp_path, legacy, new, ours, theirs)
    assert verdict.outcome == MATCH, verdict.reasons
    told = {(item.side, item.record.name) for item in verdict.coverage.explained_records}
    # the head gives a row for the background, too, which the new side's has not: its inputs are compared
    assert told == {
        *((LEGACY, f"block.{name}") for name in ("qkv", "gate", "up")), (LEGACY, "head"),
        *((NEW, f"block.{name}") for name in ("q", "k", "v", "gate_up")), (NEW, "classes"),
    }  # fmt: skip
    compared = {(c.pair.legacy.kind, c.pair.legacy.name) for c in verdict.comparisons}
    assert ("module_in", "head") in compared and ("module_out", "block.proj") in compared
    assert verdict.coverage.paired_leaf_calls == verdict.coverage.legacy_leaf_calls == 6


@pytest.mark.parametrize("name", [None, "block.k", "block.gate_up"])
def test_where_calls_are_only_counted_every_part_must_have_its_call(tmp_path, called, name):
    (legacy, ours), (new, theirs) = called
    counted = ("block.qkv", "block.gate", "block.up", "block.q", "block.k", "block.v", "block.gate_up")
    legacy, new = ([r for r in records if r.name not in counted] for records in (legacy, new))
    verdict = of_calls(tmp_path, legacy, new, ours, {n: c for n, c in theirs.items() if n != name})
    missing = verdict.coverage.missing_calls(LEGACY), verdict.coverage.missing_calls(NEW)
    assert (verdict.outcome, missing) == {
        None: (MATCH, (0, 0)), "block.k": (INCOMPARABLE, (1, 2)), "block.gate_up": (INCOMPARABLE, (2, 0)),
    }[name]  # fmt: skip


def test_a_difference_is_blamed_on_what_differs_not_on_a_fused_module(tmp_path, called):
    (legacy, ours), (new, theirs) = called
    verdict = of_calls(tmp_path, legacy, changed(new, "module_out", "block.out"), ours, theirs)
    assert verdict.outcome == MISMATCH and verdict.coverage.unaccounted == ()
    assert verdict.divergence.where == "block.out"


def test_a_family_whose_rules_change_tensors_matches_when_both_sides_run(tmp_path):
    options = ["--check", "forward,loss,grad,train", "--steps", "1", "--threads", "1", "--json", "--tolerance", "fixed"]
    family = Path(__file__).with_name("fused_family")
    # fused and single layers sum in other orders; steps are those of Adam, which divides by what may be rounding
    options += ["--rtol", "1e-3", "--atol", "1e-4", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(cli, ["run", "--family", str(family), *options])
    told = json.loads(result.stdout)
    assert (result.exit_code, told["verdict"]) == (0, MATCH), result.output
    assert told["coverage"]["unaccounted"] == []


def initial(copies=(), written=(), recipes=()):
    return dict(init=dict(recipes=dict(recipes), copies=copies, shared=(), loaded=(), written=dict(written)))


JOINED = Mapping("f", (Split("*.qkv", ("*.q", "*.k")), Concat(("*.gate", "*.up"), "*.gate_up")))
OURS = dict.fromkeys([f"{i}.{name}" for i in (0, 1) for name in ("qkv", "gate", "up")], "normal(0, 1)")
THEIRS = dict.fromkeys([f"{i}.{name}" for i in (0, 1) for name in ("q", "k", "gate_up")], "normal(0, 1)")


@pytest.mark.parametrize(
    ("legacy", "new", "differ"),
    [
        ([["0.qkv", "1.qkv"]], [["0.q", "1.q"], ["0.k", "1.k"]], False),
        ([["0.qkv", "1.qkv"]], [["0.q", "1.q"]], True),
        ([["0.gate", "1.gate"], ["0.up", "1.up"]], [["0.gate_up", "1.gate_up"]], False),
        ([["0.gate", "1.gate"]], [], False),  # the whole is no copy, for its other part is none
        ([["0.gate", "1.gate"]], [["0.gate_up", "1.gate_up"]], True),
    ],
)
def test_copies_of_parts_and_wholes_are_compared(legacy, new, differ):
    found = initial_differences(initial(legacy, recipes=OURS), initial(new, recipes=THEIRS), JOINED, ())
    assert bool(found) is differ


#: A convolution of [rows, channels, places] with a kernel of one place, and a layer of [rows, places, channels].
POINTWISE = Mapping("f", (Reshape("mix.weight", "mix.weight", (3, 3), source_shape=(3, 3, 1)), Keep("out.*")))
CONVOLVED = torch.arange(18.0).reshape(2, 3, 3).cos()


def pointwise(value, kind="module_out", weight=(3, 3, 1)):
    return [
        Rec("param", "mix.weight", torch.arange(9.0).reshape(weight), phase="weights"),
        Rec("module_out", "before", [0.25, 0.75]), Rec(kind, "mix", value), Rec("module_out", "out", [0.5, 1.5]),
    ]  # fmt: skip


@pytest.mark.parametrize("tolerance", [Tolerance(), Tolerance("fixed", rtol=1e-4, atol=1e-6)], ids=lambda one: one.name)
@pytest.mark.parametrize("kind", ["module_in", "module_out", "in_grad", "out_grad"])
def test_a_value_of_a_changed_module_that_is_turned_in_the_same_shape_has_no_twin(tmp_path, kind, tolerance):
    noise = 0.0 if tolerance.name == "exact" else 1e-6
    new = pointwise(CONVOLVED.transpose(1, 2).contiguous() + noise, kind, (3, 3))
    verdict = judged(tmp_path, pointwise(CONVOLVED, kind), new, mapping=POINTWISE, tolerance=tolerance)
    assert verdict.outcome == MATCH, verdict.reasons
    assert {item.record.name for item in verdict.coverage.explained_records} == {"mix"}


@pytest.mark.parametrize(
    "new", [CONVOLVED + 1e-6, CONVOLVED.roll(1, 0), CONVOLVED.transpose(1, 2).contiguous() * 1.5], ids=["near", "rows", "turned"]
)
def test_a_wrong_value_of_a_changed_module_is_found_in_a_shape_that_could_be_turned(tmp_path, new):
    verdict = judged(tmp_path, pointwise(CONVOLVED), pointwise(new, weight=(3, 3)), mapping=POINTWISE)
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "mix"


def test_a_turned_value_of_a_module_that_no_rule_changes_is_wrong(tmp_path):
    turned = CONVOLVED.transpose(1, 2).contiguous()
    sides = [Rec("module_out", "out", CONVOLVED)], [Rec("module_out", "out", turned)]
    assert judged(tmp_path, *sides, mapping=POINTWISE).outcome == MISMATCH


def test_parts_of_several_types_are_not_put_together(tmp_path):
    mapping = Mapping("f", (Concat(("d", "e"), "f"),))
    legacy = [Rec("grad", "d", [1.0]), Rec("grad", "e", torch.tensor([2.0], dtype=torch.float64))]
    verdict = judged(tmp_path, legacy, [Rec("grad", "f", [1.0, 2.0])], mapping=mapping)
    assert verdict.outcome == INCOMPARABLE
    lone = {(item.side, item.record.name) for item in verdict.coverage.unaccounted}
    assert lone == {(LEGACY, "d"), (LEGACY, "e"), (NEW, "f")}


def test_a_recording_without_counts_of_records_gets_none(tmp_path, sides):
    trace = write_trace(tmp_path / "legacy", *sides[0], **TRAIN)
    old = replace(trace, coverage={name: told for name, told in trace.coverage.items() if name != "records"})
    made = in_new_form(old, MAPPING)
    assert "records" not in made.coverage and len(made.records) == len(sides[1])

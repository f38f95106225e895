"""Rules that change tensors: what they make, their exact inverses, and every refusal in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from converters import errors, planning
from converters.carrying import optimizer
from converters.cli.main import cli
from converters.formats.stored import StoredTensor
from converters.options import Options
from converters.rules import engine, layout, ports, rule_file
from converters.rules.kinds import Rule
from converters.rules.layout import Layout
from converters.rules.ledger import CONCAT, SPLIT, Entry, Ledger
from converters.rules.mapping import Concat, Drop, Keep, Mapping, Pad, Permute, Rename, Reshape, Slice, Split
from legacy_adapters import registry
from legacy_adapters.family import LINEAR, PRIOR, Family, FamilyError, Side, Variant
from tests.models import described

from ..fused import MAPPING, RULES, Legacy, New, image, legacy_weights

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool", "complex64")


def tensor(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return a tensor of any bits, NaN among them."""
    count = torch.Size(shape).numel() * dtype.itemsize
    data = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return (data % 2 if dtype == torch.bool else data).view(dtype).reshape(shape)


def bits(value: Tensor | StoredTensor) -> tuple[str, tuple[int, ...], bytes]:
    stored = value if isinstance(value, StoredTensor) else StoredTensor.from_torch(value)
    return stored.dtype, stored.shape, stored.data()


def specified(state: dict[str, Tensor], mapping: Mapping, side: str) -> Layout:
    """Return the layout of one side, of a legacy state dict."""
    specs = {key: layout.spec_of(value) for key, value in state.items()}
    legacy = Layout("tiny", specs)
    return legacy if side == "legacy" else legacy.mapped(mapping)


def converted(state: dict[str, Tensor], mapping: Mapping) -> engine.Conversion:
    return engine.convert(state, mapping, "new", specified(state, mapping, "new"))


#: Rule, shapes of its sources, and what torch makes of these.
CASES: list[tuple[Rule, list[tuple[int, ...]], Any]] = [
    (Split("a", ("x", "y", "z")), [(6, 2)], lambda a: a.chunk(3)),
    (Split("a", ("x", "y"), axis=1, sizes=(1, 3)), [(2, 4)], lambda a: a.split([1, 3], 1)),
    (Split("a", ("x", "y")), [(4,)], lambda a: a.chunk(2)),
    (Split("a", ("x", "y"), axis=1), [(0, 4)], lambda a: a.chunk(2, 1)),
    (Concat(("a", "b"), "x"), [(2, 3), (2, 3)], lambda a, b: [torch.cat([a, b])]),
    (Concat(("a", "b", "c"), "x", axis=1, sizes=(1, 2, 3)), [(2, 1), (2, 2), (2, 3)], lambda *p: [torch.cat(p, 1)]),
    (Concat(("b", "a"), "x"), [(1,), (1,)], lambda b, a: [torch.cat([b, a])]),
    (Permute("a", "x", axes=(1, 0)), [(2, 3)], lambda a: [a.t()]),
    (Permute("a", "a", axes=(2, 0, 1)), [(2, 3, 4)], lambda a: [a.permute(2, 0, 1)]),
    (Permute("a", "x", index=(2, 0, 1), axis=1), [(2, 3)], lambda a: [a[:, [2, 0, 1]]]),
    (Reshape("a", "x", (-1, 4), (1, -1, 2, 2)), [(1, 3, 2, 2)], lambda a: [a.reshape(3, 4)]),
    (Reshape("a", "x", (6, 1, 1), (6,)), [(6,)], lambda a: [a.reshape(6, 1, 1)]),
    (Reshape("a", "x", (-1, 6), (-1, 4)), [(3, 4)], lambda a: [a.reshape(2, 6)]),
    (Slice("a", "x", 0, 1, 3, 4, reason="unused"), [(4, 2)], lambda a: [a[1:3]]),
    (Slice("a", "x", 1, 0, 2, 3, reason="unused"), [(2, 3)], lambda a: [a[:, :2]]),
]


@pytest.mark.parametrize("form", ["torch", "stored", "strided"])
@pytest.mark.parametrize(("rule", "shapes", "expected"), CASES, ids=lambda value: getattr(value, "text", ""))
def test_a_rule_makes_what_torch_makes_and_its_inverse_the_same_bits(rule, shapes, expected, form) -> None:
    mapping = Mapping("f", (rule,))
    source = {key: tensor(*shape, seed=n) for n, (key, shape) in enumerate(zip(rule.sources, shapes))}
    wanted = [bits(value) for value in expected(*source.values())]
    given = source if form == "torch" else {key: stored(value, form) for key, value in source.items()}
    made = converted(given, mapping)
    assert [bits(made.state_dict[key]) for key in rule.targets] == wanted
    assert set(made.state_dict) == set(rule.targets) == specified(given, mapping, "new").tensors.keys()
    if isinstance(rule, Slice):
        return
    back = engine.convert(dict(made.state_dict), mapping, "legacy", specified(given, mapping, "legacy"))
    assert {key: bits(value) for key, value in back.state_dict.items()} == {k: bits(v) for k, v in source.items()}
    assert mapping.inverse().inverse() == mapping


def stored(value: Tensor, form: str) -> StoredTensor:
    """Store a tensor row-major, or with the last dimension slowest."""
    if form == "stored" or value.dim() < 2:
        return StoredTensor.from_torch(value)
    turned = StoredTensor.from_torch(value.permute(*range(value.dim())[::-1]).contiguous())
    strides = StoredTensor.from_torch(torch.empty(turned.shape, dtype=torch.bool))
    return StoredTensor(turned.dtype, tuple(value.shape), turned.storage, 0, strides.stride[::-1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_keeps_its_bits(dtype: str) -> None:
    rules = (Split("a", ("x", "y")), Concat(("b", "c"), "z", axis=1), Permute("d", "d", index=(1, 0), axis=0))
    mapping = Mapping("f", rules)
    source = {key: tensor(2, 3, dtype=getattr(torch, dtype), seed=n) for n, key in enumerate("abcd")}
    there = converted(source, mapping).state_dict
    back = engine.convert(dict(there), mapping, "legacy", specified(source, mapping, "legacy")).state_dict
    assert {key: bits(value) for key, value in back.items()} == {key: bits(value) for key, value in source.items()}


@pytest.mark.parametrize(
    ("rule", "shapes", "message"),
    [
        (Split("a", ("x", "y", "z")), [(7, 2)], "Key `a` has shape [7, 2], rule 0 (`split a -> x, y, z along axis 0, "
         "equal parts`) expects a multiple of 3 along axis 0; check the rule and the variant."),
        (Split("a", ("x", "y"), 1, (1, 2)), [(2, 4)], "Key `a` has shape [2, 4], rule 0 (`split a -> x, y along axis "
         "1, sizes 1, 2`) expects 3 along axis 1; check the rule and the variant."),
        (Split("a", ("x", "y"), axis=2), [(2, 4)], "expects an axis 2, the first being 0;"),
        (Concat(("a", "b"), "x"), [(2, 3), (3, 3)], "Key `b` has shape [3, 3], rule 0 (`concat a, b -> x along axis 0, "
         "equal parts`) expects [2, 3], which fits its other parts;"),
        (Concat(("a", "b"), "x"), [(2, 3), (2, 4)], "Key `b` has shape [2, 4], "),
        (Concat(("a", "b"), "x", 0, (2, 1)), [(2, 3), (2, 3)], "expects [1, 3], which fits its other parts;"),
        (Permute("a", "x", axes=(1, 0)), [(2, 3, 4)], "Key `a` has shape [2, 3, 4], rule 0 (`permute a -> x axes 1, "
         "0`) expects 2 dimensions;"),
        (Permute("a", "x", index=(1, 0), axis=0), [(3,)], "expects 2 along axis 0;"),
        (Reshape("a", "x", (-1, 4), (1, -1, 2, 2)), [(2, 3, 2, 2)], "Key `a` has shape [2, 3, 2, 2], rule 0 (`reshape "
         "a -> x from [1, -1, 2, 2] to [-1, 4]`) expects [1, -1, 2, 2];"),
        (Reshape("a", "x", (-1, 6), (-1, 4)), [(2, 4)], "expects [-1, 4] with a multiple of 6 elements;"),
        (Reshape("a", "x", (6,), (-1, 2)), [(4, 2)], "expects [-1, 2] with 6 elements;"),
        (Slice("a", "x", 0, 0, 2, 3, reason="unused"), [(4, 1)], "Key `a` has shape [4, 1], rule 0 (`slice a -> x 0 to "
         "2 of 3 along axis 0, the rest is left out (unused)`) expects 3 along axis 0;"),
        (Pad("a", "x", 0, 0, 2, 3, rest=0), [(3, 1)], "expects 2 along axis 0;"),
    ],
)  # fmt: skip
def test_a_shape_that_does_not_fit_is_one_line_with_key_found_and_expected(rule, shapes, message) -> None:
    source = {key: tensor(*shape) for key, shape in zip(rule.sources, shapes)}
    with pytest.raises(errors.ShapeMismatchError) as caught:
        engine.convert(source, Mapping("f", (rule,)), "new", Layout("v", {}))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_part_that_is_missing_or_of_another_dtype_is_named() -> None:
    mapping = Mapping("f", (Concat(("*.q", "*.k"), "*.qk"),))
    with pytest.raises(errors.MissingKeyError, match=r"Key `m.k` is missing .* rule 0 \(`concat .*`\) beside `m.q`;"):
        engine.convert({"m.q": tensor(2)}, mapping, "new", Layout("v", {}))
    mixed = {"m.q": tensor(2), "m.k": tensor(2, dtype=torch.float64)}
    with pytest.raises(errors.DtypeMismatchError, match="`m.q`, `m.k` have dtypes float32, float64, expected one for"):
        engine.convert(mixed, mapping, "new", Layout("v", {}))


@pytest.mark.parametrize("rest", [0, 0.0, -4.5, float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_slice_whose_rest_is_a_number_goes_both_ways(rest: float, dtype: str) -> None:
    mapping = Mapping("f", (Slice("a", "x", 1, 1, 3, 4, rest),))
    source = tensor(2, 4, dtype=getattr(torch, dtype))
    source[:, [0, 3]] = rest
    there = converted({"a": source}, mapping).state_dict
    back = engine.convert(dict(there), mapping, "legacy", specified({"a": source}, mapping, "legacy")).state_dict
    assert bits(there["x"]) == bits(source[:, 1:3]) and bits(back["a"]) == bits(source)


def test_a_rest_that_is_another_number_is_refused() -> None:
    mapping = Mapping("f", (Slice("a", "x", 0, 0, 2, 3, rest=0),))
    with pytest.raises(errors.RestDiffersError, match="Key `a` has other numbers than 0 outside of 0 to 2 of 3 along"):
        converted({"a": torch.tensor([1.0, 2.0, 3.0])}, mapping)
    whole = Mapping("f", (Slice("a", "x", 0, 0, 2, 3, rest=0.5),))
    with pytest.raises(errors.RestDiffersError, match="Key `a` has dtype int64, which does not hold the rest 0.5"):
        converted({"a": torch.tensor([1, 2, 3])}, whole)


def test_a_slice_that_leaves_out_its_rest_says_that_it_is_not_invertible() -> None:
    mapping = Mapping("f", (Keep("b"), Slice("a", "x", 0, 0, 2, 3, reason="background")))
    source = {"a": tensor(3), "b": tensor(1)}
    there = converted(source, mapping).state_dict
    with pytest.raises(errors.NotInvertibleError) as caught:
        engine.convert(dict(there), mapping, "legacy", specified(source, mapping, "legacy"))
    assert str(caught.value) == (
        "Mapping `f` is not invertible: its rule `slice a -> x 0 to 2 of 3 along axis 0, the rest is left out "
        "(background)` leaves out numbers of `a` that the way back needs; say what number the rest is, if it is one "
        "(`rest`), or convert the other way only."
    )
    # shapes are known all the same, so the legacy layout is
    legacy = specified(source, mapping, "legacy")
    assert legacy.mapped(mapping).mapped(mapping.inverse()).tensors == legacy.tensors


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((Split("a.*", ("x.*", "y")),), "Wildcard count mismatch in rule 0: source has 1, target 2 has 0."),
        ((Concat(("a.*", "b"), "x.*"),), "Wildcard count mismatch in rule 0: source 1 has 1, source 2 has 0."),
        ((Split("a", ("x",)),), "Rule 0 (split `a`) has 1 part, expected two or more."),
        ((Split("a", ("x", "x")),), "Rule 0 has two targets with keys in common: `x` and `x`."),
        ((Split("a.*", ("x.*", "*.y")),), "Rule 0 has two targets with keys in common: `x.*` and `*.y`."),
        ((Concat(("a.*", "*.b"), "x.*"),), "Rule 0 has two sources with keys in common: `a.*` and `*.b`."),
        ((Split("a", ("x", "y")), Keep("y")), "Duplicate rule 1: its target `y` already stands in rule 0."),
        ((Concat(("a", "b"), "x"), Rename("b", "c")), "Duplicate rule 1: its source `b` already stands in rule 0."),
        (
            (Concat(("a.*", "b.*"), "x.*"), Drop("b.c", "unused")),
            "Rules 0 and 1 overlap: their sources `b.*` and `b.c` have keys in common.",
        ),
        ((Split("a", ("x", "y"), sizes=(1,)),), "Rule 0 (split `a`) has 1 sizes for 2 parts."),
        ((Split("a", ("x", "y"), sizes=(1, 0)),), "has sizes [1, 0], expected whole numbers from 1 on."),
        ((Split("a", ("x", "y"), axis=-1),), "has axis -1, expected a whole number from 0 on."),
        ((Permute("a", "x"),), "has both axes and an index, or neither; expected one of them."),
        ((Permute("a", "x", (0, 1), (0, 1), 0),), "has both axes and an index, or neither; expected one of them."),
        ((Permute("a", "x", axes=(0, 2)),), "has axes 0, 2, expected every number from 0 to 1 once."),
        ((Permute("a", "x", index=(0, 0), axis=0),), "has an index 0, 0, expected every number from 0 to 1 once."),
        ((Permute("a", "x", index=(1, 0)),), "has axis None, expected a whole number from 0 on beside an index"),
        ((Reshape("a", "x", (-1, -1), (4,)),), "has shape [-1, -1], expected whole numbers from 1 on and -1 at most"),
        ((Reshape("a", "x", (2, 3), (4,)),), "has shapes [4] and [2, 3] of other numbers of elements."),
        ((Reshape("a", "x", (-1, 3), (4,)),), "has shapes [4] and [-1, 3] of other numbers of elements."),
        ((Slice("a", "x", 0, 2, 1, 4, 0),), "has axis 0 and part 2 to 1 of 4, expected whole numbers with start <"),
        ((Slice("a", "x", 0, 0, 4, 4, 0),), "takes all 4 along axis 0; use `rename`."),
        ((Slice("a", "x", 0, 0, 3, 4),), "neither says what number the rest is nor gives a reason to leave it out."),
        ((Slice("a", "x", 0, 0, 3, 4, "0"),), "has rest '0', expected a number or nothing."),
    ],
)
def test_a_rule_that_contradicts_itself_or_another_is_refused_when_built(rules: tuple[Rule, ...], message: str) -> None:
    with pytest.raises(errors.MappingError) as caught:
        Mapping("f", rules)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_wildcards_bind_in_every_pattern() -> None:
    mapping = Mapping("f", (Split("enc.*.qkv.*", ("e.*.q.*", "e.*.k.*")), Concat(("g.*.**", "h.*.**"), "i.*.**")))
    source = {"enc.3.qkv.bias": tensor(4), "g.0.a.b": tensor(1), "h.0.a.b": tensor(1, seed=1)}
    assert set(converted(source, mapping).state_dict) == {"e.3.q.bias", "e.3.k.bias", "i.0.a.b"}
    assert mapping.targets_of("enc.3.qkv.bias") == ("e.3.q.bias", "e.3.k.bias")
    assert mapping.targets_of("h.0.a.b") == ("i.0.a.b",)
    for key in source:
        with pytest.raises(errors.NotOneToOneError, match=f"Key `{key}` is not one key on the other side: rule "):
            mapping.target_of(key)


def test_every_key_is_used_once_and_produced_once() -> None:
    done = converted(legacy_weights(), MAPPING)
    used = {entry.source for entry in done.ledger.entries}
    produced = [entry.target for entry in done.ledger.entries]
    assert used == Legacy().state_dict().keys() and set(produced) == New().state_dict().keys()
    assert [e.target for e in done.ledger.entries if e.source == "block.qkv.bias"] == [
        "block.q.bias", "block.k.bias", "block.v.bias",
    ]  # fmt: skip
    assert done.ledger.count(SPLIT) == 2 and done.ledger.count(CONCAT) == 4 and not done.ledger.changes_nothing


@pytest.mark.parametrize(
    "entries",
    [
        (Entry("a", "x", 0, SPLIT), Entry("a", "x", 0, SPLIT)),
        (Entry("a", "x", 0, SPLIT), Entry("a", "y", 1, SPLIT)),
        (Entry("a", "x", 0, CONCAT), Entry("a", "x", 0, CONCAT)),
        (Entry("a", "x", 0, CONCAT), Entry("b", "x", 1, CONCAT)),
        (Entry("a", "x", 0, SPLIT), Entry("b", "x", 0, SPLIT)),
    ],
)
def test_the_ledger_refuses_what_no_one_rule_does(entries: tuple[Entry, ...]) -> None:
    with pytest.raises(errors.CollisionError):
        Ledger(entries)


def test_a_permutation_under_the_same_name_changes_something() -> None:
    assert not Ledger((Entry("a", "a", 0, "permute"),)).changes_nothing


@pytest.mark.parametrize(
    ("path", "twin"),
    [
        ("", ""),
        ("block", "block"),
        ("block.qkv", None),  # goes to three modules
        ("block.gate", None),  # is a part of one
        ("block.proj", "block.out"),
        ("block.mix", "block.mix"),
        ("head", "classes"),
    ],
)
def test_modules_pair_where_a_rule_is_one_to_one(path: str, twin: str | None) -> None:
    assert MAPPING.map_module(path) == twin


def test_two_forms_of_one_model_compute_the_same_from_converted_weights() -> None:
    legacy, new = Legacy(), New()
    weights = legacy_weights()
    legacy.load_state_dict(weights)
    new.load_state_dict(dict(converted(weights, MAPPING).state_dict), strict=True)
    assert torch.equal(legacy(image()), new(image())) and legacy(image()).any()


# ----------------------------------------------------------------------------------------- optimizers


def model_layouts() -> tuple[Layout, Layout]:
    return described(Legacy(), "tiny"), described(New(), "tiny")


def trained(model: torch.nn.Module, weights: dict[str, Tensor], per_parameter: bool, steps: int = 1) -> dict[str, Any]:
    """Take steps with AdamW and return its state as a checkpoint's reader does."""
    model.load_state_dict(weights)
    groups = [{"params": [p]} for p in model.parameters()] if per_parameter else model.parameters()
    optimizer_ = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.0)
    for _ in range(steps):
        optimizer_.zero_grad()
        (model(image()) * torch.arange(1.0, 4.0)).sum().backward()
        optimizer_.step()
    saved = optimizer_.state_dict()
    states = {
        n: {k: StoredTensor.from_torch(v) for k, v in state.items()} for n, state in saved["state"].items()
    }
    return {"state": states, "param_groups": saved["param_groups"]}


def plain(saved: dict[str, Any]) -> dict[str, Any]:
    states = {n: {k: bits(v) for k, v in state.items()} for n, state in saved["state"].items()}
    return {"state": states, "param_groups": [dict(group) for group in saved["param_groups"]]}


@pytest.mark.parametrize("per_parameter", [False, True])
def test_an_optimizer_that_trained_one_form_is_that_of_the_other(per_parameter: bool) -> None:
    legacy, new = model_layouts()
    weights = legacy_weights()
    saved = trained(Legacy(), weights, per_parameter)
    expected = trained(New(), dict(converted(weights, MAPPING).state_dict), per_parameter)
    there = optimizer.regroup(saved, legacy, optimizer.Side(new, True), MAPPING)
    assert plain(there.state_dict) == plain(expected)
    back = optimizer.regroup(there.state_dict, new, optimizer.Side(legacy, True), MAPPING.inverse())
    assert plain(back.state_dict) == plain(saved)


def two_gates(**changes: Any) -> tuple[dict[str, Any], Layout, Layout, Mapping]:
    """Return an optimizer of two parameters that become one; `changes` are made to the second one's state or group."""
    mapping = Mapping("f", (Concat(("a", "b"), "x"),))
    legacy = Layout("tiny", {key: layout.TensorSpec("float32", (2,)) for key in "ab"})
    saved = {
        "state": {n: {"step": 3.0, "exp_avg": StoredTensor.from_torch(tensor(2, seed=n))} for n in range(2)},
        "param_groups": [{"lr": 0.1, "params": [n]} for n in range(2)],
    }
    for name, value in changes.items():
        (saved["param_groups"][1] if name == "lr" else saved["state"][1])[name] = value
    return saved, legacy, legacy.mapped(mapping), mapping


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 4.0}, r"The optimizer's `step` of `a`, `b` is not the same, .*rule 0 \(`concat a, b -> x"),
        ({"lr": 0.2}, "The optimizer's groups of `a`, `b` have other settings, expected the same, for rule 0"),
        ({"max_exp_avg_sq": 1.0}, "The optimizer's `max_exp_avg_sq` of `a`, `b` is not the same"),
    ],
)
def test_what_two_parameters_have_different_one_cannot_have(changes: dict[str, Any], message: str) -> None:
    saved, legacy, new, mapping = two_gates(**changes)
    with pytest.raises(errors.OptimizerError, match=message):
        optimizer.regroup(saved, legacy, optimizer.Side(new, True), mapping)


def test_parameters_that_were_never_updated_have_no_state_together_either() -> None:
    saved, legacy, new, mapping = two_gates()
    saved["state"] = {}
    made = optimizer.regroup(saved, legacy, optimizer.Side(new, True), mapping)
    assert made.states == 0 and made.state_dict == {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def test_averages_are_joined_and_steps_are_copied() -> None:
    saved, legacy, new, mapping = two_gates()
    made = optimizer.regroup(saved, legacy, optimizer.Side(new, True), mapping).state_dict
    averages = [saved["state"][n]["exp_avg"].data() for n in range(2)]
    assert made["state"][0]["step"] == 3.0 and made["state"][0]["exp_avg"].data() == b"".join(averages)
    assert made["param_groups"] == [{"lr": 0.1, "params": [0]}]


# ------------------------------------------------------------------------------------ the command line


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the two forms the only family there is; give a folder with a legacy checkpoint in it."""
    folder = tmp_path / "layouts"
    folder.mkdir()
    (folder / "tiny.json").write_text(described(New(), "tiny").to_json())
    side = Side("the fused code", Path("adapter.py"))
    fused = Family(
        name="fused", variants=(Variant("tiny"),), legacy=side, new=side, rules=RULES, layouts=folder, installed=True,
        class_rows={"classes.weight": LINEAR, "classes.bias": PRIOR}, markers=("places", "block.order"),
    )  # fmt: skip
    monkeypatch.setattr(registry, "names", lambda: ("fused",))
    monkeypatch.setattr(registry, "own", lambda: ("fused",))  # the order of its parameters is tested here
    monkeypatch.setattr(registry, "get", lambda _: fused)
    ports.port.cache_clear()
    weights = legacy_weights()
    saved = trained(Legacy(), weights, per_parameter=True)
    states = {n: {k: v.to_torch() for k, v in state.items()} for n, state in saved["state"].items()}
    content = {"meta": {}, "state_dict": weights, "optimizer": {**saved, "state": states}}
    torch.save(content, tmp_path / "legacy.pth")
    yield tmp_path
    ports.port.cache_clear()


def run(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def test_a_file_goes_there_and_back_is_verified_and_compared(family: Path) -> None:
    legacy, new, back = (family / f"{name}.pth" for name in ("legacy", "new", "back"))
    assert "fused tiny, legacy side" in run("inspect", legacy)
    assert run("convert", legacy, new).splitlines()[-1] == (
        "CONVERTED 15 tensors: 0 kept, 2 renamed, 0 duplicates dropped, 2 split, 4 joined, 2 permuted, 1 reshaped, 2 "
        f"cut to a part -> {new} with message_hub, optimizer"
    )
    model = New()
    model.load_state_dict(torch.load(new)["state_dict"], strict=True)
    assert "fused tiny, new side" in run("inspect", new)
    assert run("verify", new, "--source", legacy).startswith("VERIFIED 15 tensors")
    assert run("diff", legacy, new).splitlines()[-1] == "EQUAL 15 tensors"
    assert run("diff", new, legacy).splitlines()[-1] == "EQUAL 13 tensors"
    run("convert", new, back, "--to", "legacy", "-q")
    assert run("diff", legacy, back).splitlines()[-1] == "EQUAL 13 tensors"
    one, two = (torch.load(path)["optimizer"] for path in (legacy, back))
    for number, state in one["state"].items():
        assert all(torch.equal(value, two["state"][number][key]) for key, value in state.items())


def test_the_manifest_names_the_sources_of_every_key(family: Path) -> None:
    run("convert", family / "legacy.pth", family / "new.pth", "-q")
    told = json.loads((family / "new.pth.manifest.json").read_text())
    lines = {line["target"]: line for line in told["tensors"]}
    assert lines["block.k.bias"]["source"] == "block.qkv.bias" and lines["block.k.bias"]["action"] == "split"
    assert lines["block.gate_up.bias"]["source"] == ["block.gate.bias", "block.up.bias"]
    assert told["rules"][0] == (
        "split block.qkv.* -> block.q.*, block.k.*, block.v.* along axis 0, equal parts"
    )


def test_a_dry_run_tells_where_every_part_goes(family: Path) -> None:
    text = run("convert", family / "legacy.pth", family / "new.pth", "--dry-run")
    rows = [" ".join(row.split()) for row in text.splitlines()]
    at = rows.index("split float32 4x4 block.qkv.weight")
    assert rows[at : at + 3] == [
        "split float32 4x4 block.qkv.weight", "-> block.q.weight", "part 1 of 3 along axis 0",
    ]  # fmt: skip
    at = rows.index("concat float32 5x4 block.up.weight")
    assert rows[at + 1 : at + 3] == ["-> block.gate_up.weight", "part 2 of 2 along axis 0"]


def test_a_part_that_differs_is_named_by_diff(family: Path) -> None:
    content = torch.load(family / "legacy.pth")
    run("convert", family / "legacy.pth", family / "new.pth", "-q")
    content["state_dict"]["block.qkv.weight"][5, 0] += 1.0
    torch.save(content, family / "changed.pth")
    text = run("diff", family / "changed.pth", family / "new.pth", code=1)
    assert "block.qkv.weight (part 2 of 3 along axis 0) -> block.k.weight" in " ".join(text.split())
    assert "DIFFERENT 1 of 15 tensors" in text


def test_a_part_that_does_not_fit_its_rule_has_no_counterpart(family: Path) -> None:
    content = torch.load(family / "legacy.pth")
    run("convert", family / "legacy.pth", family / "new.pth", "-q")
    content["state_dict"]["block.qkv.bias"] = torch.zeros(13)
    torch.save(content, family / "changed.pth")
    text = " ".join(run("diff", family / "changed.pth", family / "new.pth", code=1).split())
    assert "block.qkv.bias" in text and "block.q.bias" in text and "block.qkv.weight" not in text


def test_classes_of_a_part_cannot_be_chosen_where_they_stand_with_others(family: Path) -> None:
    """A rule names the number of rows, or several sets of rows are one tensor."""
    run("convert", family / "legacy.pth", family / "new.pth", "-q")
    options = "--to", "legacy", "--num-classes", 2
    said = run("convert", family / "new.pth", family / "back.pth", *options, code=2)
    assert said.startswith(
        "error: The rules make no legacy layout with 2 classes, so --num-classes is not possible: Key `classes."
    )
    two = replace(
        registry.get("fused"),
        name="two",
        rules=(Split("heads", ("first", "second")),),
        class_rows=dict(first=LINEAR, second=LINEAR),
    )
    rows = {key: StoredTensor.from_torch(tensor(3, 4, seed=seed)) for seed, key in enumerate(("first", "second"))}
    port = ports.Port(two, two.variants[0])
    specs = {key: layout.spec_of(value) for key, value in rows.items()}
    new = Layout("tiny", specs)
    port = port.with_layouts({"new": new, "legacy": new.mapped(port.mapping.inverse())})
    torch.save({key: value.to_torch() for key, value in rows.items()}, family / "two.pth")
    with pytest.raises(errors.ClassMapError) as caught:
        planning.plan(family / "two.pth", Options(to="legacy", num_classes=2), port=port)
    assert str(caught.value) == (
        "1 key(s) of the legacy layout hold rows of classes together with others, which --num-classes cannot pick: "
        "`heads`; convert to the new layout first, with --num-classes, and then back."
    )


def test_a_manifest_that_leaves_out_a_source_is_found_out(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from converters.carrying.plans import Plan

    monkeypatch.setattr(Plan, "sources_of", lambda self, target: ("block.gate.bias",) if "gate_up.b" in target else
                        (next(e.source for e in self.ledger.entries if e.target == target),))  # fmt: skip
    run("convert", family / "legacy.pth", family / "new.pth", "-q")
    told = run("verify", family / "new.pth", code=1)
    assert "made of 1 key(s), its rule makes it of 2" in told


def test_classes_of_a_part_are_counted_and_chosen(family: Path) -> None:
    run("convert", family / "legacy.pth", family / "two.pth", "-q", "--num-classes", 2, "--class-map",
        _class_map(family, {"0": 2, "1": 0}))  # fmt: skip
    rows = torch.load(family / "two.pth")["state_dict"]["classes.weight"]
    assert torch.equal(rows, legacy_weights()["head.weight"][[2, 0]])


def _class_map(folder: Path, pairs: dict[str, int]) -> Path:
    path = folder / "classes.json"
    path.write_text(json.dumps(pairs))
    return path


# ------------------------------------------------------------------------------------- rules in a file


def test_rules_of_every_kind_are_written_and_read_again(tmp_path: Path) -> None:
    rules = (*RULES, Drop("old.**", "unused"), Keep("kept.*"), Pad("p", "q", 0, 0, 1, 2, rest=1.5),
             Split("s", ("t", "u"), 1, (1, 2)), Slice("c", "d", 0, 0, 1, 2, reason="background"))  # fmt: skip
    path = tmp_path / "rules.json"
    path.write_text(rule_file.dump(rules))
    assert rule_file.load(path) == rules and rule_file.dump(rule_file.load(path)) == path.read_text()
    code = tmp_path / "rules.py"
    code.write_text(rule_file.dump_python(rules))
    assert rule_file.load(code) == rules
    assert Mapping("f", rule_file.load(path)) == Mapping("f", rules)


def test_rules_in_python_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rules.py"
    path.write_text(
        "from converters.rules.mapping import Keep, Split\n"
        'RULES = (Keep("head.*"), *(Split(f"enc.{i}.qkv.*", (f"enc.{i}.q.*", f"enc.{i}.k.*")) for i in range(2)))\n'
    )
    expected = (Keep("head.*"), *(Split(f"enc.{i}.qkv.*", (f"enc.{i}.q.*", f"enc.{i}.k.*")) for i in range(2)))
    assert rule_file.load(path) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.json", "{", "it is no JSON (Expecting property name"),
        ("r.json", "{}", "it is an object, expected a list of rules."),
        ("r.json", "[]", "it holds none, expected one or more."),
        (
            "r.json",
            '[{"rule": "keep", "pattern": "a"}, "keep"]',
            "rule 1 of `{path}`: it is a text, expected an object",
        ),
        ("r.json", '[{"source": "a"}]', "rule 0 of `{path}`: it has no `rule`, expected one of keep, rename, drop, "),
        ("r.json", '[{"rule": "join"}]', 'it has `rule` "join", expected one of keep, rename, '),
        ("r.json", '[{"rule": "rename", "source": "a"}]', "`rename` lacks `target`."),
        ("r.json", '[{"rule": "keep", "pattern": "a", "axis": 0}]', "`keep` has no `axis`, expected `pattern`."),
        ("r.json", '[{"rule": "split", "source": "a", "targets": "b"}]', '`targets` is "b", expected a list of patter'),
        (
            "r.json",
            '[{"rule": "split", "source": "a", "targets": ["b", "c"], "axis": "0"}]',
            '`axis` is "0", expected a',
        ),
        (
            "r.json",
            '[{"rule": "split", "source": "a", "targets": ["b", "c"], "sizes": [1.5, 2]}]',
            "`sizes` is [1.5, 2]",
        ),
        (
            "r.json",
            '[{"rule": "split", "source": "a.*", "targets": ["b.*", "c"]}]',
            "rule 0 of `{path}`: Wildcard count",
        ),
        ("r.json", '[{"rule": "keep", "pattern": 3}]', "`pattern` is 3, expected a text."),
        (
            "r.json",
            '[{"rule": "pad", "source": "a", "target": "b", "axis": 0, "start": 0, "stop": 1, "length": 2, '
            '"reason": "unused"}]',
            "for `rest` is missing.",
        ),
        (
            "r.json",
            '[{"rule": "slice", "source": "a", "target": "b", "axis": 0, "start": 0, "stop": 1, "length": 2, '
            '"rest": "0"}]',
            '`rest` is "0", expected a number.',
        ),
        ("r.json", "\udcff", "it is no text ("),
        ("r.py", "RULES = 3", "`RULES` is of type int, expected a tuple."),
        ("r.py", "RULE = ()", "it has no `RULES = (...)`."),
        ("r.py", "RULES = ('a',)", "rule 0 of `{path}`: it is of type str, expected Keep, Rename, "),
        ("r.py", "RULES = (1 / 0,)", "its code fails with ZeroDivisionError: division by zero."),
        ("r.py", "RULES = (", "its code fails with SyntaxError: "),
    ],
)
def test_a_file_that_holds_no_rules_is_refused_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(errors.RuleFileError) as caught:
        rule_file.load(path)
    assert message.replace("{path}", str(path)) in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_null_stands_for_a_field_that_is_left_out(tmp_path: Path) -> None:
    rule = dict(rule="split", source="a", targets=["b", "c"])
    for entry in (rule, dict(rule, sizes=None)):
        (tmp_path / "rules.json").write_text(json.dumps([entry]))
        assert rule_file.load(tmp_path / "rules.json") == (Split("a", ("b", "c")),)


def test_a_layout_has_no_place_for_what_is_dropped() -> None:
    spec = layout.TensorSpec("float32", (2,))
    made = Layout("v", {"a": spec, "b": spec}, frozen=frozenset("b")).mapped(
        Mapping("f", (Keep("a"), Drop("b", "unused")))
    )
    assert made == Layout("v", {"a": spec})


# ---------------------------------------------------------------------------------------------- the docs

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_kind_stands_in_the_docs_in_both_forms_which_say_the_same(tmp_path: Path) -> None:
    head = "from converters.rules.mapping import *\n"
    told: set[str] = set()
    python, json_ = blocks("python"), blocks("json")
    assert len(python) == len(json_) + 1  # the first is of a file that computes its rules
    for number, text in enumerate(["", *json_]):
        path = tmp_path / "rules.py"
        path.write_text(head + python[number])
        rules = rule_file.load(path)
        Mapping("docs", rules)
        if text:
            (tmp_path / "rules.json").write_text(text)
            assert rule_file.load(tmp_path / "rules.json") == rules
        told |= {rule.action for rule in rules}
    assert told == set(rule_file.KINDS)


def test_errors_in_the_docs_are_what_is_said(tmp_path: Path) -> None:
    splits, cuts = (tmp_path / f"{number}.json" for number in (1, 4))
    for path, text in ((splits, blocks("json")[1]), (cuts, blocks("json")[4])):
        path.write_text(text)
    not_invertible, unfit = (text.strip() for text in blocks("text"))
    with pytest.raises(errors.NotInvertibleError) as caught:
        engine.convert({}, Mapping("toy", rule_file.load(cuts)), "legacy", Layout("v", {}))
    assert str(caught.value) == not_invertible
    with pytest.raises(errors.ShapeMismatchError) as misfit:
        engine.convert({"0.attn.qkv.bias": tensor(190)}, Mapping("toy", rule_file.load(splits)), "new", Layout("v", {}))
    assert str(misfit.value) == unfit


TOY = Family("toy", (Variant("tiny"),), Side("toy", Path("adapter.py")), Side("toy", Path("adapter.py")), rules=RULES)


@pytest.mark.parametrize(
    ("changes", "take", "message"),
    [
        (
            dict(rules=3),
            lambda port: port.mapping,
            "rules of family `toy` cannot be used: expected a tuple of rules, found a int.",
        ),
        (dict(rules=lambda variant: {"a": "b"}), lambda port: port.mapping, "expected a tuple of rules, found a dict."),
        (dict(rules=("a",)), lambda port: port.mapping, "expected rules of converters.rules.mapping, found 'a'."),
        (dict(aliases=3), lambda port: port.mapping, "cannot be used: expected a tuple of aliases, found a int."),
        (
            dict(exclusions=3),
            lambda port: port.exclusions,
            "The exclusions of family `toy` cannot be used: expected a tuple of exclusions, found a int.",
        ),
        ({}, lambda port: port.layout("new"), "Family `toy` has no stored layout of variant `tiny`."),
    ],
)
def test_a_family_whose_fields_are_of_another_kind_is_refused(changes: dict[str, Any], take: Any, message: str) -> None:
    family_ = replace(TOY, **changes)
    with pytest.raises(FamilyError, match=re.escape(message)):
        take(ports.Port(family_, family_.variants[0]))


def test_a_family_may_name_a_file_of_rules(tmp_path: Path) -> None:
    side = Side("toy", Path("adapter.py"))
    family_ = Family("toy", (Variant("tiny"),), side, side, rules="rules.json", folder=tmp_path)
    path = tmp_path / "rules.json"
    path.write_text(rule_file.dump(RULES))
    assert ports.Port(family_, family_.variants[0]).mapping.rules == RULES
    path.write_text("[]")
    with pytest.raises(FamilyError, match="The rules of family `toy` cannot be used: Cannot take rules from `.*json`"):
        _ = ports.Port(family_, family_.variants[0]).mapping
    path.unlink()
    with pytest.raises(FamilyError, match="The rules of family `toy` cannot be used: .*No such file"):
        _ = ports.Port(family_, family_.variants[0]).mapping

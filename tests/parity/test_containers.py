"""Modules that hold the same parameters are taken for one where the sides part, and cause no mismatch."""

from collections import Counter
from dataclasses import replace

import pytest

from converters.rules.mapping import Keep, Mapping, Rename
from legacy_adapters.family import Alias
from parity.comparing import compare
from parity.comparing.compare import Tolerance
from parity.comparing.containers import containers
from parity.verdict.verdict import MATCH, MISMATCH

from .synthetic import Rec, judged, write_trace

#: The legacy side has `one` and `two` in `layers.N`, the port in `net.blocks.N` and `net.blocks.N.mlp`.
RULES = (
    Rename("layers.*.one.weight", "net.blocks.*.first.weight"),
    Rename("layers.*.two.weight", "net.blocks.*.mlp.second.weight"),
    Keep("head.weight"),
)
NAMES = {"layers": "net.blocks", "one": "first", "two": "mlp.second"}
MAPPING = Mapping("toy", RULES)
PAIRS = (("layers.0", "net.blocks.0"), ("layers.1", "net.blocks.1"))


def name_of(side, path):
    return path if side == "legacy" else ".".join(NAMES.get(part, part) for part in path.split("."))


def weights(side, *more):
    names = [f"layers.{i}.{part}" for i in (0, 1) for part in ("one", "two")]
    return [Rec("param", f"{name_of(side, n)}.weight", 1.0, phase="weights") for n in (*names, "head", *more)]


def call(name, given, result, scope=""):
    return [Rec("module_in", name, given, "x", scope=scope), Rec("module_out", name, result, scope=scope)]


def forward(side, wrong=None, shift=0.0):
    """Return the calls of two blocks that add to what they are given: 2 in `one`, 3 in `two`; 1 more is wrong."""
    records, x = weights(side), 0.125
    for i in (0, 1):
        block = name_of(side, f"layers.{i}")
        result = x + 2 + 3 + (wrong == i)
        records += [
            Rec("module_in", block, x, "x", scope="net"),
            *call(name_of(side, f"layers.{i}.one"), x, x + 2, block),
            *call(name_of(side, f"layers.{i}.two"), x + 2, x + 5, block),
            Rec("module_out", block, result + shift, scope="net"),
        ]
        x = result
    return [*records, *call("head", x, 2 * x)]


def test_modules_with_the_same_parameters_are_found(tmp_path):
    one, two = (write_trace(tmp_path / side, *forward(side)) for side in ("legacy", "new"))
    assert containers(one, two, MAPPING) == PAIRS
    assert containers(one, two, Mapping("toy", RULES, aliases=(Alias("layers.*", "elsewhere.*"),))) == ()


@pytest.mark.parametrize("side", ["legacy", "new"])
def test_modules_in_each_other_that_cannot_be_told_apart_are_not_paired(tmp_path, side):
    def inner(of):
        return call(name_of(of, "layers.0") + ".body", 1.0, 1.0)

    def renamed(of):
        path = name_of(of, "layers.0")
        return [
            Rec(r.kind, r.name.replace(path, f"{path}.body") if r.name.startswith(f"{path}.") else r.name, r.values,
                r.slot, phase=r.phase) for r in forward(of)
        ]  # fmt: skip

    rules = {
        "legacy": (Rename("layers.0.body.one.weight", "net.blocks.0.first.weight"),
                   Rename("layers.0.body.two.weight", "net.blocks.0.mlp.second.weight")),
        "new": (Rename("layers.0.one.weight", "net.blocks.0.body.first.weight"),
                Rename("layers.0.two.weight", "net.blocks.0.body.mlp.second.weight")),
    }  # fmt: skip
    traces = [
        write_trace(tmp_path / of, *([*renamed(of), *inner(of)] if of == side else forward(of)))
        for of in ("legacy", "new")
    ]
    others = (Rename("layers.1.one.weight", "net.blocks.1.first.weight"),
              Rename("layers.1.two.weight", "net.blocks.1.mlp.second.weight"))  # fmt: skip
    assert containers(*traces, Mapping("toy", (*rules[side], *others, Keep("head.weight")))) == PAIRS[1:]


def test_a_module_that_holds_more_is_no_counterpart(tmp_path):
    rules = Mapping("toy", (*RULES, Rename("extra.weight", "net.blocks.0.extra.weight")))
    one = write_trace(tmp_path / "legacy", *forward("legacy"), *weights("legacy", "extra")[-1:])
    two = write_trace(
        tmp_path / "new", *forward("new"), Rec("param", "net.blocks.0.extra.weight", 1.0, phase="weights")
    )
    assert containers(one, two, rules) == PAIRS[1:]


@pytest.mark.parametrize("tolerance", [Tolerance(), Tolerance("fixed", rtol=1e-6)], ids=lambda one: one.name)
@pytest.mark.parametrize("wrong", [0, 1])
def test_an_error_in_the_code_of_a_block_is_named(tmp_path, wrong, tolerance):
    verdict = judged(tmp_path, forward("legacy"), forward("new", wrong), mapping=MAPPING, tolerance=tolerance)
    assert (verdict.outcome, verdict.divergence.where) == (MISMATCH, f"net.blocks.{wrong}")
    assert verdict.divergence.modules == PAIRS[wrong] and verdict.containers == PAIRS


def test_blocks_that_end_elsewhere_are_not_blamed(tmp_path):
    verdict = judged(tmp_path, forward("legacy"), forward("new", shift=0.5), mapping=MAPPING)
    assert verdict.outcome != MISMATCH and verdict.containers == ()
    wrong = [*forward("new", shift=0.5)[:-1], Rec("module_out", "head", 0.0)]
    verdict = judged(tmp_path / "wrong", forward("legacy"), wrong, mapping=MAPPING)
    assert (verdict.outcome, verdict.divergence.where, verdict.containers) == (MISMATCH, "head", ())


def test_nothing_is_guessed_where_the_sides_match(tmp_path):
    verdict = judged(tmp_path, forward("legacy"), forward("new"), mapping=MAPPING)
    assert (verdict.outcome, verdict.containers) == (MATCH, ())


def backward(side, gradient):
    """Return the gradients of two blocks, of which the first hands that of its result on to its last part."""
    first, last = name_of(side, "layers.0"), name_of(side, "layers.0.two")
    outer = "net" if side == "new" else ""
    return [
        *call("head", 1.0, 2.0),
        Rec("out_grad", first, gradient, scope=outer),
        Rec("out_grad", last, gradient, scope=last.rpartition(".")[0]),
        Rec("out_grad", f"{first}.mlp", gradient, scope=first) if side == "new" else Rec("loss", "total", 1.0),
        *([Rec("loss", "total", 1.0)] if side == "new" else []),
    ]


def test_a_wrong_gradient_is_put_down_to_whoever_gives_it_not_to_the_block_that_hands_it_on(tmp_path):
    verdict = judged(tmp_path, backward("legacy", 1.0), backward("new", 2.0), mapping=MAPPING)
    assert (verdict.outcome, verdict.containers, verdict.divergence.where) == (MISMATCH, (), "net")


def test_a_block_that_should_not_hand_a_gradient_on_as_it_is_is_blamed(tmp_path):
    legacy = [replaced if r.name == "layers.0" and r.kind == "out_grad" else r for r in backward("legacy", 1.0)
              for replaced in [Rec("out_grad", "layers.0", 2.0)]]  # fmt: skip
    verdict = judged(tmp_path, legacy, backward("new", 2.0), mapping=MAPPING)
    assert verdict.divergence.where == "net.blocks.0.mlp"


def test_recordings_that_are_paired_several_times_are_read_once(tmp_path, monkeypatch):
    read = Counter()

    def counted(legacy, new, pair, *rest):
        read[pair.legacy.key, pair.new.key] += 1
        return compare_one(legacy, new, pair, *rest)

    compare_one = compare._compare_one
    monkeypatch.setattr(compare, "_compare_one", counted)
    verdict = judged(tmp_path, forward("legacy"), forward("new", wrong=1), mapping=MAPPING)
    assert verdict.containers and read and set(read.values()) == {1}


def test_arguments_of_methods_say_nothing_of_where_a_block_ends(tmp_path):
    def with_method(side, wrong=None):
        *records, given, result = forward(side, wrong)
        return [*records, Rec("method_in", "head", 1.0, "forward.other"), given, result]

    verdict = judged(tmp_path, with_method("legacy"), with_method("new", 1), mapping=MAPPING)
    assert (verdict.outcome, verdict.divergence.where, verdict.containers) == (MISMATCH, "net.blocks.1", PAIRS)


def test_a_block_that_gives_another_shape_ends_elsewhere(tmp_path):
    ends = ("module_out", "net.blocks.0")
    new = [
        replace(record, values=[record.values]) if (record.kind, record.name) == ends else record
        for record in forward("new", wrong=1)
    ]
    verdict = judged(tmp_path, forward("legacy"), new, mapping=MAPPING)
    assert (verdict.outcome, verdict.divergence.where, verdict.containers) == (MISMATCH, "net.blocks.1", PAIRS[1:])

"""Check ``init``: what building and ``init_weights`` make of a model is compared and named."""

import json

import pytest

from legacy_adapters.recording.trace_writer import Record
from legacy_adapters.tasks.initialising import TRAINED
from parity.comparing.compare import Comparison
from parity.comparing.pairing import Pair
from parity.verdict.initial import initial_differences

from .synthetic import SAME_NAMES

NAMED = {
    "init_level_embed_std": ("level_embed", "normal(0, 1) on the legacy side, normal(0, 0.02) on the new one"),
    "init_uniform_level_embed": ("level_embed", "normal(0, 1) on the legacy side, uniform(0, 1) on the new one"),
    "init_class_prior": ("bbox_head", "constant -4.59512 on the legacy side, constant -2.19722 on the new one"),
    "init_head_left_out": ("bbox_head", "`init_weights` leaves `bbox_head` as built"),
    "init_missing": ("the detector", "`init_weights` leaves `backbone`, `bbox_head`, `decoder`, `encoder`"),
    "init_twice": ("the detector", "more than once: it writes to"),
    "init_backbone_checkpoint": ("backbone", "asks for weights torchvision://resnet101; the legacy side's asks for no"),
    "init_class_branches_anew": ("bbox_head.aux_cls_branches", "are drawn each for itself on the new side and copies on the legacy one"),
    "init_encoder_layers_copied": ("encoder.layers", "are copies on the new side and drawn each for itself on the legacy one"),
    "init_shared": ("bbox_head", "are one parameter on the new side and parameters of their own on the legacy one"),
}


@pytest.mark.parametrize("error", NAMED)
def test_a_planted_error_is_named(tiny, error, planted):
    result = tiny("--check", "init", "--new-adapter", planted(error), "--json")
    assert result.stdout, result.stderr
    told = json.loads(result.stdout)
    where, message = NAMED[error]
    assert result.exit_code == 1
    assert told["first_divergence"]["where"] == told["initial"][0]["where"] == where
    assert message in told["initial"][0]["message"]


def test_the_port_initialises_as_the_legacy_code_does(tiny):
    result = tiny("--check", "init", "--json")
    assert result.stdout, result.stderr
    told = json.loads(result.stdout)
    assert (result.exit_code, told["initial"]) == (0, [])
    assert {"init: backbone", "init: bbox_head"} <= {stage["name"] for stage in told["stages"]}


def side(copies=(), shared=(), loaded=(), written=(), names="abcd"):
    recipes = {f"head.{name}": "normal(0, 1)" for name in names}
    return dict(init=dict(recipes=recipes, copies=copies, shared=shared, loaded=loaded, written=dict(written)))


def told(legacy, new):
    found = initial_differences(legacy, new, SAME_NAMES, ())
    return [(item.where, item.message) for item in found]


@pytest.mark.parametrize(
    ("legacy", "new", "words"),
    [
        ([["backbone", "a.pth", ""]], [["backbone", "b.pth", ""]], "asks for weights b.pth; the legacy side's asks for"),
        ([["backbone", "a.pth", ""]], [], "asks for no weights; the legacy side's asks for weights a.pth"),
        ([["backbone", "a.pth", ""]], [["backbone", "a.pth", "x."]], "weights a.pth (prefix x.)"),
        ([["backbone", "a.pth", ""]], [["backbone", "a.pth", ""]] * 2, "weights a.pth 2 times"),
    ],
)
def test_other_weights_are_named_with_their_module(legacy, new, words):
    ((where, message),) = told(side(loaded=legacy), side(loaded=new))
    assert where == "backbone" and words in message


def test_one_branch_that_is_no_copy_is_named():
    group = ["head.a", "head.b", "head.c"]
    ((where, message),) = told(side(copies=[group]), side(copies=[group[1:]]))
    assert where == "head.a" and "drawn each for itself on the new side" in message


def test_groups_that_are_alike_and_parameters_of_one_side_are_no_difference():
    legacy = side(copies=[["head.b", "head.a", "head.x"]], names="abx")
    assert told(legacy, side(copies=[["head.a", "head.b"]])) == []


def test_more_writes_count_only_where_everything_of_a_part_is_written_more_often():
    legacy = side(written={"head.a": 1, "head.b": 2, "head.c": 0})
    assert told(legacy, side(written={"head.a": 2, "head.b": 2, "head.c": 5})) == []
    assert told(legacy, side(written={"head.a": 1, "head.b": 1})) == []
    ((where, message),) = told(legacy, side(written={"head.a": 2, "head.b": 4, "head.c": 0}))
    assert where == "head" and "writes to `head.a` 2 times, the legacy side's once" in message


def test_a_side_without_the_check_differs_in_nothing():
    assert told({}, side()) == told(side(), {}) == []


def differing(name, slot=""):
    record = Record("init", "init", name, 0, slot, "F32", (1,), "")
    return Comparison(Pair(record, record), False, False, None)


def test_values_that_differ_though_they_are_drawn_alike_are_told():
    found = initial_differences(side(), side(), SAME_NAMES, [differing("head.a")])
    text = "`head.a` is initialised differently: normal(0, 1) on both sides, with other values."
    assert [(one.where, one.message) for one in found] == [("head.a", text)]


@pytest.mark.parametrize(("names", "where", "more"), [
    (["head.a"], "head.a", ""),
    (["head.a", "head.b"], "head", " (2 such parameters)"),
])  # fmt: skip
def test_parameters_that_are_frozen_on_one_side_are_told(names, where, more):
    found = initial_differences(side(), side(), SAME_NAMES, [differing(name, TRAINED) for name in names])
    text = f"`head.a` is trained on one side and frozen on the other{more}."
    assert [(one.where, one.message) for one in found] == [(where, text)]

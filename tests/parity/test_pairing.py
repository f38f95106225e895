"""Records find their twins by name, never by position; what has none is listed with its reason or without one."""

from dataclasses import replace

import pytest

from converters.errors import UnmappedKeyError
from converters.rules.mapping import Drop, Keep, Mapping, Rename
from legacy_adapters.recording.trace_writer import Record
from parity.comparing.pairing import LEGACY, NEW, Exclusion, pair

from .synthetic import SAME_NAMES

#: The branches of DDQ-DETR with 6 decoder layers: the dense one moves from the end of one list to the end of another.
BRANCHES = Mapping(
    "toy",
    (
        Keep("backbone.**"),
        *(Keep(f"bbox_head.cls_branches.{i}.*") for i in range(7)),
        *(Keep(f"bbox_head.reg_branches.{i}.*.*") for i in range(7)),
        *(Keep(f"bbox_head.aux_cls_branches.{i}.*") for i in range(6)),
        *(Keep(f"bbox_head.aux_reg_branches.{i}.*.*") for i in range(6)),
        Rename("bbox_head.cls_branches.7.*", "bbox_head.aux_cls_branches.6.*"),
        Rename("bbox_head.reg_branches.7.*.*", "bbox_head.aux_reg_branches.6.*.*"),
    ),
)


def record(kind, name, call=0, slot="", phase="train", digest=""):
    return Record(phase, kind, name, call, slot, "F32", (1,), digest)


def paired(legacy, new, mapping=SAME_NAMES, exclusions=()):
    """Return the pairing of two lists of records."""
    return pair(tuple(legacy), tuple(new), mapping, tuple(exclusions))


def names(pairing):
    return [(pair.legacy.name, pair.new.name) for pair in pairing.pairs]


@pytest.mark.parametrize("kind", ["module_in", "module_out"])
@pytest.mark.parametrize(
    ("legacy", "new"),
    [
        ("backbone", "backbone"),
        ("backbone.layer1.0.conv1", "backbone.layer1.0.conv1"),
        ("bbox_head", "bbox_head"),
        ("bbox_head.cls_branches.6", "bbox_head.cls_branches.6"),
        ("bbox_head.cls_branches.7", "bbox_head.aux_cls_branches.6"),
        ("bbox_head.reg_branches.7", "bbox_head.aux_reg_branches.6"),
        ("bbox_head.reg_branches.7.0", "bbox_head.aux_reg_branches.6.0"),
        # a ReLU has no weights, so no rule names it: it goes where its branch goes
        ("bbox_head.reg_branches.7.1", "bbox_head.aux_reg_branches.6.1"),
        ("bbox_head.aux_reg_branches.5.1", "bbox_head.aux_reg_branches.5.1"),
        ("bbox_head.loss_cls", "bbox_head.loss_cls"),
    ],
)
def test_module_pairs_with_where_its_weights_go(legacy, new, kind):
    pairing = paired([record(kind, legacy)], [record(kind, new)], BRANCHES)
    assert names(pairing) == [(legacy, new)] and pairing.unpaired == ()


def test_module_whose_weights_move_does_not_pair_with_its_own_name():
    one = [record("module_out", "bbox_head.cls_branches.7")]
    assert paired(one, one, BRANCHES).pairs == ()


@pytest.mark.parametrize("kind", ["param", "grad"])
@pytest.mark.parametrize(
    ("legacy", "new"),
    [
        ("bbox_head.cls_branches.7.weight", "bbox_head.aux_cls_branches.6.weight"),
        ("bbox_head.reg_branches.7.4.bias", "bbox_head.aux_reg_branches.6.4.bias"),
        ("bbox_head.cls_branches.6.weight", "bbox_head.cls_branches.6.weight"),
    ],
)
def test_parameter_and_gradient_pair_by_the_rules_that_rename_weights(legacy, new, kind):
    assert names(paired([record(kind, legacy)], [record(kind, new)], BRANCHES)) == [(legacy, new)]


@pytest.mark.parametrize("kind", ["tap", "loss"])
def test_tap_and_loss_keep_their_names_even_one_like_a_renamed_module(kind):
    name = "bbox_head.cls_branches.7.weight"
    same = paired([record(kind, name)], [record(kind, name)], BRANCHES)
    moved = paired([record(kind, name)], [record(kind, "bbox_head.aux_cls_branches.6.weight")], BRANCHES)
    assert names(same) == [(name, name)] and moved.pairs == ()


@pytest.mark.parametrize("kind", ["param", "grad"])
def test_parameter_without_a_rule_is_an_error_that_names_it(kind):
    one = [record(kind, "neck.convs.0.weight")]
    with pytest.raises(UnmappedKeyError, match="neck.convs.0.weight"):
        paired(one, one, BRANCHES)


def test_dropped_parameter_has_no_twin():
    mapping = Mapping("toy", (Keep("head.*"), Drop("old.*", "not used any more")))
    pairing = paired([record("param", "old.weight"), record("param", "head.weight")],
                     [record("param", "head.weight")], mapping)  # fmt: skip
    assert names(pairing) == [("head.weight", "head.weight")]
    assert [(item.side, item.record.name) for item in pairing.unpaired] == [(LEGACY, "old.weight")]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)], ids=str)
def test_order_of_the_new_side_does_not_matter(order):
    legacy = [
        record("module_out", "backbone"),
        record("module_out", "bbox_head.cls_branches.6"),
        record("module_out", "bbox_head.cls_branches.7"),
        record("tap", "distinct"),
    ]
    new = [
        record("module_out", "backbone"),
        record("module_out", "bbox_head.cls_branches.6"),
        record("module_out", "bbox_head.aux_cls_branches.6"),
        record("tap", "distinct"),
    ]
    pairing = paired(legacy, [new[i] for i in order], BRANCHES)
    assert names(pairing) == [(one.name, two.name) for one, two in zip(legacy, new)]
    assert pairing.unpaired == ()


def test_twins_of_one_shape_at_one_place_do_not_pair_by_position():
    pairing = paired([record("module_out", "backbone.a")], [record("module_out", "backbone.b")])
    assert pairing.pairs == ()
    assert [(i.side, i.record.name, i.exclusion) for i in pairing.unpaired] == [
        (LEGACY, "backbone.a", None),
        (NEW, "backbone.b", None),
    ]


@pytest.mark.parametrize(
    "other",
    [
        record("module_out", "m", call=0, slot="0", phase="predict"),
        record("module_in", "m", call=0, slot="0"),
        record("tap", "m", call=0, slot="0"),
        record("module_out", "n", call=0, slot="0"),
    ],
    ids=["phase", "in", "tap", "name"],
)
def test_every_part_of_the_key_matters(other):
    pairing = paired([record("module_out", "m", slot="0")], [other])
    assert pairing.pairs == ()
    assert [(item.side, item.record) for item in pairing.unpaired] == [
        (LEGACY, record("module_out", "m", slot="0")),
        (NEW, other),
    ]


def test_calls_and_slots_pair_one_to_one():
    keys = [(call, slot) for call in range(3) for slot in ("0", "1", "boxes")]
    legacy = [record("module_out", "m", call, slot) for call, slot in keys]
    new = [record("module_out", "m", call, slot) for call, slot in reversed(keys)]
    pairing = paired(legacy, new)
    assert [(p.legacy.call, p.legacy.slot) for p in pairing.pairs] == keys
    assert [(p.new.call, p.new.slot) for p in pairing.pairs] == keys


@pytest.mark.parametrize("side", [LEGACY, NEW])
def test_two_records_of_one_key_raise(side):
    once, twice = [record("tap", "distinct")], [record("tap", "distinct", digest="a"), record("tap", "distinct")]
    with pytest.raises(ValueError, match="Two records of one side have the key .*distinct"):
        paired(*((twice, once) if side == LEGACY else (once, twice)))


EXTRA = Exclusion(NEW, "module_out", "decoder.*", "2.*", "an output here, a shared dict there")


@pytest.mark.parametrize(
    ("side", "extra", "covered"),
    [
        (NEW, record("module_out", "decoder.0", slot="2.mask"), True),
        (NEW, record("module_out", "decoder.0", slot="2.mask", call=5, phase="predict"), True),
        (LEGACY, record("module_out", "decoder.0", slot="2.mask"), False),
        (NEW, record("module_in", "decoder.0", slot="2.mask"), False),
        (NEW, record("module_out", "encoder.0", slot="2.mask"), False),
        (NEW, record("module_out", "decoder", slot="2.mask"), False),
        (NEW, record("module_out", "decoder.0", slot="2"), False),
        (NEW, record("module_out", "decoder.0", slot="12.mask"), False),
        (NEW, record("module_out", "Decoder.0", slot="2.mask"), False),
    ],
)
def test_exclusion_covers_only_what_it_names_on_its_side(side, extra, covered):
    sides = ([extra], []) if side == LEGACY else ([], [extra])
    (item,) = paired(*sides, exclusions=[EXTRA]).unpaired
    assert (item.side, item.record, item.exclusion) == (side, extra, EXTRA if covered else None)


def test_exclusion_never_takes_a_pair_out_of_the_comparison():
    both = [record("module_out", "decoder.0", slot="2.mask")]
    sides = [Exclusion(side, "module_out", "*", "*", "all") for side in (LEGACY, NEW)]
    pairing = paired(both, both, exclusions=[EXTRA, *sides])
    assert len(pairing.pairs) == 1 and pairing.unpaired == ()


def inputs(**values):
    """Return what one call is given: floats of one form, each with its value for a digest."""
    return [record("module_in", "head", slot=slot, digest=str(value)) for slot, value in values.items()]


def likeness(legacy, new):
    return abs(float(legacy.digest) - float(new.digest))


@pytest.mark.parametrize(
    ("new", "pairs"),
    [
        (dict(boxes=2.001, scores=1.001, more=7.0), {"bbox_preds": "boxes", "cls_scores": "scores"}),
        (dict(boxes=2.5, scores=1.001, more=7.0), {"cls_scores": "scores"}),
        (dict(scores=1.001, also=1.002, more=7.0), {"cls_scores": "scores"}),
    ],
)
def test_arguments_of_other_names_and_another_number_pair_by_how_near_they_are(new, pairs):
    legacy = inputs(cls_scores=1.0, bbox_preds=2.0)
    found = pair(tuple(legacy), tuple(inputs(**new)), SAME_NAMES, (), likeness)
    assert {one.legacy.slot: one.new.slot for one in found.pairs} == pairs


@pytest.mark.parametrize(
    ("new", "pairs"),
    [
        ((("a", 1.001), ("b", 2.001), ("c", 1.001)), {"main": "a", "boxes": "b", "aux": "c"}),
        ((("a", 1.001), ("b", 2.001)), {"main": "a", "boxes": "b"}),
        ((("a", 1.001), ("b", 2.001), ("c", 1.5)), {"main": "a", "boxes": "b"}),
    ],
    ids=["repeated", "once", "other"],
)
def test_what_repeats_a_content_goes_with_it(new, pairs):
    """Digests alone would not tell, for on another kind of CPU both sides' differ."""
    legacy = [record("module_out", "head", slot=slot, digest=d) for slot, d in (("main", "1"), ("boxes", "2"), ("aux", "1"))]
    found = pair(
        tuple(legacy), tuple(record("module_out", "head", slot=slot, digest=str(value)) for slot, value in new),
        SAME_NAMES, (), likeness,
    )  # fmt: skip
    assert {one.legacy.slot: one.new.slot for one in found.pairs} == pairs


def calls_on(dtype, *digests):
    return tuple(
        replace(record("module_in", "embed", call, "ids", digest=digest), dtype=dtype, shape=(4,))
        for call, digest in enumerate(digests)
    )


@pytest.mark.parametrize(("dtype", "pairs"), [("F32", {0: 1, 1: 0}), ("I64", {0: 0, 1: 1})])
def test_calls_on_whole_numbers_that_differ_pair_in_their_order(dtype, pairs):
    """How near two lists of indices are says nothing."""
    found = pair(calls_on(dtype, "1", "2"), calls_on(dtype, "2.001", "1.001"), SAME_NAMES, (), likeness)
    assert {one.legacy.call: one.new.call for one in found.pairs} == pairs


def test_a_decision_that_is_taken_elsewhere_is_found_by_what_it_rests_on():
    def taken(name, scores):
        return record("basis", name, slot="scores", digest=scores), record("tap", name, slot="indices", digest="4")

    legacy = (*taken("head.topk", "1"), *taken("head.lone", "2"))
    new = (*taken("utils.topk", "1"), *taken("utils.other", "3"))
    assert names(pair(legacy, new, SAME_NAMES, ())) == [("head.topk", "utils.topk")] * 2

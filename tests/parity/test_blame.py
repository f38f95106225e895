"""The place where two runs part is named, the earliest one and the innermost."""

import pytest

from converters.rules.mapping import Mapping, Rename
from legacy_adapters.recording.scripts import PHASE as SCRIPT
from legacy_adapters.recording.trace_writer import Record
from parity.comparing.compare import compare_all
from parity.comparing.pairing import NEW, Exclusion, pair
from parity.verdict.blame import first_divergence
from parity.verdict.counterparts import Counterparts
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH

from .synthetic import EXACT, SAME_NAMES, Rec, judged, write_trace

A = [1.0]


@pytest.fixture
def blamed(tmp_path):
    """Return a function that writes the legacy records, and the new side with other values in the given places.

    ``differing`` are indices into the records; a later difference is a larger one, as errors grow. The new side writes
    its records in another order if asked to.
    """

    def blame(records, *differing, reorder=False):
        legacy = [Rec(r.kind, r.name, A, r.slot, r.call, r.phase, r.scope) for r in records]
        new = [
            Rec(r.kind, r.name, [2.0 + i] if i in differing else A, r.slot, r.call, r.phase, r.scope)
            for i, r in enumerate(records)
        ]
        one = write_trace(tmp_path / "legacy", *legacy)
        two = write_trace(tmp_path / "new", *(new[::-1] if reorder else new))
        pairs = pair(one.records, two.records, SAME_NAMES, ()).pairs
        return first_divergence(tuple(compare_all(one, two, pairs, EXACT)))

    return blame


def into(name, slot="x", **more):
    return Rec("module_in", name, slot=slot, **more)


def out(name, slot="", **more):
    return Rec("module_out", name, slot=slot, **more)


#: decoder calls layer 0, which calls its norm; then the head's loss
RUN = [
    Rec("param", "decoder.norm.weight", phase="weights"),  # 0
    into("decoder", scope=""),  # 1
    into("decoder.layers.0", scope="decoder"),  # 2
    into("decoder.layers.0.norm", scope="decoder.layers.0"),  # 3
    out("decoder.layers.0.norm", scope="decoder.layers.0"),  # 4
    out("decoder.layers.0", scope="decoder"),  # 5
    Rec("tap", "distinct", slot="keep", scope="decoder"),  # 6
    out("decoder", slot="1"),  # 7
    Rec("tap", "result"),  # 8
    Rec("loss", "loss_cls", scope=""),  # 9
    Rec("grad", "decoder.norm.weight"),  # 10
]


def test_equal_runs_part_nowhere(blamed):
    assert blamed(RUN) is None


@pytest.mark.parametrize(
    ("differing", "where", "says"),
    [
        ((0,), "decoder.norm.weight", "weights differ before anything runs"),
        ((1,), "the detector", "code of the detector calls `decoder` (call 0 of the train phase) with another `x`"),
        ((2,), "decoder", "code of `decoder` calls `decoder.layers.0`"),
        ((3,), "decoder.layers.0", "code of `decoder.layers.0` calls `decoder.layers.0.norm`"),
        ((4,), "decoder.layers.0.norm", "`decoder.layers.0.norm` (call 0 of the train phase) gives another output"),
        ((5,), "decoder.layers.0", "gives another output for equal inputs"),
        ((6,), "decoder", "`decoder` decides differently: tap `distinct`"),
        ((7,), "decoder", "output 1) gives another output"),
        ((8,), "the detector", "The detector decides differently: tap `result`"),
        ((9,), "loss_cls", "loss term `loss_cls` differs"),
        ((10,), "decoder.norm.weight", "differs; all gradients that flow between modules are equal"),
        # an error carries on: the first place counts, and an inner module comes before the one that holds it
        ((4, 5, 6, 7, 8, 9, 10), "decoder.layers.0.norm", "gives another output"),
        ((5, 6, 7, 9, 10), "decoder.layers.0", "gives another output"),
        ((3, 4, 5, 7), "decoder.layers.0", "with another `x`"),
        ((0, 4, 5, 7, 9, 10), "decoder.norm.weight", "weights differ"),
        ((9, 10), "loss_cls", "loss term"),
    ],
    ids=lambda value: ",".join(map(str, value)) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("reorder", [False, True], ids=["same order", "new side in another order"])
def test_first_place_is_blamed_in_the_order_of_the_legacy_side(blamed, differing, where, says, reorder):
    divergence = blamed(RUN, *differing, reorder=reorder)
    assert divergence.where == where and says in divergence.message
    first = divergence.comparison.pair.legacy
    assert (first.kind, first.name) == (RUN[differing[0]].kind, RUN[differing[0]].name)


def test_call_is_told_from_the_others(blamed):
    records = [out("branch", call=call) for call in range(3)]
    assert "`branch` (call 1 of the train phase)" in blamed(records, 1, 2).message


def test_inference_comes_before_training(blamed):
    records = [out("decoder", phase="predict"), out("backbone", phase="train")]
    divergence = blamed(records, 0, 1)
    assert divergence.where == "decoder" and "predict phase" in divergence.message


#: forward runs backbone, encoder, head; gradients are recorded by name, so the head's stands in the middle
GRADIENTS = [
    out("backbone"),  # 0
    out("encoder.layers.0"),  # 1
    out("encoder.norm"),  # 2
    out("encoder"),  # 3
    out("a_head"),  # 4
    Rec("grad", "a_head.weight"),  # 5
    Rec("grad", "backbone.weight"),  # 6
    Rec("grad", "encoder.layers.0.weight"),  # 7
    Rec("grad", "encoder.norm.weight"),  # 8
    Rec("grad", "level_embed"),  # 9
]


@pytest.mark.parametrize(
    ("differing", "where"),
    [
        ((5, 6, 7, 8, 9), "a_head.weight"),
        ((6, 7, 8), "encoder.norm.weight"),
        ((6, 7), "encoder.layers.0.weight"),
        ((6,), "backbone.weight"),
        ((6, 9), "backbone.weight"),
        ((9,), "level_embed"),
    ],
    ids=str,
)
def test_among_gradients_only_the_module_that_ran_last_is_blamed(blamed, differing, where):
    divergence = blamed(GRADIENTS, *differing)
    assert divergence.where == where and f"gradient of `{where}`" in divergence.message


def test_module_that_ran_again_counts_by_its_last_run(blamed):
    records = [
        out("shared"), out("neck"), out("shared", call=1), Rec("grad", "neck.weight"), Rec("grad", "shared.weight"),
    ]  # fmt: skip
    assert blamed(records, 3, 4).where == "shared.weight"


def test_inference_says_nothing_about_the_order_of_backward(blamed):
    records = [
        out("neck"), out("head"), out("neck", phase="predict"), Rec("grad", "head.weight"), Rec("grad", "neck.weight"),
    ]  # fmt: skip
    assert blamed(records, 3, 4).where == "head.weight"


#: backward: the head's code uses the decoder's output, the decoder's code the layer's
BACKWARD = [
    Rec("out_grad", "decoder", slot="1", scope=""),  # 0
    Rec("out_grad", "decoder.layers.0", scope="decoder"),  # 1
    Rec("in_grad", "decoder.layers.0.norm", slot="x", scope="decoder.layers.0"),  # 2
    Rec("in_grad", "decoder.layers.0", slot="x", scope="decoder"),  # 3
    Rec("grad", "decoder.layers.0.norm.weight"),  # 4
]


@pytest.mark.parametrize(
    ("differing", "where", "says"),
    [
        ((0, 1, 2, 3, 4), "the detector", "the code of the detector makes another gradient of output 1 of `decoder`"),
        ((1, 2, 3, 4), "decoder", "the code of `decoder` makes another gradient of output of `decoder.layers.0`"),
        ((2, 3), "decoder.layers.0.norm", "`decoder.layers.0.norm` (call 0 of the train phase) makes another gradient"),
        ((3,), "decoder.layers.0", "makes another gradient of its `x` from equal ones"),
        ((4,), "decoder.layers.0.norm.weight", "all gradients that flow between modules are equal"),
    ],
)
def test_backward_the_first_place_counts_too(blamed, differing, where, says):
    divergence = blamed(BACKWARD, *differing)
    assert divergence.where == where and says in divergence.message


def test_gradient_that_does_not_come_is_blamed_on_the_code_that_uses_the_output(tmp_path):
    verdict = judged(tmp_path, BACKWARD[:2], BACKWARD[:1])
    assert verdict.divergence.where == "decoder" and "no gradient comes" in verdict.divergence.message


@pytest.mark.parametrize(
    ("added", "where", "says"),
    [
        (into("decoder.layers.0.norm", call=1, scope="decoder.layers.0"), "decoder.layers.0", "once more"),
        (
            into("decoder", "mask", values=[1.0, 2.0]),
            "the detector",
            "calls `decoder` (call 0 of the train phase) once more, or with `mask`",
        ),
        (out("decoder", slot="2"), "decoder", "output of `decoder` (call 0 of the train phase) of the new side"),
        (Rec("tap", "noise", slot="draw", scope="backbone"), "backbone", "tap `noise`"),
        (Rec("grad", "backbone.weight"), "backbone.weight", "gradient `backbone.weight`"),
        (Rec("loss", "loss_mask"), "loss_mask", "loss term `loss_mask`"),
        (Rec("setting", "neck.weight", slot="lr", phase="step 1"), "neck.weight", "trains `neck.weight`"),
        (Rec("optim_state", "neck.weight", slot="exp_avg", phase="step 1"), "neck.weight", "optimizer's state of"),
        (Rec("clip", "gradients", slot="max_norm", phase="step 1"), "gradient clipping", "clips gradients"),
    ],
    ids="call argument output draw gradient loss setting moment clip".split(),
)
def test_record_of_the_new_side_without_a_twin_is_named_if_nothing_differs(tmp_path, added, where, says):
    verdict = judged(tmp_path, RUN, [*RUN, added])
    assert verdict.outcome == (MISMATCH if added.kind in ("setting", "clip") else INCOMPARABLE) and verdict.divergence.where == where and says in verdict.divergence.message


@pytest.mark.parametrize(
    ("cut_off", "where", "says"),
    [
        (["out_grad", "decoder", 0, "1"], "decoder", "gives an output 1 that is cut off"),
        (
            ["in_grad", "decoder.layers.0", 0, "x"],
            "decoder",
            "gives `decoder.layers.0` (call 0 of the train phase) an argument `x`",
        ),
    ],
    ids=["output", "input"],
)
def test_tensor_that_is_cut_off_is_named_before_the_gradients_that_do_not_come(tmp_path, cut_off, where, says):
    flow = [
        Rec("in_grad", "decoder.layers.0", slot="x", scope="decoder"),
        Rec("out_grad", "decoder", slot="1"),
    ]
    verdict = judged(tmp_path, [*RUN, *flow], RUN, on_new=dict(cut_off=(["train", *cut_off],)))
    assert verdict.divergence.where == where and says in verdict.divergence.message


def test_parameter_that_gets_a_gradient_is_named_before_the_gradients_that_flow_for_it(tmp_path):
    flow = [Rec("out_grad", "decoder", slot="1"), Rec("in_grad", "decoder.layers.0", slot="x", scope="decoder")]
    flowing = judged(tmp_path / "flow", RUN, [*RUN, *flow, Rec("tap", "noise", slot="draw", scope="backbone")])
    assert flowing.divergence.where == "decoder"
    trained = judged(tmp_path / "trained", RUN, [*RUN, *flow, Rec("grad", "backbone.weight")])
    assert trained.divergence.where == "backbone.weight"


def test_gradient_that_flows_on_one_side_only_is_no_difference_if_those_of_all_parameters_are_equal(tmp_path):
    flow = [Rec("out_grad", "decoder", slot="1"), Rec("in_grad", "decoder.layers.0", slot="x", scope="decoder")]
    assert judged(tmp_path / "new", RUN, [*RUN, *flow]).outcome == MATCH
    assert judged(tmp_path / "legacy", [*RUN, *flow], RUN).outcome == MATCH
    assert judged(tmp_path / "no_grad", RUN[:-1], [*RUN[:-1], *flow]).outcome == INCOMPARABLE


def test_difference_counts_before_a_record_of_the_new_side_without_a_twin(tmp_path):
    added = into("backbone", call=0)
    changed = [Rec(r.kind, r.name, [5.0] if i == 5 else r.values, r.slot, r.call, r.phase, r.scope)
               for i, r in enumerate(RUN)]  # fmt: skip
    assert judged(tmp_path, RUN, [added, *changed]).divergence.where == "decoder.layers.0"


def test_excluded_record_of_the_new_side_is_not_named(tmp_path):
    rule = (Exclusion(NEW, "module_in", "decoder", "mask", "given here only"),)
    assert judged(tmp_path, RUN, [*RUN, into("decoder", "mask")], exclusions=rule).divergence is None


@pytest.mark.parametrize(
    ("legacy", "caller"), [({"fc"}, "head"), ({"fc", "head"}, "")], ids=["divided otherwise", "called by another"]
)
def test_the_caller_is_the_new_sides_own_where_code_is_divided_otherwise(legacy, caller):
    counterparts = Counterparts(
        Mapping("toy", (Rename("fc.*", "head.fc.*"),)), frozenset({"head", "head.fc"}),
        frozenset("head.fc" if name == "fc" else name for name in legacy), {("train", "head.fc", 0): "head"},
    )  # fmt: skip
    record = counterparts.renamed(Record("train", "in_grad", "fc", 0, "input", "F32", (1,), "", ""))
    assert (record.name, record.scope) == ("head.fc", caller)


OPTIMIZER = Rec("update", "optimizer", slot="class", phase="step 1")
OPTION = Rec("update", "optimizer", slot="foreach", phase="step 1")


@pytest.mark.parametrize("side", ["legacy", "new"])
def test_what_the_optimizer_has_on_one_side_only_is_named(tmp_path, side):
    both = [*RUN, OPTIMIZER]
    lone = [*both, OPTION]
    divergence = judged(tmp_path, *((lone, both) if side == "legacy" else (both, lone))).divergence
    assert divergence.where == "the optimizer"
    assert divergence.message == f"In step 1 the optimizer has `foreach` on the {side} side only."


@pytest.mark.parametrize(("side", "says"), [
    ("legacy", "The new side calls the detector (call 0 of the train phase) without `mask`, or not at all."),
    ("new", "The new side calls the detector (call 0 of the train phase) once more, or with `mask`."),
])  # fmt: skip
def test_an_argument_of_the_model_itself_on_one_side_only_is_named(tmp_path, side, says):
    both = [into("", "img"), *RUN, out("")]
    lone = [into("", "mask", values=[1.0, 2.0]), *both]
    divergence = judged(tmp_path, *((lone, both) if side == "legacy" else (both, lone))).divergence
    assert (divergence.where, divergence.message) == ("the detector", says)


def of_script(kind, name, values, slot=""):
    return Rec(kind, name, [values], slot, phase=SCRIPT)


def test_of_a_script_without_gradients_between_modules_that_is_said(tmp_path):
    def side(gradient, *more):
        return [of_script("module_out", "", 1.0), *more, of_script("grad", "fc.weight", gradient)]

    found = judged(tmp_path / "none", side(1.0), side(2.0)).divergence
    says = "The gradient of `fc.weight` differs; gradients between modules were not recorded."
    assert (found.where, found.message) == ("fc.weight", says)
    flow = of_script("out_grad", "", 1.0)
    assert "all gradients that flow between modules are equal" in judged(
        tmp_path / "flow", side(1.0, flow), side(2.0, flow)
    ).divergence.message


def test_a_value_that_a_script_records_itself_is_named(tmp_path):
    sides = ([of_script("module_out", "", 1.0), of_script("tap", "accuracy", value, "0")] for value in (1.0, 2.0))
    found = judged(tmp_path, *sides).divergence
    says = "`accuracy`, which the script records (call 0, output 0), differs; all that was compared before it is equal."
    assert (found.where, found.message) == ("accuracy", says)

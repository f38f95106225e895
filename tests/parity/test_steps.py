"""Steps of a training: judged, blamed, told and bounded, on traces written by hand."""

import json

import pytest
import torch
from click.testing import CliRunner

from converters.rules.mapping import Drop, Keep, Mapping, Rename
from legacy_adapters.inputs import Batch
from parity.cli.main import cli
from parity.comparing.compare import Tolerance
from parity.comparing.derived import SQUARE_JUMP, bound
from parity.comparing.evidence import ZERO, Norms, Sample, TraceEvidence, spreads
from parity.comparing.pairing import LEGACY, NEW
from parity.report.report import closing_line
from parity.report.report_json import as_dict
from parity.report.stages import stages
from parity.report.training import training_lines
from parity.sides.settings import SettingsError, Task
from parity.sides.sides import inputs_of, twin_names
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH, judge
from tests.models import port

from .synthetic import SAME_NAMES, Rec, judged, write_trace

TRAIN = dict(checks=["train"], steps=2, clip_order="twin", epoch_length="endless", forced=False, optimizer="AdamW",
             optimizer_groups=2, frozen_in_groups=0)  # fmt: skip
BOTH = dict(on_legacy=TRAIN, on_new=TRAIN)
PARAMETERS = ("backbone.a.weight", "backbone.b.weight", "head.weight")


def f64(value):
    return torch.tensor(value, dtype=torch.float64)


def step(number):
    """Return the records of a step of a training of three parameters."""

    def rec(kind, name, value=1.0, slot=""):
        return Rec(kind, name, value, slot, phase=f"step {number}")

    settings = [(name, slot) for name in PARAMETERS for slot in ("initial_lr", "lr", "weight_decay")]
    return [
        rec("basis", "match", 1.0, "cost"),
        rec("tap", "match", [0], "rows"),
        rec("loss", "loss_cls"),
        rec("loss", "total"),
        *(rec("setting", name, f64(1e-4), slot) for name, slot in settings),
        *(rec("grad", name) for name in reversed(PARAMETERS)),
        rec("clip", "gradients", 3.0, "total_norm"),
        rec("clip", "gradients", f64(0.1), "max_norm"),
        *(rec("optim_state", name, 1.0, slot) for name in PARAMETERS for slot in ("step", "exp_avg", "exp_avg_sq")),
        *(rec("state", name) for name in PARAMETERS),
    ]


RUN = [*(Rec("param", name, phase="weights") for name in PARAMETERS), *step(1), *step(2)]


def changed(*places, by=2.0):
    """Return RUN with other values where (step, kind, name, slot) match; None matches anything."""

    def hit(record):
        found = (record.phase, record.kind, record.name, record.slot)
        return any(
            all(want is None or want == have for want, have in zip((f"step {s}", *rest), found)) for s, *rest in places
        )

    return [Rec(r.kind, r.name, r.tensor * by, r.slot, r.call, r.phase) if hit(r) else r for r in RUN]


def test_equal_trainings_match(tmp_path):
    verdict = judged(tmp_path, RUN, RUN[::-1], **BOTH)
    assert verdict.outcome == MATCH and len(verdict.comparisons) == len(RUN)


@pytest.mark.parametrize(
    ("places", "where", "says"),
    [
        ([(1, "loss", "total", "")], "total", "In step 1 the loss term `total` differs"),
        ([(2, "loss", "loss_cls", ""), (2, "loss", "total", "")], "loss_cls", "In step 2 the loss term `loss_cls`"),
        ([(1, "setting", None, "lr")], "the schedule", "In step 1 `lr` differs for all 3 parameters."),
        ([(2, "setting", None, "lr"), (2, "state", None, "")], "the schedule", "In step 2 `lr`"),
        ([(1, "setting", None, "initial_lr"), (1, "setting", None, "lr")], "the optimizer", "In step 1 `initial_lr`"),
        ([(1, "setting", None, "weight_decay")], "the optimizer", "`weight_decay` differs for all 3 parameters."),
        ([(2, "setting", "head.weight", "weight_decay")], "head.weight", "for 1 of 3 parameters: `head.weight`."),
        (
            [(1, "setting", "backbone.a.weight", "lr"), (1, "setting", "backbone.b.weight", "lr")],
            "backbone",
            "In step 1 `lr` differs for 2 of 3 parameters: `backbone`.",
        ),
        (
            [(1, "setting", "backbone.b.weight", "lr"), (1, "setting", "head.weight", "lr")],
            "the optimizer",
            "for 2 of 3 parameters, first for `backbone.b.weight`.",
        ),
        ([(1, "grad", None, "")], "the optimizer wrapper", "In step 1 3 of 3 gradients differ, `head.weight` first"),
        ([(2, "grad", "backbone.a.weight", "")], "backbone.a.weight", "In step 2 1 of 3 gradients differs"),
        (
            [(1, "clip", None, "total_norm")],
            "gradient clipping",
            "In step 1 the norm of all gradients together differs",
        ),
        ([(2, "clip", None, "max_norm")], "gradient clipping", "In step 2 gradients are clipped by another `max_norm`"),
        ([(2, "optim_state", "head.weight", "exp_avg_sq")], "head.weight", "the optimizer's `exp_avg_sq` of `head.wei"),
        (
            [(1, "state", "head.weight", "")],
            "head.weight",
            "After step 1 `head.weight` differs; its gradient, settings",
        ),
        ([(2, "tap", "match", "rows")], "the detector", "decides differently: tap `match` (call 0 in step 2)"),
        ([(2, "basis", "match", "cost")], "the detector", "decides on another `cost`: tap `match` (call 0 in step 2)"),
        # the first in time counts, not the first by kind
        ([(2, "loss", "total", ""), (1, "state", "head.weight", "")], "head.weight", "After step 1"),
        ([(1, "optim_state", None, None), (1, "clip", None, "max_norm")], "gradient clipping", "another `max_norm`"),
        ([(1, "setting", None, "lr"), (1, "loss", "total", "")], "total", "In step 1 the loss term"),
    ],
    ids=str,
)
def test_first_difference_is_named_with_its_step(tmp_path, places, where, says):
    verdict = judged(tmp_path, RUN, changed(*places), **BOTH)
    assert verdict.outcome == MISMATCH
    assert verdict.divergence.where == where and says in verdict.divergence.message


@pytest.mark.parametrize(
    ("kind", "where", "says"),
    [
        ("setting", "head.weight", "In step 2 the new side's optimizer does not train `head.weight`"),
        (
            "optim_state",
            "head.weight",
            "optimizer's state of `head.weight` (call 0 in step 2) of the legacy side has no",
        ),
        ("clip", "gradient clipping", "In step 2 the new side's optimizer does not clip gradients"),
    ],
)
def test_what_the_new_side_lacks_in_a_step_is_named(tmp_path, kind, where, says):
    fewer = [r for r in RUN if (r.phase, r.kind) != ("step 2", kind) or r.name not in ("head.weight", "gradients")]
    verdict = judged(tmp_path, RUN, fewer, **BOTH)
    assert verdict.outcome == (INCOMPARABLE if kind == "optim_state" else MISMATCH)
    assert verdict.divergence.where == where and says in verdict.divergence.message


def test_gradients_of_a_step_are_not_taken_for_those_of_the_gradient_check(tmp_path):
    forward = [Rec("module_out", "backbone.a"), Rec("module_out", "head"), Rec("grad", "backbone.a.weight")]
    new = [*forward[:2], Rec("grad", "backbone.a.weight", 2.0), *changed((1, "grad", "head.weight", ""))]
    verdict = judged(tmp_path, [*forward, *RUN], new, **BOTH)
    assert verdict.divergence.where == "backbone.a.weight" and "step" not in verdict.divergence.message


@pytest.mark.parametrize("kind", ["loss", "grad", "setting", "state"])
@pytest.mark.parametrize("number", [1, 2])
def test_step_of_which_nothing_was_compared_is_never_a_match(tmp_path, kind, number):
    fewer = [record for record in RUN if (record.phase, record.kind) != (f"step {number}", kind)]
    verdict = judged(tmp_path, fewer, fewer, **BOTH)
    assert verdict.outcome == INCOMPARABLE
    assert f"Check train was asked for and no {kind} of step {number} was compared." in verdict.reasons


def test_training_without_steps_is_never_a_match(tmp_path):
    none = dict(TRAIN, steps=0)
    verdict = judged(tmp_path, RUN, RUN, on_legacy=none, on_new=none)
    assert verdict.outcome == INCOMPARABLE and "Check train was asked for" in verdict.reasons[0]


def test_optimizer_without_state_is_compared_all_the_same(tmp_path):
    plain = [record for record in RUN if record.kind != "optim_state"]
    assert judged(tmp_path, plain, plain, **BOTH).outcome == MATCH


@pytest.mark.parametrize(("name", "value"), [("steps", 3), ("clip_order", "own"), ("epoch_length", 7)])
@pytest.mark.parametrize("tolerance", ["exact", "fixed"])
def test_other_training_is_incomparable(tmp_path, name, value, tolerance):
    sides = dict(on_legacy=TRAIN, on_new=dict(TRAIN, **{name: value}))
    verdict = judged(tmp_path, RUN, RUN, tolerance=Tolerance(tolerance), **sides)
    assert verdict.outcome == INCOMPARABLE and verdict.reasons[0].startswith(f"{name} is ")


@pytest.mark.parametrize("name", ["steps", "clip_order", "epoch_length"])
def test_training_that_does_not_say_how_is_incomparable(tmp_path, name):
    unsaid = dict(TRAIN, **{name: None})
    verdict = judged(tmp_path, RUN, RUN, on_legacy=unsaid, on_new=unsaid)
    assert verdict.outcome == INCOMPARABLE and verdict.reasons == (
        f"{name} is recorded on neither side; record both again.",
    )


@pytest.mark.parametrize("kind", ["setting", "optim_state", "grad", "state"])
def test_parameters_pair_through_the_mapping(tmp_path, kind):
    mapping = Mapping("toy", (Keep("backbone.**"), Rename("head.*", "bbox_head.*")))
    renamed = [Rec(r.kind, r.name.replace("head", "bbox_head"), r.values, r.slot, r.call, r.phase) for r in RUN]
    verdict = judged(tmp_path / "a", RUN, renamed, mapping=mapping, **BOTH)
    assert verdict.outcome == MATCH
    other = [
        Rec(r.kind, r.name, r.tensor + 1, r.slot, r.call, r.phase)
        if (r.phase, r.kind, r.name) == ("step 2", kind, "bbox_head.weight") else r
        for r in renamed
    ]  # fmt: skip
    assert judged(tmp_path / "b", RUN, other, mapping=mapping, **BOTH).divergence.where == "bbox_head.weight"


@pytest.mark.parametrize(
    ("slot", "factor", "outcome"),
    [
        # a learning rate of 1e-4 is far below the atol of fixed
        ("lr", 2.0, MISMATCH),
        ("lr", 1 + 2.0**-43, MISMATCH),
        ("lr", 1 + 2.0**-45, MATCH),
        ("weight_decay", 0.0, MISMATCH),
        ("max_norm", 1 + 1e-9, MISMATCH),
    ],
)
def test_settings_differ_by_no_more_than_their_own_last_places_under_fixed_tolerance(tmp_path, slot, factor, outcome):
    fixed = Tolerance("fixed", rtol=1e-2, atol=1e-2)
    verdict = judged(tmp_path, RUN, changed((1, None, None, slot), by=f64(factor)), tolerance=fixed, **BOTH)
    assert verdict.outcome == outcome


def test_settings_are_exact_under_exact_tolerance(tmp_path):
    places = (1, "setting", None, "lr")
    assert judged(tmp_path, RUN, changed(places, by=f64(1 + 2.0**-45)), **BOTH).outcome == MISMATCH


@pytest.fixture
def derived(tmp_path):
    """Return a function that judges a training under derived tolerance; ``new64`` defaults to the float64 of RUN."""

    def wide(records):
        return [Rec(r.kind, r.name, r.tensor.double() if r.tensor.is_floating_point() else r.tensor, r.slot, r.call,
                    r.phase) for r in records]  # fmt: skip

    def call(new, new64=RUN, legacy=RUN):
        forced = dict(TRAIN, forced=True)
        sides = dict(legacy=legacy, reference=wide(legacy), new=new, new_reference=wide(new64))
        traces = {name: write_trace(tmp_path / name, *records, **forced) for name, records in sides.items()}
        evidence = TraceEvidence(spread=spreads([traces["legacy"]], traces["reference"]), **traces)
        return judge(traces["legacy"], traces["new"], SAME_NAMES, (), Tolerance("derived"), evidence)

    return call


@pytest.mark.parametrize(
    ("kind", "slot", "factor", "outcome"),
    [
        ("grad", "", 1.4, MATCH),
        ("grad", "", 1.6, MISMATCH),
        ("optim_state", "exp_avg", 1.4, MATCH),
        ("optim_state", "exp_avg", 1.6, MISMATCH),
        ("optim_state", "exp_avg_sq", 2.2, MATCH),
        ("optim_state", "exp_avg_sq", 2.3, MISMATCH),
        ("optim_state", "step", 1.01, MISMATCH),
        ("clip", "total_norm", 1.4, MATCH),
        ("clip", "total_norm", 1.6, MISMATCH),
        ("clip", "max_norm", 1 + 1e-9, MISMATCH),
        ("setting", "lr", 1 + 1e-9, MISMATCH),
        ("loss", "", 1.0001, MISMATCH),
        ("state", "", 1.0001, MISMATCH),
    ],
)
def test_in_float32_what_follows_gradients_may_jump_and_nothing_else(derived, kind, slot, factor, outcome):
    by = f64(factor) if kind == "setting" or slot == "max_norm" else factor
    assert derived(changed((2, kind, None, slot), by=by)).outcome == outcome


@pytest.mark.parametrize(
    ("kind", "slot"),
    [("grad", ""), ("optim_state", "exp_avg"), ("optim_state", "exp_avg_sq"), ("clip", "total_norm"), ("state", "")],
)
def test_in_float64_nothing_jumps(derived, kind, slot):
    other = changed((2, kind, "gradients" if kind == "clip" else "head.weight", slot), by=1 + 2.0**-20)
    wide = changed((2, kind, "gradients" if kind == "clip" else "head.weight", slot), by=f64(1 + 1e-9))
    assert derived(other, new64=wide).outcome == MISMATCH


def moving(first, second):
    """Return RUN with a head that starts at 1 and is left at ``first`` and ``second`` by the two steps."""
    left = {"step 1": first, "step 2": second}
    return [
        Rec(r.kind, r.name, left[r.phase], r.slot, r.call, r.phase)
        if (r.kind, r.name) == ("state", "head.weight") else r
        for r in RUN
    ]  # fmt: skip


@pytest.mark.parametrize(("value", "outcome"), [(1.125, MATCH), (1.1249, MISMATCH), (1.625, MATCH), (1.6251, MISMATCH)])
def test_in_float32_a_parameter_may_be_off_by_twice_its_way_in_that_step(derived, value, outcome):
    legacy = moving(1.25, 1.375)
    assert derived(moving(1.25, value), new64=legacy, legacy=legacy).outcome == outcome


@pytest.mark.parametrize(("value", "outcome"), [(0.75, MATCH), (0.7499, MISMATCH)])
def test_way_of_the_first_step_is_from_the_weights(derived, value, outcome):
    legacy = moving(1.25, 1.375)
    assert derived(moving(value, 1.375), new64=legacy, legacy=legacy).outcome == outcome


def test_slack_widens_a_bound_and_never_narrows_it():
    values = f64([4.0, -4.0])
    sample = Sample(values, values, ZERO, values, values)
    assert SQUARE_JUMP == 1.25
    assert bound(sample, slack=Norms(0.5, 0.25)) == Norms(0.5, 0.25)
    assert bound(sample, slack=Norms(1e-9, 1e-9)) == bound(sample)


def test_twin_names_are_in_the_order_of_the_legacy_optimizer_and_leave_out_what_is_dropped(tmp_path):
    def trained(name):
        return Rec("setting", name, f64(0.1), "lr", phase="step 1")

    trace = write_trace(
        tmp_path, trained("head.weight"), trained("old.weight"), trained("backbone.weight"),
        Rec("setting", "backbone.weight", f64(0.1), "eps", phase="step 1"),
        Rec("state", "head.weight", phase="step 1"), Rec("state", "backbone.mean", phase="step 1"),
        Rec("setting", "late.weight", f64(0.1), "lr", phase="step 2"),
    )  # fmt: skip
    mapping = Mapping("toy", (Keep("backbone.**"), Rename("head.*", "bbox_head.*"), Drop("old.*", "never read")))
    names = twin_names(trace.records, mapping)
    assert list(names["setting"].items()) == [
        ("bbox_head.weight", "head.weight"),
        ("backbone.weight", "backbone.weight"),
    ]
    assert names["state"] == {"bbox_head.weight": "head.weight", "backbone.mean": "backbone.mean"}


def test_batches_of_a_run_are_fresh_of_the_tasks_objects_and_each_of_other_sizes():
    task = Task(port("mmdet_ddq", "tiny_4scale"), ((64, 96), (48, 64)), (3, 0), 5, ("train",), 2)
    one, again, *others = (Batch.from_tensors(dict(inputs_of(task, phase)), "cpu", torch.float32) for phase in ("step 1", "step 1", "step 2", "train", "predict"))
    assert torch.equal(one.images, again.images)
    assert len({batch.image_sizes for batch in (one, *others)}) == 4 and others[-1].image_sizes == task.sizes
    for batch in (one, *others):
        assert [len(boxes) for boxes in batch.gt_bboxes] == [3, 0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(steps=0), "Steps 0 are not 1 to"),
        (dict(steps=2.0), "Steps 2.0"),
        (dict(checks=("loss",)), "or 0 without it"),
        (dict(epoch_length=0), "Epoch length 0"),
        (dict(clip_order="any"), "neither twin nor own"),
        (dict(resume_at=2), "Resume at 2 is not a step before the last of 2"),
        (dict(resume_at=-1), "Resume at -1"),
        (dict(resume_at=1, steps=1), "Resume at 1 is not a step before the last of 1"),
    ],
    ids=str,
)
def test_task_that_makes_no_sense_is_refused(changes, says):
    fields = dict(port=port("mmdet_ddq", "tiny_4scale"), sizes=((64, 64),), objects=None, seed=0, checks=("train",))
    with pytest.raises(SettingsError, match=says):
        Task(**{**fields, "steps": 2, **changes})


@pytest.mark.parametrize(
    "option",
    [("--steps", "3"), ("--epoch-length", "3"), ("--clip-order", "twin"), ("--resume-at", "1")],
    ids=" ".join,
)
def test_option_of_a_training_without_training_is_refused(option):
    result = CliRunner().invoke(cli, ["run", "--family", "mmdet_ddq", "--variant", "tiny_4scale", *option])
    assert result.exit_code == 2 and f"{option[0]} needs check train" in result.stderr


def test_golden_file_cannot_be_made_of_a_training(tmp_path):
    arguments = ["capture", tmp_path / "g.npz", "--family", "mmdet_ddq", "--variant", "tiny_4scale", "--check", "train"]
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 2 and "'train' is not a check" in result.stderr


def test_report_tells_how_it_was_trained_and_counts_by_step(tmp_path):
    sides = dict(on_legacy=dict(TRAIN, optimizer_groups=5, frozen_in_groups=2), on_new=TRAIN)
    verdict = judged(tmp_path, RUN, changed((2, "grad", "head.weight", "")), **sides)
    how, groups = training_lines(verdict)
    assert how.startswith("2 training steps, in one endless epoch; clip norm summed in the legacy side's order")
    assert groups.strip().startswith("legacy AdamW with 5 groups, 2 frozen; new AdamW with 2 groups, 0 frozen")
    size = len(step(1))
    assert as_dict(verdict)["steps"] == [
        {"step": 1, "records": size, "identical": size, "accepted": size, "max_abs": {}},
        {"step": 2, "records": size, "identical": size - 1, "accepted": size - 1, "max_abs": {"gradients": 1.0}},
    ]
    assert [stage.name for stage in stages(verdict.comparisons)] == [
        "weights", "steps: decisions", "steps: losses", "steps: settings", "steps: gradients", "steps: clip norm",
        "steps: optimizer state", "steps: state afterwards",
    ]  # fmt: skip
    assert "First at head.weight." in closing_line(verdict)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(clip_order="own"), "clip norm summed in each side's own order"),
        (dict(epoch_length=3), "in epochs of 3"),
        (dict(forced=True), "2 training steps, each from the legacy side's state"),
        (dict(resumed=True, resume_at=1), "from step 2 on resumed from the legacy side's checkpoint, converted"),
    ],
    ids=str,
)
def test_report_tells_the_conditions_of_a_training(tmp_path, changes, says):
    told = dict(TRAIN, **changes)
    assert says in training_lines(judged(tmp_path, RUN, RUN, on_legacy=told, on_new=told))[0]


def test_report_says_nothing_of_training_without_it(tmp_path):
    one = [Rec("loss", "total")]
    verdict = judged(tmp_path, one, one)
    assert training_lines(verdict) == [] and json.loads(json.dumps(as_dict(verdict)))["steps"] == []
    assert verdict.provenance[LEGACY].get("steps") is verdict.provenance[NEW].get("steps") is None

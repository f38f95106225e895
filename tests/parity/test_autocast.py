"""Autocast of both sides: live runs, errors that only it shows, a legacy side that cannot, and the bounds."""

import json
from contextlib import nullcontext

import pytest
import torch

from legacy_adapters.launch import SideError
from legacy_adapters.numerics.precision import autocasting, perturb
from parity.comparing.compare import Tolerance
from parity.comparing.derived import CEILING, FLOAT64_SHARE, JUMP, LOOSE, examine, limits_of
from parity.comparing.evidence import Norms, Sample, TraceEvidence
from parity.runs import run as parity_run
from parity.runs.autocast import unable
from parity.sides.settings import Machine, Sources, Task
from parity.sides.sides import Sides, prepare
from parity.traces.trace import decisions
from parity.verdict.outcome import INCOMPARABLE, MATCH, MISMATCH
from parity.verdict.verdict import judge
from tests.models import exclusions as exclusions_of
from tests.models import mapping, port

from .conftest import PLANTED
from .synthetic import Rec, write_trace
from .synthetic import judged as judged_by_hand

FAMILY, SIZES = "mmdet_ddq", ((64, 96), (96, 64))
EXACT, DERIVED = Tolerance(), Tolerance("derived")
BF16, F32, F64 = torch.bfloat16, torch.float32, torch.float64


@pytest.mark.parametrize(("variant", "amp"), [("tiny_4scale", "fp16"), ("tiny_5scale", "bf16"), ("tiny_swinl", "fp16")])
def test_inference_under_autocast_has_the_same_bits(parity, variant, amp):
    arguments = ("--family", FAMILY, "--variant", variant, "--size", "64x96,96x64", "--check", "forward")
    result = parity("run", *arguments, "--amp", amp, "--threads", "1", "--json")
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["identical"] == verdict["records"] > 1500
    assert {side["amp"] for side in verdict["provenance"].values()} == {amp}
    told = f", under {amp} autocast with bbox_head.float32_boxes=False"
    assert verdict["summary"].endswith(told)


class Ground:
    """The legacy side, run once under bf16 autocast or without; judges adapters in ``planted`` against that."""

    def __init__(self, folder, amp):
        folder.mkdir()
        self.task = Task(port(FAMILY, "tiny_4scale"), SIZES, None, 0, ("forward",), amp=amp)
        self.machine = Machine("cpu", 1, None, 300.0)
        self.folder, self.prepared = folder, prepare(self.task, Sources(), self.machine)
        self.sides = Sides(self.task, Sources(), self.machine, self.prepared, folder)
        self.legacy = self.sides.legacy()

    def measure(self):
        self.bundle = self.sides.write_decisions(decisions(self.legacy))
        self.measured = parity_run.measure_legacy(self.sides, self.legacy, lambda step: None)

    def judged(self, error, derived=False):
        sources = Sources(new_adapter=PLANTED / f"{error}.py") if error else Sources()
        sides = Sides(self.task, sources, self.machine, self.prepared, self.folder)
        given = dict(replay=self.bundle) if derived else {}
        new, evidence = sides.new(**given), None
        if derived:
            again = sides.new("new64", dtype="float64", amp=None, decide=False, **given)
            evidence = TraceEvidence(self.legacy, self.measured.reference, self.measured.spread, new, again)
        tolerance = DERIVED if derived else EXACT
        return judge(self.legacy, new, mapping(FAMILY, "tiny_4scale"), exclusions_of(FAMILY), tolerance, evidence)


@pytest.fixture(scope="module")
def under_autocast(tmp_path_factory):
    ground = Ground(tmp_path_factory.mktemp("autocast") / "bf16", "bf16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity_run, "REPEATS", (dict(perturb=1), dict(perturb=2)))
        ground.measure()
    return ground


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory):
    return Ground(tmp_path_factory.mktemp("float32") / "float32", None)


ERRORS = [
    ("left_autocast", "bbox_head.cls_branches.3"),
    ("half_positions", "positional_encoding"),
    ("positions_like_features", "the detector"),
    ("float32_boxes", "bbox_head"),
]


@pytest.mark.parametrize("error", [error for error, _ in ERRORS])
def test_error_of_autocast_does_not_show_without(in_float32, error):
    verdict = in_float32.judged(error)
    assert verdict.outcome == MATCH, verdict.reasons


@pytest.mark.parametrize(("error", "where"), ERRORS)
def test_error_of_autocast_is_named_by_bits(under_autocast, error, where):
    verdict = under_autocast.judged(error)
    assert (verdict.outcome, verdict.divergence.where) == (MISMATCH, where)


@pytest.mark.parametrize(("error", "where"), ERRORS[:2])
def test_error_of_autocast_is_named_under_derived_tolerance(under_autocast, error, where):
    verdict = under_autocast.judged(error, derived=True)
    assert (verdict.outcome, verdict.divergence.where) == (MISMATCH, where)


def test_the_port_matches_under_derived_tolerance(under_autocast):
    verdict = under_autocast.judged("", derived=True)
    assert verdict.outcome == MATCH, verdict.reasons


def test_legacy_code_without_losses_under_autocast_is_told(tiny):
    result = tiny("--check", "forward,loss,grad", "--amp", "bf16", "--threads", "1", sizes="64x96,96x64")
    assert result.exit_code == 3, result.output
    lines = result.stdout.splitlines()
    assert lines[-1].startswith(
        "INCOMPARABLE The legacy code cannot compute losses under bf16 autocast, though it can without: the legacy "
        "side stopped in `bbox_head.aux_loss_for_dense` (the train phase): RuntimeError: Index put requires the source "
        "and destination dtypes match"
    )
    assert lines[-1].endswith("The new side can.") and max(len(line) for line in lines[:-1]) <= 80
    assert any(line.startswith("training: gradients") for line in lines)  # what autocast does
    counts = [line.split()[2:4] for line in lines if line.startswith("inference: decoder")]
    assert len(counts) == 1 and len(set(counts[0])) == 1  # inference was compared


def test_legacy_code_without_losses_leaves_only_weights_to_compare_where_nothing_else_is_asked_for(tiny):
    result = tiny("--check", "loss", "--amp", "bf16", "--threads", "1", "--json", sizes="64x96")
    verdict = json.loads(result.stdout)
    assert (result.exit_code, verdict["verdict"]) == (3, "INCOMPARABLE")
    assert verdict["reasons"][0].startswith("The legacy code cannot compute losses under bf16 autocast, though it can without")
    assert {stage["name"] for stage in verdict["stages"]} == {"weights"}


class Crashing:
    """A legacy side that stopped under autocast, and does so without."""

    task = Task(port(FAMILY, "tiny_4scale"), SIZES, None, 0, ("loss",), amp="bf16")

    def __init__(self, folder):
        self.folder, self.asked = folder, []

    def legacy(self, run, **changes):
        self.asked.append(changes)
        raise SideError("legacy", "crashed", "")


def test_legacy_code_that_crashes_without_autocast_as_well_is_not_put_down_to_it(tmp_path):
    stopped = dict(error="RuntimeError: no", place="`neck` (the train phase)", traceback="")
    write_trace(tmp_path / "legacy", Rec("module_out", "backbone"), stopped=stopped)
    sides = Crashing(tmp_path)
    assert unable(sides, lambda step: None) is None and sides.asked == [dict(amp=None)]


@pytest.mark.parametrize("stopped", [None, {}], ids=["no trace", "whole trace"])
def test_a_crash_that_left_nothing_to_tell_is_not_put_down_to_autocast(tmp_path, stopped):
    if stopped is not None:
        write_trace(tmp_path / "legacy", Rec("module_out", "backbone"))
    sides = Crashing(tmp_path)
    assert unable(sides, lambda step: None) is None and sides.asked == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--check", "forward,train"), "Steps of a training are not taken under autocast"),
        (("--dtype", "float64"), "Autocast leaves float64 as it is"),
    ],
)
def test_what_autocast_is_not_for_is_refused_in_one_line(tiny, arguments, told):
    result = tiny("--amp", "bf16", *arguments)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and told in result.stderr


def test_a_torch_without_such_an_autocast_is_an_error_and_not_float32(monkeypatch):
    with autocasting("cpu", "bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is BF16
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    with pytest.raises(RuntimeError, match="has no autocast to bf16 on cpu"), autocasting("cpu", "bf16"):
        pass


@pytest.mark.parametrize("tolerance", [EXACT, Tolerance("fixed", rtol=1.0, atol=1.0)], ids=["exact", "fixed"])
def test_the_same_numbers_in_another_precision_are_a_mismatch(tmp_path, tolerance):
    legacy, new = ([Rec("module_out", "neck", torch.tensor([1.0, 2.0], dtype=kind))] for kind in (BF16, F32))
    verdict = judged_by_hand(tmp_path, legacy, new, tolerance=tolerance)
    assert verdict.outcome == MISMATCH and verdict.comparisons[0].difference.note == "BF16[2] became F32[2]"


def test_half_precision_is_measured_in_its_own_last_places(tmp_path):
    one, two = (torch.tensor([1.0, value], dtype=BF16) for value in (2.0, 2.0 + 3 * 2.0**-6))
    verdict = judged_by_hand(tmp_path, [Rec("module_out", "neck", one)], [Rec("module_out", "neck", two)])
    assert verdict.comparisons[0].difference.metrics.ulps == 3


def test_another_autocast_is_another_condition(tmp_path):
    same = [Rec("module_out", "neck", 1.0)]
    verdict = judged_by_hand(tmp_path, same, same, on_legacy=dict(amp="bf16"))
    assert verdict.outcome == INCOMPARABLE and verdict.reasons[0].startswith("amp is bf16 on the legacy side and None")


def test_limits_follow_from_the_bits_of_the_precision():
    single, half, brain = map(limits_of, (None, "fp16", "bf16"))
    assert (single.ceiling, single.jump, single.loose, single.float64_share) == (CEILING, JUMP, LOOSE, FLOAT64_SHARE)
    # a third of the digits: the third root of the share; 16 bits fewer: 2^-16 of the spread
    assert brain.ceiling**3 == pytest.approx(CEILING) and single.ceiling < half.ceiling < brain.ceiling < 1
    assert brain.float64_share == FLOAT64_SHARE * 2.0**-16 and half.float64_share == FLOAT64_SHARE * 2.0**-13


def test_what_is_too_large_leaves_the_bound_in_float64_as_sharp_as_in_float32():
    single, *others = map(limits_of, (None, "fp16", "bf16"))
    for limits in others:
        assert limits.float64_share * limits.loose == single.float64_share * single.loose
        assert limits.float64_share * limits.loose_gradient == single.float64_share * single.loose_gradient


@pytest.mark.parametrize(
    ("kind", "spread", "error", "error64", "objection"),
    [
        (BF16, 2.0**-9, 2.0**-6, 0.0, ""),
        (BF16, 2.0**-9, 2.0**-4, 0.0, "max error 0.062"),
        # 2^-36 of 8 spreads and 4 last places of float32: 2^-42 + 2^-41
        (BF16, 2.0**-9, 0.0, 2.0**-41, ""),
        (BF16, 2.0**-9, 0.0, 2.0**-40, "max error in float64"),
        # without a spread: some last places of what was computed, which need not be half precision
        (BF16, 0.0, 2.0**-6, 0.0, ""),
        (F32, 0.0, 2.0**-9, 0.0, "max error 0.002"),
        (F32, 0.0, 2.0**-21, 0.0, ""),
    ],
)
def test_bounds_under_autocast(kind, spread, error, error64, objection):
    legacy, reference = torch.ones(4, dtype=kind), torch.ones(4, dtype=F64)
    new, again = reference.clone(), reference.clone()
    new[0] += error
    again[0] += error64
    found = examine(Sample(legacy, reference, Norms(spread, spread), new, again, amp="bf16"))
    assert found.objection.startswith(objection) if objection else not found.objection


def test_weights_are_rounded_up_or_down_at_random_and_no_further():
    exact = torch.linspace(1.0, 2.0, 1000)[:-1]
    changed = exact.clone()
    perturb([changed], 1, "bf16")
    one, two = exact.to(BF16).view(torch.int16), changed.to(BF16).view(torch.int16)
    steps = two - one
    assert set(steps.tolist()) == {-1, 0, 1} and 0.1 < (steps != 0).float().mean() < 0.9

"""The suite counts what it should: what is detected, what is named, what is quiet, and what an edit does."""

from pathlib import Path

import pytest
import torch

from parity.comparing.compare import DERIVED, EXACT
from parity.traces.trace import Trace, TraceError

from ..parity.synthetic import Rec, write_trace
from .bench import ALARM, CRASH, MISNAMED, MISSED, NAMED, SILENT, Finding, Measurement, shift
from .clean import Alarm, ExactCase, GoldenCase, LiveCase, cases
from .edits import Edit, chosen
from .fault import CHECKPOINT, DETECTOR, INCOMPARABLE, MISMATCH, REFUSED, TRACE, Fault, Rewrite
from .suite import Summary


def nothing(_):
    """Plant nothing."""


CODE = Fault("code", "sign", "decoder", nothing, says="tap `distinct`")
LOST = Fault("lost", "missing records", DETECTOR, nothing, outcome=INCOMPARABLE)
EMPTY = Fault("empty", "constant weights", "constant", nothing, place=CHECKPOINT, outcome=INCOMPARABLE)
SAME = Rewrite("same", "other indexing", "decoder", nothing)
ROUNDED = Rewrite("rounded", "norm by hand", "decoder.norm", nothing, keeps_bits=False)
TORN = Fault("torn", "damaged shard", ".safetensors", nothing, place=TRACE, outcome=REFUSED)
RIGHT = {
    CODE: Finding(MISMATCH, "decoder", "`decoder` decides differently: tap `distinct` (call 2 of the predict phase)."),
    LOST: Finding(INCOMPARABLE, DETECTOR, "The code of the detector calls `decoder` without `mask`, or not at all."),
    TORN: Finding(REFUSED, "", "/tmp/edited/trace-00001.safetensors is damaged: header too short."),
}


@pytest.mark.parametrize(
    ("fault", "finding", "judged"),
    [
        *((fault, finding, NAMED) for fault, finding in RIGHT.items()),
        (CODE, Finding("MATCH", "", ""), MISSED),
        (CODE, Finding(CRASH, "", "decoder"), MISSED),
        (CODE, Finding(INCOMPARABLE, "decoder", "tap `distinct`"), MISSED),
        (CODE, Finding(MISMATCH, "decoder.layers.0", "tap `distinct`"), MISNAMED),
        (CODE, Finding(MISMATCH, "decoder", "tap `dense`"), MISNAMED),
        (CODE, Finding(MISMATCH, "", "decoder, tap `distinct`"), MISNAMED),
        (LOST, Finding(MISMATCH, DETECTOR, ""), MISSED),
        (LOST, Finding(INCOMPARABLE, "", "1 record has no twin: module_in of the detector"), MISNAMED),
        (TORN, Finding("MATCH", "", ""), MISSED),
        (EMPTY, Finding(INCOMPARABLE, "", "All scores are constant."), NAMED),
        (EMPTY, Finding(INCOMPARABLE, "", "Another seed."), MISNAMED),
        (SAME, Finding("MATCH", "", ""), SILENT),
        (SAME, Finding(MISMATCH, "decoder", "`decoder` gives another output"), ALARM),
        (ROUNDED, Finding(CRASH, "", ""), ALARM),
        (TORN, Finding(REFUSED, "", "the index cannot be read"), MISNAMED),
    ],
    ids=lambda value: getattr(value, "name", None) or getattr(value, "outcome", str(value)),
)
def test_finding_must_be_of_the_right_sort_and_name_the_very_place(fault, finding, judged):
    assert finding.judged(fault) == judged


def summary(exact, derived, alarms=(), shifts=None):
    shifts = shifts or {}
    measurements = {
        fault.name: Measurement(fault.name, {EXACT: exact[fault], DERIVED: derived[fault]}, shifts.get(fault), 1.0)
        for fault in RIGHT
    }
    return Summary(list(RIGHT), measurements, 50, alarms)


def test_figures_of_a_good_run():
    good = summary(RIGHT, RIGHT, shifts={CODE: 1e-5, LOST: 2e-4})
    assert good.good and good.quiet == ["code"]
    assert list(good.lines()) == [
        "faults      3 of 3 kinds, at most 1 of a kind",
        "planted in  model 2, trace 1",
        "quiet       1 keep mean and standard deviation within 0.0001",
        "exact       detected 3 of 3, named 3 (100.0%)",
        "derived     detected 3 of 3, named 3 (100.0%)",
        "clean runs  50, false alarms 0",
    ]


def test_missed_and_misnamed_faults_and_false_alarms_are_listed():
    missed = {**RIGHT, CODE: Finding("MATCH", "", "")}
    misnamed = {**RIGHT, LOST: Finding(INCOMPARABLE, "encoder", "output of `encoder`")}
    bad = summary(missed, misnamed, alarms=[Alarm("swin, seed 1", MISMATCH, "`neck` gives another output")])
    assert not bad.good
    text = "\n".join(bad.lines())
    assert "exact       detected 2 of 3, named 2 (66.7%)\n  missed    code: MATCH instead of MISMATCH" in text
    assert "derived     detected 3 of 3, named 2 (66.7%)\n  misnamed  lost: encoder instead of the detector" in text
    assert "clean runs  50, false alarms 1\n  MISMATCH swin, seed 1: `neck` gives another output" in text
    assert not summary(missed, RIGHT).good and not summary(RIGHT, misnamed).good
    assert not summary(RIGHT, RIGHT, alarms=bad.alarms).good


@pytest.mark.parametrize(
    ("expected", "found", "moved"),
    [
        ([1.0, 2.0, 3.0], [3.0, 1.0, 2.0], 0.0),
        ([0.0, 2.0], [1.0, 3.0], 1.0),
        # the deviation is sqrt(2) 1e-3; the mean moves by 1e-3, which is 0.7 of it
        ([0.0, 2e-3], [1e-3, 3e-3], 0.5**0.5),
        ([0.0, 200.0], [1.0, 201.0], 1.0),
        ([1.0], [1.0], None),
        ([1.0, 2.0], [1.0, 2.0, 3.0], None),
        ([1.0, 2.0], [1, 2], None),
        ([2.0, 2.0], [2.0, 2.1], None),
        ([1.0, 2.0], [1.0, float("nan")], None),
    ],
    ids=lambda value: getattr(value, "name", None) or getattr(value, "outcome", str(value)),
)
def test_shift_of_mean_and_deviation(expected, found, moved):
    result = shift(torch.tensor(expected), torch.tensor(found))
    assert result == (None if moved is None else pytest.approx(moved, rel=1e-6, abs=1e-12))


def test_rewrites_and_added_faults_have_figures_of_their_own():
    silent, alarm = Finding("MATCH", "", ""), Finding(MISMATCH, "decoder.norm", "`decoder.norm` gives another output")
    measurements = {
        **summary(RIGHT, {**RIGHT, CODE: Finding(MISMATCH, "encoder", "")}).measurements,
        "same": Measurement("same", {EXACT: silent, DERIVED: silent}, None, 1.0),
        "rounded": Measurement("rounded", {DERIVED: alarm}, None, 1.0),
    }
    sums = Summary(list(RIGHT), measurements, 0, (), [SAME, ROUNDED], frozenset({"code", "lost"}))
    text = "\n".join(sums.lines())
    assert "exact       detected 3 of 3, named 3 (100.0%)\n  of the added  detected 2 of 2, named 2 (100.0%)" in text
    assert "  of the added  detected 2 of 2, named 1 (50.0%)\n  misnamed  code: encoder instead of decoder" in text
    assert "rewrites    2: 1 keep bits, 1 round otherwise\nexact       false alarms 0 of 1 rewrites\n" in text
    assert "derived     false alarms 1 of 2 rewrites\n  MISMATCH rounded: decoder.norm `decoder.norm` gives" in text
    assert not sums.good


def test_a_false_alarm_about_a_rewrite_is_not_good():
    silent, alarm = Finding("MATCH", "", ""), Finding(INCOMPARABLE, "decoder", "no twin")
    for finding, good in ((silent, True), (alarm, False)):
        measurements = {"same": Measurement("same", {EXACT: finding, DERIVED: silent}, None, 1.0)}
        assert Summary([], measurements, 0, (), [SAME]).good is good


def test_clean_runs_under_exact_tolerance_are_of_all_variants_sizes_objects_and_threads():
    exact = [case for case in cases() if isinstance(case, ExactCase)]
    assert len(exact) >= 50 and len({case.seed for case in exact}) == len(exact)
    assert {case.variant for case in exact} == {"tiny_4scale", "tiny_5scale", "tiny_swinl", "tiny_1class"}
    assert {case.threads for case in exact} == {1, 2}
    assert {len(case.sizes) for case in exact} == {1, 2, 3}
    assert any(side % 2 for case in exact for size in case.sizes for side in size)
    assert {0, 70} <= {number for case in exact for number in case.objects or ()}


def test_clean_runs_are_of_all_variants_seeds_and_threads():
    live = [case for case in cases() if isinstance(case, LiveCase)]
    assert {case.variant for case in live} == {"tiny_4scale", "tiny_5scale", "tiny_swinl", "tiny_1class"}
    assert len({case.seed for case in live}) == len({case.sizes for case in live}) == 3
    assert {case.threads for case in cases() if isinstance(case, GoldenCase)} == {1, 2}
    assert 3 * len(live) + sum(isinstance(case, GoldenCase) for case in cases()) >= 50


RECORDS = [
    Rec("module_out", "neck", torch.arange(300.0)),
    Rec("module_out", "neck", torch.arange(300.0) + 1, call=1),
    Rec("loss", "total", 2.0),
]


@pytest.fixture
def edited(tmp_path: Path):
    """Return a function that applies an edit to a small trace and gives the path it was written to."""

    def call(change):
        edit = Edit(write_trace(tmp_path / "trace", *RECORDS))
        change(edit)
        edit.write(tmp_path / "edited")
        return tmp_path / "edited"

    return call


def contents(folder):
    trace = Trace.load(folder)
    return [(r.name, r.call, trace.tensor(r).reshape(-1)[0].item()) for r in trace.records]


NECK = chosen("module_out", "neck")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda edit: None, [("neck", 0, 0.0), ("neck", 1, 1.0), ("total", 0, 2.0)]),
        (lambda edit: edit.change(NECK, lambda x: x + 5), [("neck", 0, 5.0), ("neck", 1, 6.0), ("total", 0, 2.0)]),
        (lambda edit: edit.rotate(NECK), [("neck", 0, 1.0), ("neck", 1, 0.0), ("total", 0, 2.0)]),
        (lambda edit: edit.drop(chosen("module_out", "neck", call=0)), [("neck", 1, 1.0), ("total", 0, 2.0)]),
        (lambda edit: edit.relabel(chosen("loss", "total"), name="loss"),
         [("neck", 0, 0.0), ("neck", 1, 1.0), ("loss", 0, 2.0)]),
        (lambda edit: edit.repeat(chosen("loss", "total"), call=1),
         [("neck", 0, 0.0), ("neck", 1, 1.0), ("total", 0, 2.0), ("total", 1, 2.0)]),
    ],
    ids=["nothing", "change", "rotate", "drop", "relabel", "repeat"],
)  # fmt: skip
def test_edit_does_what_it_says(edited, change, expected):
    assert contents(edited(change)) == expected


def test_edit_of_a_record_that_is_not_there_is_an_error(edited):
    with pytest.raises(LookupError):
        edited(lambda edit: edit.drop(chosen("module_out", "encoder")))


def test_flipped_byte_is_one_of_the_chosen_record(edited):
    folder = edited(lambda edit: edit.flip_byte(chosen("module_out", "neck", call=1)))
    trace = Trace.load(folder)
    assert torch.equal(trace.tensor(trace.records[0]), torch.arange(300.0))
    assert (trace.tensor(trace.records[1]) != torch.arange(300.0) + 1).sum() == 1
    with pytest.raises(TraceError, match="`neck`"):
        trace.verify()

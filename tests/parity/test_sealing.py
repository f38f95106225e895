"""Recordings that were changed, or lost records on both sides, are noticed; so are bounds that hide anything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from legacy_adapters.recording.trace_writer import content_digest, sealed
from parity.comparing.compare import Tolerance
from parity.comparing.coverage import lost_records
from parity.comparing.derived import FACTOR, JUMP, LOOSE, Finding, too_loose
from parity.comparing.evidence import ZERO, Norms, TraceEvidence, spreads
from parity.report.report_json import as_dict
from parity.traces.trace import Trace, TraceError
from parity.verdict.verdict import INCOMPARABLE, MATCH, judge

from .synthetic import SAME_NAMES, Rec, write_trace

RECORDS = [
    Rec("module_out", "a", [1.0, 2.0]),
    Rec("module_out", "a", [3.0, 4.0], call=1),
    Rec("loss", "total", 2.5),
]
WHERE = ("--family", "mmdet_ddq", "--variant", "tiny_4scale")
TINY = dict(family="mmdet_ddq", variant="tiny_4scale")


def changed_index(folder: Path, change, seal: bool = False) -> None:
    """Change the index of a trace; with ``seal`` it is sealed anew."""
    path = folder / "index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(sealed(index) if seal else index))


def _other_digest(index):
    """Say of one record that it is the tensor of another, which is there as well."""
    index["records"][0]["digest"] = index["records"][1]["digest"]


def _dropped(index):
    del index["records"][1]


def _other_seed(index):
    index["provenance"]["seed"] = 7


def _fewer_calls(index):
    index["coverage"]["never_executed"] = []


@pytest.mark.parametrize("options", [(), ("--verify",), ("--tolerance", "fixed")], ids=" ".join)
@pytest.mark.parametrize("change", [_other_digest, _dropped, _other_seed, _fewer_calls])
def test_edited_index_is_refused(parity, tmp_path, change, options):
    folders = tmp_path / "legacy", tmp_path / "new"
    for folder in folders:
        write_trace(folder, *RECORDS, never_executed=("b",), **TINY)
    changed_index(folders[1], change)
    result = parity("compare", *folders, *WHERE, *options)
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 2 and "has been changed since it was recorded: its digest is" in line


def test_records_dropped_on_both_sides_are_noticed_though_the_seals_fit(tmp_path):
    traces = []
    for side in ("legacy", "new"):
        write_trace(tmp_path / side, *RECORDS)
        changed_index(tmp_path / side, _dropped, seal=True)
        traces.append(Trace.load(tmp_path / side))
    verdict = judge(*traces, SAME_NAMES, (), Tolerance())
    assert verdict.outcome == INCOMPARABLE
    assert verdict.reasons[-2:] == tuple(
        f"The {side} run counted 2 records module_out of phase train, the recording holds 1." for side in ("legacy", "new")
    )


def test_run_counts_what_it_records(tmp_path):
    trace = write_trace(tmp_path / "t", *RECORDS)
    assert trace.coverage["records"] == [
        dict(phase="train", kind="loss", count=1), dict(phase="train", kind="module_out", count=2),
    ]  # fmt: skip
    assert lost_records(trace, "legacy") == []
    more = replace(trace, records=(*trace.records, replace(trace.records[0], call=2)))
    assert lost_records(more, "new") == ["The new run counted 2 records module_out of phase train, the recording holds 3."]


def test_digests_stand_in_the_verdict_and_one_can_be_asked_for(parity, tmp_path):
    folders = tmp_path / "legacy", tmp_path / "new"
    traces = [write_trace(folder, *RECORDS, **TINY, checks=["loss"]) for folder in folders]
    told = as_dict(judge(*traces, SAME_NAMES, (), Tolerance()))["digests"]
    assert told == {"legacy": traces[0].seal, "new": traces[1].seal} and len(traces[0].seal) == 64
    expected = traces[0].seal
    for digest, refused in ((expected, False), (expected[:12], False), ("0" * 64, True)):
        result = parity("compare", *folders, *WHERE, "--expect-digest", digest)
        assert (f"has the digest {expected}; expected {digest}" in result.stderr) is refused
    result = parity("compare", *folders, *WHERE, "--expect-digest", "xyz")
    assert result.exit_code == 2 and "is not 12 to 64 hexadecimal digits" in result.stderr


def finding(explained: float, size: float, share: float = LOOSE, slack: float = 0.0) -> Finding:
    """Return what is known of a record; none of it is off."""
    return Finding(ZERO, Norms(explained, explained), ZERO, ZERO, "", explained, size, share, slack)


USUAL = [finding(1e-6, 1.0), finding(3e-6, 2.0), finding(2e-6, 4.0)]
GRADIENT = FACTOR * JUMP


@pytest.mark.parametrize(
    ("one", "loose"),
    [
        (finding(9e-3, 1.0), False),
        (finding(2e-2, 1.0), True),
        (finding(2e-2, 1.0, slack=1e-2), False),
        # less than the noise of its phase, which is 2e-6: it has more rounding than size
        (finding(1e-6, 1e-7), False),
        (finding(1e-2, 1e-7), False),
        (finding(1.0, 1e-7), True),
        (finding(1e-3, 1e-4), True),  # small, but no noise
        (finding(1.0, 1.0, GRADIENT), False),
        (finding(5.0, 1.0, GRADIENT), True),
    ],
)
def test_bound_that_is_no_rounding_is_too_loose(one, loose):
    assert too_loose({"train": [*USUAL, one]}) == ([one] if loose else [])


def test_bounds_that_are_all_too_loose_do_not_excuse_each_other():
    assert len(too_loose({"train": [finding(1e3, 1.0), finding(1e4, 2.0), finding(1e5, 3.0)]})) == 3


@pytest.mark.parametrize(("spread", "outcome"), [(1e-4, MATCH), (1e-2, INCOMPARABLE)])
def test_run_whose_measured_rounding_is_inflated_is_not_comparable(tmp_path, spread, outcome):
    off = [replace(RECORDS[0], values=[1.0, 2.0 + 2.0**-15]), *RECORDS[1:]]
    wide = [replace(record, values=record.tensor.double()) for record in RECORDS]
    checks = dict(checks=["loss"])
    legacy, new = write_trace(tmp_path / "l", *RECORDS, **checks), write_trace(tmp_path / "n", *off, **checks)
    reference, again = (write_trace(tmp_path / name, *wide, dtype="float64") for name in ("r", "a"))
    measured = dict(spreads([legacy], reference))
    key = legacy.records[0].key
    measured[key] = Norms(spread, spread)
    evidence = TraceEvidence(legacy, reference, measured, new, again)
    verdict = judge(legacy, new, SAME_NAMES, (), Tolerance("derived"), evidence)
    assert (verdict.outcome, verdict.is_too_loose) == (outcome, outcome == INCOMPARABLE)
    if outcome == INCOMPARABLE:
        (reason,) = verdict.reasons
        assert reason == (
            "The measured rounding of 1 record is too large to show an error, the first is module_out `a`: 0.08 at a "
            "size of 2, at most a share of 0.01 may be."
        )


def test_seal_covers_everything_and_itself_not():
    index = dict(records=[dict(digest=content_digest(torch.ones(2)))], provenance=dict(seed=0), coverage={})
    once = sealed(index)
    assert sealed(once) == once and sealed({**index, "provenance": dict(seed=1)})["seal"] != once["seal"]


def test_forged_digest_of_a_legacy_record_does_not_pass_verify(tmp_path):
    trace = write_trace(tmp_path / "t", *RECORDS)
    changed_index(tmp_path / "t", _other_digest)
    with pytest.raises(TraceError, match=f"its seal {trace.seal[:16]}"):
        Trace.load(tmp_path / "t").verify()

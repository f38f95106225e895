"""An input that one side alone changes in place is a mismatch; both may."""

import json

import pytest

from legacy_adapters.recording.trace_writer import sealed
from parity.comparing.compare import Tolerance
from parity.traces.trace import Trace
from parity.verdict.verdict import MATCH, MISMATCH, judge

from .synthetic import SAME_NAMES, Rec, write_trace

CHANGED = [["train", "gt_bboxes.0"]]


def side(folder, changed):
    write_trace(folder, Rec("module_out", "m"))
    path = folder / "index.json"
    index = json.loads(path.read_text())
    index["coverage"]["changed_inputs"] = changed
    path.write_text(json.dumps(sealed(index)))
    return Trace.load(folder)


@pytest.mark.parametrize(("legacy", "new", "outcome"), [
    ([], CHANGED, MISMATCH), (CHANGED, [], MISMATCH), (CHANGED, CHANGED, MATCH), ([], [], MATCH),
])  # fmt: skip
def test_what_one_side_alone_changes(tmp_path, legacy, new, outcome):
    verdict = judge(side(tmp_path / "a", legacy), side(tmp_path / "b", new), SAME_NAMES, (), Tolerance())
    assert verdict.outcome == outcome
    if outcome == MISMATCH:
        assert verdict.divergence.where == "the detector" and "`gt_bboxes.0` in place" in verdict.divergence.message
        assert verdict.reasons == (verdict.divergence.message,)

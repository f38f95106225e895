"""Random states of two runs: what is compared, and which code is named."""

import pytest

from converters.rules.mapping import Keep, Mapping
from parity.comparing.compare import Tolerance
from parity.verdict.draws import first_strayed
from parity.verdict.outcome import MATCH, MISMATCH
from parity.verdict.verdict import judge

from .synthetic import Rec, write_trace

MAPPING = Mapping("toy", (Keep("**"),))


def state(number, call=0, slot="", **more):
    return Rec("random", "torch", [number], slot, call=call, **more)


OUTPUT = Rec("module_out", "fc", [1.0, 2.0])
LEGACY = [state(1, 0), OUTPUT, state(2, 1), state(2, slot="end")]


def judged(tmp_path, new, legacy=LEGACY, **provenance):
    traces = [write_trace(tmp_path / "legacy", *legacy), write_trace(tmp_path / "new", *new, **provenance)]
    return judge(*traces, MAPPING, (), Tolerance("fixed", 1e-6, 1e-6))


def test_equal_states_match(tmp_path):
    assert judged(tmp_path, LEGACY).outcome == MATCH


def test_a_state_more_names_the_code_that_left_it(tmp_path):
    new = [state(1, 0), state(7, 1, scope="fc"), OUTPUT, state(8, 2), state(8, slot="end")]
    verdict = judged(tmp_path, new)
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "fc"
    assert "`fc` draws other random numbers than the legacy side, or seeds anew" in verdict.divergence.message


def test_a_draw_less_is_a_mismatch(tmp_path):
    verdict = judged(tmp_path, [state(1, 0), OUTPUT, state(1, slot="end")])
    assert verdict.outcome == MISMATCH and verdict.divergence is not None


def test_what_differs_before_is_named_in_place_of_the_state(tmp_path):
    new = [state(1, 0), Rec("module_out", "fc", [1.0, 3.0]), state(7, 1), state(7, slot="end")]
    verdict = judged(tmp_path, new)
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "fc"
    assert "gives another output" in verdict.divergence.message


@pytest.mark.parametrize("changed", [dict(torch="1.9.0"), dict(device="cuda")])
def test_states_of_other_versions_of_torch_and_of_other_devices_are_not_compared(tmp_path, changed):
    new = [OUTPUT, state(9, 0, scope="fc"), state(9, slot="end")]
    verdict = judged(tmp_path, new, **changed)
    assert verdict.outcome == MATCH and len(verdict.comparisons) == 1


def test_another_build_of_one_version_is_the_same_version(tmp_path):
    one = write_trace(tmp_path / "a", *LEGACY, torch="2.13.0+cpu")
    two = write_trace(tmp_path / "b", state(3, 0), OUTPUT, state(3, slot="end"), torch="2.13.0")
    assert judge(one, two, MAPPING, (), Tolerance("fixed", 1e-6, 1e-6)).outcome == MISMATCH


def test_without_states_there_is_nothing_to_name(tmp_path):
    trace = write_trace(tmp_path / "t", OUTPUT)
    assert first_strayed(trace.records, trace.records, ()) is None

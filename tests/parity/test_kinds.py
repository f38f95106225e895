"""What the kind of a record says of it."""

import json
from dataclasses import replace

import pytest

from legacy_adapters.recording import kinds
from legacy_adapters.recording.trace_writer import Record
from parity.traces.kinds import OF_METHODS, OF_MODULES, OF_OPTIMIZERS, OF_PARAMETERS, OF_TAPS, Blame, Kind, Turn
from parity.verdict.blame import describe_missing

RECORD = Record("train", "loss", "head.norm", 0, "", "F32", (1,), "0" * 64, "head")


def test_a_kind_is_its_string_everywhere():
    kind = Kind("module_out")
    assert kind == "module_out" and {"module_out": 1}[kind] == 1 and "module_out" in OF_MODULES
    assert f"{kind} {kind!s} {kind!r}" == "module_out module_out 'module_out'"
    assert json.dumps([kind]) == '["module_out"]'


def test_all_kinds_that_a_side_can_record_are_known():
    names = {value for name, value in vars(kinds).items() if name.isupper()} - {kinds.DRAWN, kinds.RESULT}
    assert names == set(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_a_missing_record_of_any_kind_is_told_in_a_sentence_with_its_name(kind):
    divergence = describe_missing(replace(RECORD, kind=kind))
    assert divergence.message.endswith(".") and divergence.where in ("head.norm", "head", "gradient clipping")
    assert "head.norm" in divergence.message or kind is Kind.CLIP


def test_what_a_name_names_is_one_thing():
    groups = OF_MODULES, OF_PARAMETERS, OF_TAPS
    assert sum(map(len, groups)) == len(frozenset().union(*groups))
    assert OF_METHODS < OF_MODULES


def test_a_step_records_causes_before_effects():
    turns = [Kind(kind).turn for kind in ("loss", "setting", "grad", "clip", "optim_state")]
    assert turns == sorted(turns) and len(set(turns)) == len(turns)
    assert all(Turn.FORWARD < kind.turn < Turn.AFTERWARDS for kind in OF_OPTIMIZERS)


def test_a_first_difference_in_an_input_blames_the_caller_and_in_an_output_the_module():
    assert Kind.MODULE_IN.blame is Kind.OUT_GRAD.blame is Blame.CALLER
    assert Kind.MODULE_OUT.blame is Kind.IN_GRAD.blame is Blame.MODULE

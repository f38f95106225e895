"""In an isolated run what follows from a wrong place is folded into it, and what does not is a place of its own."""

from dataclasses import replace

import pytest

from legacy_adapters.recording.trace_writer import Record
from legacy_adapters.tasks import probes
from parity.comparing.compare import Comparison
from parity.comparing.pairing import Pair
from parity.verdict.isolation import culprits_of


def differing(kind, name, slot="", scope="", phase="train"):
    """Return the comparison of a record that differs between the sides."""
    legacy = Record(phase, kind, name, 0, slot, "F32", (1,), "one", scope)
    return Comparison(Pair(legacy, replace(legacy, digest="other"), scope), False, False, None)


def culprits(*isolated, forced=()):
    """Return each place with those that follow from it."""
    found = culprits_of(isolated, (), (), [one.pair.legacy for one in isolated], forced)
    return [(one.where, one.follows) for one in found]


def test_random_states_behind_the_first_wrong_one_follow_from_it():
    states = [differing("random", "torch", scope="backbone"), differing("random", "numpy", scope="head")]
    assert culprits(*states) == [("backbone", ("head",))]
    other = differing("random", "torch", scope="neck", phase="predict")
    assert culprits(*states, other) == [("backbone", ("head",)), ("neck", ())]


@pytest.mark.parametrize(("is_forced", "expected"), [
    (False, [("neck", ("head",))]), (True, [("neck", ()), ("head", ())]),
])  # fmt: skip
def test_code_that_is_given_a_wrong_argument_follows_from_its_caller_unless_the_twins_was_forced(is_forced, expected):
    argument = differing("method_in", "head", "loss.boxes", scope="neck")
    inside = differing("module_in", "head.fc", "x", scope="head")
    forced = [argument.pair.new.key] if is_forced else []
    assert culprits(argument, inside, forced=forced) == expected


def test_a_tapped_function_that_is_called_alone_follows_from_no_other_place():
    first = differing("module_out", "neck")
    alone = differing("basis", "nms", "boxes", scope="head", phase=probes.PHASE)
    assert culprits(alone, first) == [("neck", ()), ("head", ())]

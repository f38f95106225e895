"""Calls that the sides make in other numbers are put together or divided, however arguments are called."""

import pytest
import torch

from parity.comparing.evidence import spreads
from parity.comparing.in_parts import in_legacy_parts
from parity.golden import golden
from parity.golden.evidence import GoldenEvidence
from parity.golden.sketches import Sketches
from parity.verdict.verdict import MATCH, MISMATCH

from .golden_files import PREPARED, TASK, noise, widened
from .synthetic import SAME_NAMES, Rec, judged, write_trace

X, Y = noise(4, 3), noise(4, 5, seed=1)


def call(x, y, number=0, slot="x"):
    return [Rec("module_in", "m", x, slot, number), Rec("module_out", "m", y, "", number)]


def by_image(slot, change=0.0):
    """Return the calls of a module that is given two images of four at once; the last one is off by ``change``."""
    return [*call(X[:2], Y[:2], 0, slot), *call(X[2:], Y[2:] + change, 1, slot)]


@pytest.mark.parametrize(("change", "outcome"), [(0.0, MATCH), (0.5, MISMATCH)])
def test_an_argument_of_another_name_is_put_together_as_well(tmp_path, change, outcome):
    verdict = judged(tmp_path, call(X, Y), by_image("input", change))
    assert verdict.outcome == outcome
    assert [(one.pair.legacy.slot, one.pair.new.slot) for one in verdict.comparisons] == [("x", "input"), ("", "")]


def test_of_two_arguments_of_other_names_which_is_which_is_not_guessed(tmp_path):
    def side(calls, *slots):
        return [record for record in calls for record in ([record] if record.kind == "module_out" else [
            Rec("module_in", "m", record.values, slot, record.call) for slot in slots])]  # fmt: skip

    legacy, new = side(call(X, Y), "a", "b"), side(by_image("x"), "c", "d")
    one, two = write_trace(tmp_path / "one", *legacy), write_trace(tmp_path / "two", *new)
    assert in_legacy_parts(two, one, SAME_NAMES) is two and judged(tmp_path, legacy, new).outcome != MATCH


def test_calls_on_numbers_of_several_types_are_not_put_together(tmp_path):
    legacy, new = call(X, Y), [*call(X[:2], Y[:2]), *call(X[2:].double(), Y[2:], 1)]
    one, two = write_trace(tmp_path / "one", *legacy), write_trace(tmp_path / "two", *new)
    assert in_legacy_parts(two, one, SAME_NAMES) is two and judged(tmp_path, legacy, new).outcome != MATCH


@pytest.mark.parametrize("has_sketches", [True, False])
def test_which_calls_belong_together_is_told_by_sketches_of_a_golden_file(tmp_path, has_sketches):
    """The first half of each image, then the second: both halves of one image after the other would fit as well."""
    x = noise(2, 4, 30)
    legacy = [record for image in range(2) for record in call(x[image], 2 * x[image], image)]
    parts = [x[image, half : half + 2] for half in (0, 2) for image in range(2)]
    new = write_trace(tmp_path / "new", *(record for i, part in enumerate(parts) for record in call(part, 2 * part, i)))
    one, reference = write_trace(tmp_path / "one", *legacy), write_trace(tmp_path / "two", *map(widened, legacy))
    kept = golden.distil(TASK, PREPARED, one, reference, spreads([one], reference, Sketches().of), {}, Sketches())
    evidence = GoldenEvidence(kept, new, new) if has_sketches else None
    made = in_legacy_parts(new, kept, SAME_NAMES, evidence)
    digests, expected = ({record.key: record.digest for record in side.records} for side in (made, one))
    # without sketches nothing tells, and what fits the shapes first is taken
    assert digests.keys() == expected.keys() and (digests == expected) is has_sketches
    assert torch.equal(made.tensor(made.by_key[one.records[0].key]), x[0]) is has_sketches

"""Where the first difference is a call or a setting of one side alone, what is said is said of what the code gives next."""

import pytest
import torch
import torch.nn.functional as F

from parity.diagnosis.kinds import DiagnosisKind as K

from .synthetic import Rec, judged
from .test_diagnosis import drawn

X, ONE, TWO = drawn(4, 6, 8), drawn(4, 6, 8, seed=1), drawn(4, 6, 8, seed=2)


def calls(*layers, gives, more=()):
    """Return what a module records that calls layers: name and result of each, and what it gives."""
    inside = [
        record for name, values in layers
        for record in (Rec("module_in", name, X, slot="x", scope="net"), Rec("module_out", name, values, scope="net"))
    ]  # fmt: skip
    return [Rec("module_in", "net", X, slot="x"), *inside, *more, Rec("module_out", "net", gives)]


def said(folder, legacy, new):
    verdict = judged(folder, legacy, new)
    assert verdict.outcome == "MISMATCH"
    return [(one.kind, one.text) for one in verdict.explanation.diagnoses]


def test_a_layer_that_is_left_out_is_told_by_what_is_given_instead(tmp_path):
    legacy = calls(("net.0", ONE), ("net.1", TWO), gives=TWO)
    found = said(tmp_path, legacy, calls(("net.0", ONE), gives=ONE))
    assert found == [(K.OTHER_RECORD, "output of `net`: the legacy side's output of `net.0` (call 0)")]


def test_where_a_call_is_missing_the_part_that_differs_is_told(tmp_path):
    other = torch.cat([TWO[:3], ONE[3:]])
    found = said(tmp_path, calls(("net.0", ONE), ("net.1", TWO), gives=TWO), calls(("net.0", ONE), gives=other))
    assert found == [(K.PLACE, "output of `net`: only index 3 of axis 0 (48 of 192 elements)")]


@pytest.mark.parametrize("gives", [2 * TWO, TWO.flip(1), drawn(4, 6, 8, seed=3)], ids=["factor", "order", "noise"])
def test_where_a_call_is_missing_what_follows_is_not_taken_for_the_cause(tmp_path, gives):
    assert said(tmp_path, calls(("net.0", ONE), ("net.1", TWO), gives=TWO), calls(("net.0", ONE), gives=gives)) == []


@pytest.mark.parametrize(("change", "kinds"), [
    (lambda x: F.dropout(x, 0.5), [K.DROPOUT]),
    (lambda x: x + 0.1 * drawn(4, 60, 8, seed=5), []),
])  # fmt: skip
def test_random_numbers_that_are_drawn_are_told_by_what_they_do(tmp_path, change, kinds):
    torch.manual_seed(0)
    wide = drawn(4, 60, 8, seed=4)

    def side(state, values):
        states = [Rec("random", "torch", [number], call=call, scope="drop") for call, number in enumerate((7, state))]
        given = Rec("module_in", "drop", wide, slot="input")
        return [states[0], given, states[1], Rec("module_out", "drop", values), Rec("random", "torch", [state], "end")]

    found = said(tmp_path, side(7, wide), side(8, change(wide)))
    assert [kind for kind, _ in found] == kinds, found


def setting(slot, values):
    return Rec("setting", "net.w", values, slot=slot, phase="step 1")


def test_a_setting_is_told_with_its_numbers(tmp_path):
    both, more = [Rec("module_out", "net", X)], [setting("lr", 0.1)]
    betas = [[*both, setting("betas", torch.tensor(values, dtype=torch.float64))] for values in ([0.9, 0.999], [0.9, 0.95])]
    assert (K.VALUE, "0.999 became 0.95 at index 1") in said(tmp_path / "few", *betas)
    three = [*both, setting("betas", torch.tensor([0.9, 0.95, 0.999], dtype=torch.float64))]
    assert said(tmp_path / "more", betas[0], three) == []  # which of three the two are, nothing tells
    one_side = [*both, *more, setting("maximize", 1.0)]
    assert said(tmp_path / "new", [*both, *more], one_side) == [
        (K.VALUE, "`maximize` is 1 on the new side, and not set on the legacy one")
    ]
    assert said(tmp_path / "legacy", one_side, [*both, *more])[0][1].endswith("and not set on the new one")


@pytest.mark.parametrize("new", ["Adam", "NAdam"])
def test_the_name_of_an_optimizer_is_told_as_a_name(tmp_path, new):
    """Its bytes are no numbers, of which some are left out or moved."""
    one, two = (
        [Rec("module_out", "net", X), Rec("update", "optimizer", torch.tensor([*name.encode()], dtype=torch.uint8),
                                          slot="class", phase="step 1")]
        for name in ("AdamW", new)
    )  # fmt: skip
    assert said(tmp_path, one, two) == [(K.VALUE, f"`AdamW` became `{new}`")]

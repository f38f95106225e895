"""A verdict must be earned: what is a match, what is a mismatch, and what proves nothing."""

import pytest
import torch

from converters.rules.mapping import Drop, Keep, Mapping, Rename
from parity.comparing.compare import Tolerance
from parity.comparing.pairing import LEGACY, NEW, Exclusion
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH, with_isolation

from .synthetic import SAME_NAMES, Rec, judged

FIXED = Tolerance("fixed", rtol=1e-3, atol=1e-3)
OUT = Rec("module_out", "backbone", [1.0, 2.0])
WEIGHT = Rec("param", "backbone.weight", [0.5], phase="weights")
LONELY = Rec("module_in", "encoder.0", [True], slot="key_padding_mask")
NO_MASK = Exclusion(LEGACY, "module_in", "encoder.*", "key_padding_mask", "left out without padding")
EXIT_CODES = {MATCH: 0, MISMATCH: 1, INCOMPARABLE: 3}


def outcome(verdict):
    """Return the outcome, having checked what holds for every verdict."""
    assert verdict.exit_code == EXIT_CODES[verdict.outcome]
    assert bool(verdict.reasons) == (verdict.outcome != MATCH)
    assert all(reason.endswith((".", "?")) and "\n" not in reason for reason in verdict.reasons)
    return verdict.outcome


def filler(count):
    """Return ``count`` records that are equal on both sides."""
    return [Rec("module_out", "filler", float(i), call=i) for i in range(count)]


def test_equal_sides_match(tmp_path):
    records = [WEIGHT, OUT, LONELY, Rec("tap", "distinct", [3, 1]), Rec("loss", "total", 2.5),
               Rec("grad", "backbone.weight", [0.1])]  # fmt: skip
    leaves = dict(leaf_calls={"backbone": 2}, without_gradient=("unused.weight",))
    verdict = judged(tmp_path, records, records[::-1], on_legacy=leaves, on_new=leaves)
    assert outcome(verdict) == MATCH and verdict.divergence is None
    assert len(verdict.comparisons) == 6 and all(c.identical for c in verdict.comparisons)
    assert (verdict.coverage.legacy_leaf_calls, verdict.coverage.paired_leaf_calls) == (2, 2)
    assert verdict.provenance[LEGACY]["threads"] == verdict.provenance[NEW]["threads"] == 2


@pytest.mark.parametrize(
    ("legacy", "new"),
    [([], []), ([WEIGHT], [WEIGHT]), ([OUT], []), ([], [OUT]), ([WEIGHT, OUT], [WEIGHT])],
    ids=["nothing", "parameters", "legacy only", "new only", "only parameters pair"],
)
@pytest.mark.parametrize("tolerance", [Tolerance(), FIXED], ids=["exact", "fixed"])
def test_nothing_computed_that_pairs_is_incomparable(tmp_path, legacy, new, tolerance):
    everything = tuple(Exclusion(side, "module_out", "*", "*", "any") for side in (LEGACY, NEW))
    verdict = judged(tmp_path, legacy, new, exclusions=everything, tolerance=tolerance)
    assert outcome(verdict) == INCOMPARABLE
    assert verdict.reasons[0].startswith("Nothing that was computed could be paired")


@pytest.mark.parametrize("side", [LEGACY, NEW])
def test_record_without_twin_or_exclusion_is_incomparable_and_named(tmp_path, side):
    more, fewer = [OUT, LONELY, *filler(98)], [OUT, *filler(98)]
    other_side = Exclusion(NEW if side == LEGACY else LEGACY, "module_in", "*", "*", "for the other side")
    verdict = judged(
        tmp_path, *((more, fewer) if side == LEGACY else (fewer, more)), exclusions=(other_side,), tolerance=FIXED
    )
    assert outcome(verdict) == INCOMPARABLE and [i.record.name for i in verdict.coverage.unaccounted] == ["encoder.0"]
    (reason,) = verdict.reasons
    assert reason.startswith("1 record has no twin") and f"`encoder.0` key_padding_mask of the {side} side" in reason


@pytest.mark.parametrize(
    ("fillers", "lonely", "expected"),
    [(49, 1, MATCH), (48, 1, INCOMPARABLE), (98, 2, MATCH), (97, 2, INCOMPARABLE), (1, 1, INCOMPARABLE)],
    ids=["1 of 50", "1 of 49", "2 of 100", "2 of 99", "1 of 2"],
)
def test_at_most_two_percent_of_the_legacy_records_may_be_excluded(tmp_path, fillers, lonely, expected):
    masks = [Rec("module_in", "encoder.0", [True], slot="key_padding_mask", call=i) for i in range(lonely)]
    verdict = judged(tmp_path, [*filler(fillers), *masks], filler(fillers), exclusions=(NO_MASK,))
    assert outcome(verdict) == expected
    assert len(verdict.coverage.excluded_records) == lonely and verdict.coverage.unaccounted == ()
    if expected == INCOMPARABLE:
        assert "legacy records are excluded; at most 2% may be" in verdict.reasons[0]


def test_new_side_may_record_more_where_that_is_written_down(tmp_path):
    extra = [Rec("module_out", "decoder", [1.0], slot=f"2.{i}") for i in range(5)]
    masks = Exclusion(NEW, "module_out", "decoder", "2.*", "an output here")
    assert outcome(judged(tmp_path, [OUT], [OUT, *extra], exclusions=(masks,))) == MATCH


@pytest.mark.parametrize(
    ("legacy", "new", "paired"),
    [
        ({"neck": 2}, {"neck": 1}, 1),
        ({"neck": 1}, {}, 0),
        ({"neck": 1, "encoder": 1}, {"encoder": 1}, 1),
    ],
    ids=str,
)
def test_leaf_call_without_twin_is_incomparable(tmp_path, legacy, new, paired):
    verdict = judged(tmp_path, [OUT], [OUT], on_legacy=dict(leaf_calls=legacy), on_new=dict(leaf_calls=new))
    assert outcome(verdict) == INCOMPARABLE and verdict.coverage.paired_leaf_calls == paired
    total = sum(legacy.values())
    calls = "leaf call" if total == 1 else "leaf calls"
    assert verdict.reasons == (f"1 of {total} {calls} of the legacy side has no twin.",) and total - paired == 1


def test_leaf_calls_pair_through_the_mapping(tmp_path):
    mapping = Mapping("toy", (Keep("backbone.**"), Rename("cls_branches.7.*", "aux_cls_branches.6.*")))
    sides = dict(on_legacy=dict(leaf_calls={"cls_branches.7": 3}), on_new=dict(leaf_calls={"aux_cls_branches.6": 3}))
    verdict = judged(tmp_path, [OUT], [OUT], mapping=mapping, **sides)
    assert outcome(verdict) == MATCH and verdict.coverage.paired_leaf_calls == 3


@pytest.mark.parametrize("side", ["on_legacy", "on_new"])
@pytest.mark.parametrize("tolerance", [Tolerance(), FIXED], ids=["exact", "fixed"])
def test_gradient_on_one_side_only_is_incomparable(tmp_path, side, tolerance):
    verdict = judged(tmp_path, [OUT], [OUT], tolerance=tolerance, **{side: dict(without_gradient=("neck.weight",))})
    assert outcome(verdict) == INCOMPARABLE and verdict.coverage.gradients_on_one_side == ("neck.weight",)
    assert verdict.reasons == ("Parameters get a gradient on one side only: `neck.weight`.",)


def test_parameters_without_gradient_pair_through_the_mapping(tmp_path):
    mapping = Mapping("toy", (Keep("backbone.**"), Rename("old.*", "new.*"), Drop("unused.*", "never read")))
    sides = dict(
        on_legacy=dict(without_gradient=("old.weight", "unused.weight")), on_new=dict(without_gradient=("new.weight",))
    )
    verdict = judged(tmp_path, [OUT], [OUT], mapping=mapping, **sides)
    assert verdict.coverage.gradients_on_one_side == () and outcome(verdict) == MATCH


CONDITIONS = [("threads", 1), ("cpu_capability", "AVX512"), ("torch", "2.7.0"), ("device", "cuda:0")]


@pytest.mark.parametrize(("name", "value"), CONDITIONS, ids=str)
@pytest.mark.parametrize("side", ["on_legacy", "on_new"])
def test_other_machine_conditions_are_incomparable_when_exact(tmp_path, name, value, side):
    verdict = judged(tmp_path, [OUT], [OUT], **{side: {name: value}})
    assert outcome(verdict) == INCOMPARABLE
    (reason,) = verdict.reasons
    assert reason.startswith(f"{name} is ") and str(value) in reason


@pytest.mark.parametrize(("name", "value"), CONDITIONS, ids=str)
@pytest.mark.parametrize(
    ("new", "expected"), [([1.0, 2.0], MATCH), ([1.0, 2.0001], MATCH), ([1.0, 2.1], MISMATCH)], ids=str
)
def test_other_machine_conditions_are_allowed_when_fixed(tmp_path, name, value, new, expected):
    verdict = judged(tmp_path, [OUT], [Rec("module_out", "backbone", new)], tolerance=FIXED, on_new={name: value})
    assert outcome(verdict) == expected


@pytest.mark.parametrize(("name", "value"), [("seed", 1), ("checks", ["forward"])], ids=str)
@pytest.mark.parametrize("tolerance", [Tolerance(), FIXED], ids=["exact", "fixed"])
@pytest.mark.parametrize("new", [[1.0, 2.0], [1.0, 9.0]], ids=["equal", "different"])
def test_other_seed_or_checks_are_always_incomparable(tmp_path, name, value, tolerance, new):
    verdict = judged(tmp_path, [OUT], [Rec("module_out", "backbone", new)], tolerance=tolerance, on_new={name: value})
    assert outcome(verdict) == INCOMPARABLE and verdict.reasons[0].startswith(f"{name} is ")


def test_what_has_no_bearing_on_the_numbers_may_differ(tmp_path):
    sides = dict(on_legacy=dict(code_base="DDQ", python="3.8.1"), on_new=dict(code_base="ddq_port", python="3.12.0"))
    assert outcome(judged(tmp_path, [OUT], [OUT], **sides)) == MATCH


def test_one_differing_record_among_many_is_a_mismatch(tmp_path):
    verdict = judged(tmp_path, [*filler(500), OUT], [*filler(500), Rec("module_out", "backbone", [1.0, 2.0000002])])
    assert outcome(verdict) == MISMATCH and verdict.reasons == ("1 of 501 records differs.",)
    assert verdict.divergence.where == "backbone"


@pytest.mark.parametrize(
    "gap",
    [
        dict(legacy=[LONELY]),
        dict(new=[LONELY]),
        dict(on_legacy=dict(leaf_calls={"neck": 1})),
        dict(on_legacy=dict(without_gradient=("neck.weight",))),
        dict(legacy=[LONELY], exclusions=(NO_MASK,)),
    ],
    ids=["legacy record", "new record", "leaf call", "gradient", "exclusions"],
)
def test_difference_that_was_seen_outranks_what_was_left_out(tmp_path, gap):
    legacy, new = gap.pop("legacy", []), gap.pop("new", [])
    other = Rec("module_out", "backbone", [1.0, 3.0])
    assert outcome(judged(tmp_path / "differs", [OUT, *legacy], [other, *new], **gap)) == MISMATCH
    assert outcome(judged(tmp_path / "equal", [OUT, *legacy], [OUT, *new], **gap)) == INCOMPARABLE


def test_differing_weights_alone_are_a_mismatch(tmp_path):
    verdict = judged(tmp_path, [WEIGHT, OUT], [Rec("param", "backbone.weight", [0.25], phase="weights"), OUT])
    assert outcome(verdict) == MISMATCH


@pytest.mark.parametrize("slots", [("0", "1"), ("bbox_head", "aux_bbox_head"), ("0.scores", "0.boxes")], ids=str)
@pytest.mark.parametrize("missing_on", [LEGACY, NEW])
@pytest.mark.parametrize("tolerance", [Tolerance(), FIXED], ids=["exact", "fixed"])
def test_missing_part_of_an_output_is_never_a_pass(tmp_path, slots, missing_on, tolerance):
    whole = [*filler(200), *(Rec("module_out", "encoder", [1.0], slot=slot) for slot in slots)]
    part = whole[:-1]
    verdict = judged(tmp_path, *((part, whole) if missing_on == LEGACY else (whole, part)), tolerance=tolerance)
    assert outcome(verdict) == INCOMPARABLE and slots[1] in verdict.reasons[0]


def test_second_output_is_compared_and_not_only_the_first(tmp_path):
    legacy = [Rec("module_out", "encoder", [1.0], slot=slot) for slot in "01"]
    verdict = judged(tmp_path, legacy, [legacy[0], Rec("module_out", "encoder", [5.0], slot="1")], tolerance=FIXED)
    assert outcome(verdict) == MISMATCH and "output 1" in verdict.divergence.message


_SQUARE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("legacy", "new"),
    [
        (Rec("module_out", "m", [1.0, 2.0, 3.0, 4.0]), Rec("module_out", "m", [4.0, 2.0, 1.0, 3.0])),
        (Rec("module_out", "m", _SQUARE), Rec("module_out", "m", _SQUARE.flip(0))),
        (Rec("param", "m.weight", _SQUARE), Rec("param", "m.weight", _SQUARE.t())),
        (Rec("tap", "distinct", [4, 7, 9]), Rec("tap", "distinct", [7, 4, 9])),
    ],
    ids=["permuted", "rows swapped", "transposed weight", "indices swapped"],
)
@pytest.mark.parametrize("tolerance", [Tolerance(), FIXED], ids=["exact", "fixed"])
def test_same_mean_and_std_in_other_places_is_a_mismatch(tmp_path, legacy, new, tolerance):
    assert torch.equal(legacy.tensor.flatten().sort().values, new.tensor.flatten().sort().values)
    assert outcome(judged(tmp_path, [OUT, legacy], [OUT, new], tolerance=tolerance)) == MISMATCH


def test_two_modules_that_swapped_their_outputs_are_a_mismatch(tmp_path):
    legacy = [Rec("module_out", "a", [1.0]), Rec("module_out", "b", [2.0])]
    new = [Rec("module_out", "b", [1.0]), Rec("module_out", "a", [2.0])]
    assert outcome(judged(tmp_path, legacy, new, mapping=SAME_NAMES)) == MISMATCH


def test_modules_that_never_ran_are_listed_by_side(tmp_path):
    sides = dict(on_legacy=dict(never_executed=("dead.a",)), on_new=dict(never_executed=("dead.b",)))
    assert judged(tmp_path, [OUT], [OUT], **sides).coverage.never_executed == {LEGACY: ("dead.a",), NEW: ("dead.b",)}


def test_exclusion_of_zeros_holds_for_zeros_only(tmp_path):
    rule = (Exclusion(LEGACY, "module_in", "m", "mask", "a mask that masks nothing", zeros_only=True),)
    both = [Rec("loss", str(i)) for i in range(60)]
    for values, outcome in (([False, False], MATCH), ([False, True], INCOMPARABLE)):
        legacy = [*both, Rec("module_in", "m", torch.tensor(values), slot="mask")]
        folder = tmp_path / outcome
        assert judged(folder, legacy, both, exclusions=rule).outcome == outcome


@pytest.mark.parametrize(
    ("check", "evidence"),
    [
        ("forward", Rec("module_out", "m", phase="predict")),
        ("loss", Rec("loss", "total")),
        ("grad", Rec("grad", "m.weight")),
    ],
)
def test_check_that_left_no_record_is_never_a_match(tmp_path, check, evidence):
    asked = dict(checks=[check])
    other = [Rec("tap", "result")]
    empty = judged(tmp_path / "a", other, other, on_legacy=asked, on_new=asked)
    assert empty.outcome == INCOMPARABLE and f"Check {check} was asked for" in empty.reasons[0]
    full = [*other, evidence]
    assert judged(tmp_path / "b", full, full, on_legacy=asked, on_new=asked).outcome == MATCH


@pytest.mark.parametrize("name", ["threads", "torch", "seed", "family"])
def test_condition_recorded_on_neither_side_is_not_taken_for_equal(tmp_path, name):
    one = [Rec("loss", "total")]
    verdict = judged(tmp_path, one, one, on_legacy={name: None}, on_new={name: None})
    assert verdict.outcome == INCOMPARABLE and name in verdict.reasons[0]


def test_missing_input_before_the_first_difference_is_the_place(tmp_path):
    legacy = [
        Rec("module_in", "decoder", [1.0, 2.0], slot="mask"),
        Rec("module_out", "decoder.attn", 1.0, scope="decoder"),
        Rec("module_out", "decoder", 1.0),
    ]
    new = [Rec("module_out", "decoder.attn", 2.0, scope="decoder"), Rec("module_out", "decoder", 2.0)]
    verdict = judged(tmp_path, legacy, new)
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "the detector"
    assert "calls `decoder`" in verdict.divergence.message and "without `mask`" in verdict.divergence.message
    assert "1 has no twin" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("isolated", "on_new", "reason"),
    [
        ([OUT], dict(threads=8), "threads is 2 on the legacy side and 8 on the new one"),
        ([Rec("module_out", "backbone", [9.0, 2.0])], dict(threads=8), "threads is 2 on the legacy side and 8"),
        ([], {}, "Nothing that was computed could be paired"),
    ],
    ids=["other conditions", "other conditions and values", "nothing compared"],
)
@pytest.mark.parametrize("ordinary", [MATCH, MISMATCH])
def test_isolated_run_that_cannot_be_compared_proves_nothing(tmp_path, isolated, on_new, reason, ordinary):
    changed = [OUT] if ordinary == MATCH else [Rec("module_out", "backbone", [1.0, 3.0])]
    verdict = judged(tmp_path / "ordinary", [OUT], changed)
    alone = judged(tmp_path / "isolated", [OUT], isolated, on_new=on_new)
    merged = with_isolation(verdict, alone, [pair.pair.legacy for pair in verdict.comparisons])
    assert outcome(merged) == (INCOMPARABLE if ordinary == MATCH else MISMATCH)
    assert merged.isolation.culprits == () and merged.isolation.reasons[0].startswith(reason)
    if ordinary == MATCH:
        assert merged.reasons[0].startswith(f"Isolated: {reason}")
    else:
        assert merged.divergence == verdict.divergence


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["backbone"], "1 place differs by itself, given equal inputs."),
        (["backbone", "neck"], "2 places differ by themselves, given equal inputs."),
    ],
)
def test_reason_tells_how_many_places_differ_by_themselves_in_a_run_that_matched(tmp_path, names, reason):
    right, wrong = ([Rec("module_out", name, [value, 2.0]) for name in names] for value in (1.0, 3.0))
    verdict = judged(tmp_path / "ordinary", right, right)
    alone = judged(tmp_path / "isolated", right, wrong)
    merged = with_isolation(verdict, alone, [pair.pair.legacy for pair in verdict.comparisons])
    assert (outcome(merged), merged.reasons) == (MISMATCH, (reason,))


@pytest.mark.parametrize("checks", [[], None], ids=str)
@pytest.mark.parametrize("tolerance", [Tolerance(), FIXED], ids=["exact", "fixed"])
def test_equal_sides_of_which_no_check_was_asked_prove_nothing(tmp_path, checks, tolerance):
    asked = dict(checks=checks)
    verdict = judged(tmp_path, [WEIGHT, OUT], [WEIGHT, OUT], tolerance=tolerance, on_legacy=asked, on_new=asked)
    assert outcome(verdict) == INCOMPARABLE
    assert verdict.reasons[0].startswith("No check was asked for" if checks == [] else "checks is recorded on neither")

"""Of a golden file, which has digests and sketches, a difference is said as far as these show it."""

import dataclasses
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

from parity.comparing.compare import Comparison
from parity.comparing.evidence import LegacySketch
from parity.comparing.pairing import Pair
from parity.diagnosis.kinds import DiagnosisKind as K
from parity.golden.sketch import positions_of_samples
from parity.golden.sketches import is_finite, samples_of, sketched, sums_of
from parity.traces.trace import Trace
from parity.verdict.diagnosing_sketches import diagnosed_of_sketches

from .synthetic import Rec, write_trace
from .test_diagnosis import LABELS, X, drawn

FLAGS = torch.arange(40).view(4, 10) % 3 == 0
SHAPES = torch.tensor([[12, 17], [6, 9], [3, 5], [2, 3]])
STARTS = torch.tensor([0, 204, 258, 273])
LONG = drawn(3, 20, 8, seed=4)


@dataclass
class Evidence:
    """A golden file that holds one record of interest."""

    new: Trace
    new_reference: Trace
    legacy: Tensor
    in_float64: Tensor
    places: Tensor | None = None
    has_sketch: bool = True
    whole: Tensor | None = None

    def kept(self, pair):
        return self.whole

    def sketch_of_legacy(self, pair, in_float64=True):
        if not self.has_sketch:
            return None
        values = sketched(self.in_float64 if in_float64 else self.legacy, self.places)
        shape = tuple(self.legacy.shape)
        of = lambda tensor: sketched(tensor.contiguous(), self.places)  # noqa: E731
        return LegacySketch(
            values, is_finite(values, shape, self.places), of, lambda: (), partial(sums_of, shape, self.places),
            partial(samples_of, shape, self.places),
        )


def said(folder, legacy, new, exact=None, before=(), kind="module_out", **more):
    """Return kind and text of what is said, ``before`` which the new side recorded others; ``exact`` in float64."""
    records = [*before, Rec(kind, "part", new)]
    ours = write_trace(folder / "new", *records)
    theirs = write_trace(folder / "legacy", Rec(kind, "part", legacy)).records[-1]
    exact = (legacy.double(), new.double()) if exact is None else exact
    reference = write_trace(folder / "new64", *before, Rec(kind, "part", exact[1]))
    own = ours.records[-1]
    comparison = Comparison(Pair(theirs, own, own.scope), False, False, None)
    evidence = Evidence(ours, reference, legacy, exact[0], **more)
    others = [
        Comparison(Pair(dataclasses.replace(one, name=f"old.{one.name}"), one, one.scope), True, True, None)
        for one in ours.records[:-1]
    ]  # under other names on the legacy side
    found = diagnosed_of_sketches(comparison, [*others, comparison], write_trace(folder / "all"), evidence)
    return [(one.kind, one.text) for one in found]


@pytest.mark.parametrize(("legacy", "new", "kind", "text"), [
    (FLAGS, ~FLAGS, K.INVERTED, "True and False exchanged"),
    (SHAPES, SHAPES.flip(-1), K.PERMUTATION, "along axis 1"),
    (STARTS, torch.tensor([204, 258, 273, 279]), K.SHIFT, "1 earlier"),
    (LABELS, LABELS + 1, K.OFFSET, "plus 1"),
    (LABELS, LABELS.int(), K.TYPE, "I32 in place of I64"),
    (X, X.double(), K.TYPE, "F64 in place of F32"),
    (X, X[:, [1, 0, *range(2, 6)]], K.PERMUTATION, "0 and 1 exchanged"),
    (X, torch.ones_like(X), K.CONSTANT, "every number of the new side is 1"),
    (torch.zeros_like(X), X, K.CONSTANT, "every number of the legacy side is 0"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_a_digest_is_enough_to_say_a_difference(tmp_path, legacy, new, kind, text):
    found = said(tmp_path, legacy, new.contiguous(), has_sketch=False)
    assert [one for one, _ in found if not one.is_place] == [kind] and text in found[0][1], found


@pytest.mark.parametrize(("legacy", "new"), [
    (LABELS, LABELS.flip(0).cumsum(0)),
    (FLAGS, FLAGS.view(-1)[torch.randperm(40, generator=torch.Generator().manual_seed(1))].view(4, 10)),
    (X, drawn(2, 6, 8, seed=1)),
    (torch.tensor([1.0, 2.0]), torch.zeros(2)),
    (X, torch.ones(2, 6, 8).index_fill(2, torch.tensor([3]), 2.0)),
])  # fmt: skip
def test_what_a_digest_does_not_show_is_not_said(tmp_path, legacy, new):
    assert said(tmp_path, legacy, new, has_sketch=False) == []


def test_what_another_record_of_the_new_side_holds_is_the_legacy_sides(tmp_path):
    found = said(tmp_path, X, X * 0.9, before=[Rec("param", "part.mean", X, phase="weights")], has_sketch=False)
    assert found[0][0] == K.FACTOR and "times 0.9" in found[0][1], found


PLACES = torch.arange(60).view(3, 20) % 20 < torch.tensor([20, 12, 15])[:, None]


@pytest.mark.parametrize("places", [None, PLACES], ids=["", "padding"])
@pytest.mark.parametrize(("change", "text"), [
    (lambda x: x.index_put((torch.tensor(1), torch.tensor(4), torch.tensor(2)), x[1, 4, 2] + 1e-3), "only at [1, 4, 2], by 0.001 more"),
    (lambda x: x - 0.25 * (torch.arange(20) == 7)[:, None], "only index 7 of axis 1, by 0.25 less"),
    (lambda x: x * (1 + (torch.arange(8) == 3)), "only index 3 of axis 2, by a factor of 2"),
])  # fmt: skip
def test_sums_tell_where_one_number_is_added(tmp_path, places, change, text):
    found = said(tmp_path, LONG + 1e-7 * LONG.flip(0), change(LONG), (LONG.double(), change(LONG.double())), places=places)
    assert found == [(K.PLACE, text)]


@pytest.mark.parametrize("change", [
    lambda x: x + 0.1 * (torch.arange(20) == 7)[:, None] * (torch.arange(3) == 1)[:, None, None],
    lambda x: x + 0.1 * ((torch.arange(20) == 7) | (torch.arange(20) == 8))[:, None],
    lambda x: x + 0.1 * (torch.arange(20) == 7)[:, None] * x.flip(2),
    lambda x: x + 1e-2 * drawn(3, 20, 8, seed=6),
])  # fmt: skip
def test_sums_that_several_numbers_may_have_made_tell_no_place(tmp_path, change):
    assert said(tmp_path, LONG + 1e-7 * LONG.flip(0), change(LONG), (LONG.double(), change(LONG.double()))) == []


def test_what_differs_in_its_own_precision_only_is_said_of_that(tmp_path):
    both = LONG.double(), LONG.double()
    assert said(tmp_path / "one", LONG + 1e-7, 2 * LONG, both)[0][0] == K.FACTOR
    mean = torch.full_like(LONG, float(LONG.mean()))
    assert said(tmp_path / "two", LONG + 1e-7, mean, both)[0][0] == K.CONSTANT
    assert said(tmp_path / "five", LONG + 1e-7, LONG.flip(2), both)[0][0] == K.PERMUTATION
    assert said(tmp_path / "six", LONG + 1e-7, LONG.double(), both)[0][0] == K.TYPE
    assert said(tmp_path / "seven", LONG + 1e-7, LONG.flatten(), both)[0][0] == K.SHAPE
    (kind, text), *_ = said(tmp_path / "eight", LONG + 1e-7, LONG[:, :-2].contiguous(), both)
    assert kind == K.SHAPE and "the first 18 of the legacy side's 20 along axis 1, as far as samples show" in text
    assert said(tmp_path / "nine", LONG + 1e-7, LONG[:, [0, *range(2, 19)]].contiguous(), both) == []
    assert said(tmp_path / "ten", LONG + 1e-7, LONG.flip(2) * 1.001, both) == []
    coarse = said(tmp_path / "eleven", LONG + 1e-9, LONG.bfloat16(), both)
    assert coarse == [(K.TYPE, "the legacy side's numbers as BF16 in place of F32, as far as samples show")]
    hole = LONG.index_fill(1, torch.tensor([5]), float("nan"))
    assert said(tmp_path / "three", LONG, hole, both) == [
        (K.NOT_FINITE, "NaN on one side only: 24 of 480 elements, index 5 of axis 1")
    ]
    assert said(tmp_path / "four", hole, (hole + 1).roll(1, 1), (hole.double(), hole.double())) == []


WIDE = drawn(5, 20, 8, seed=7)


@pytest.mark.parametrize("places", [None, torch.arange(100).view(5, 20) % 20 < 15], ids=["", "padding"])
@pytest.mark.parametrize(("new", "kind", "text"), [
    (torch.cat([WIDE[:1], WIDE[:-1]]), K.SHIFT, "1 later along axis 0, as far as samples show"),
    (WIDE.clamp(-0.5, 0.75), K.CLAMP, "none below -0.5 and none above 0.75, as far as samples show"),
])  # fmt: skip
def test_samples_show_what_lost_numbers(tmp_path, new, kind, text, places):
    found = said(tmp_path, WIDE + 1e-7, new, (WIDE.double(), new.double()), places=places)
    assert found[0][0] == kind and text in found[0][1], found


@pytest.mark.parametrize("index", [0, 1])
def test_samples_show_one_image_in_place_of_all(tmp_path, index):
    two = WIDE[:2]
    new = two[index : index + 1].expand(2, 20, 8).contiguous()
    found = said(tmp_path, two + 1e-7, new, (two.double(), new.double()))
    text = f"what the legacy side has at index {index} of axis 0, at every index, as far as samples show"
    assert found[0] == (K.REPEATED, text), found


@pytest.mark.parametrize("new", [
    WIDE.clamp(-0.5, 0.75) + 1e-3 * drawn(5, 20, 8, seed=8),  # something else besides
    torch.where(WIDE.abs() < 2.5, WIDE, WIDE.sign() * 2.5),  # hardly a sample is beyond
    torch.cat([WIDE[:1], WIDE[:-1]]).flip(2),
    torch.cat([WIDE[:2], WIDE[1:-1]]) * (1 + 1e-3 * torch.arange(8)),
])  # fmt: skip
def test_what_samples_do_not_show_is_not_said(tmp_path, new):
    assert said(tmp_path, WIDE + 1e-7, new, (WIDE.double(), new.double())) == []


def test_a_bound_that_few_numbers_reach_is_not_said(tmp_path):
    """Four samples of the legacy side are beyond the largest number of the new one, which only these reach."""
    high = positions_of_samples(WIDE.numel())[:4]
    legacy, new = (WIDE.reshape(-1).index_fill(0, high, 5.0).view(WIDE.shape) for _ in range(2))
    legacy.view(-1)[high] += torch.arange(1.0, 5.0)
    assert said(tmp_path, legacy + 1e-7, new, (legacy.double(), new.double())) == []


@pytest.mark.parametrize(("change", "text"), [
    (lambda one, two: torch.cat([two.flatten(2), one.flatten(2)], 2), "the 2 maps of `part.neck` in reverse order"),
    (lambda one, two: torch.cat([x.transpose(2, 3).flatten(2) for x in (one, two)], 2), "columns come first"),
])  # fmt: skip
def test_maps_are_laid_out_in_another_order(tmp_path, change, text):
    maps = drawn(2, 8, 6, 4, seed=2), drawn(2, 8, 3, 2, seed=3)
    before = [Rec("module_out", "part.neck", x.double(), slot=str(i), scope="part") for i, x in enumerate(maps)]
    legacy, new = torch.cat([x.flatten(2) for x in maps], 2).transpose(1, 2), change(*maps).transpose(1, 2).contiguous()
    found = said(tmp_path / "one", legacy + 1e-7, new, (legacy.double(), new.double()), before, "method_out")
    assert found[0][0] == K.PERMUTATION and text in found[0][1], found
    found = said(tmp_path / "own", legacy + 1e-7, new, (legacy.double(),) * 2, before, "method_out")
    assert found[0][0] == K.PERMUTATION and text in found[0][1], found

"""One computation in other shapes and on other scores: the same verdict, and errors beside it keep their names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legacy_adapters.recording import taps as tap_lib
from parity.comparing.compare import EXACT
from parity.verdict.verdict import MATCH, MISMATCH

from .rewrites import BOTH, DIM, verdict_on

pytestmark = pytest.mark.parametrize("tolerance", BOTH, ids=lambda tolerance: tolerance.name)

TURNED = pytest.mark.parametrize("turned", [False, True], ids=["", "the other way round"])


def taps(model: nn.Module) -> list[tap_lib.Tap]:
    return [*tap_lib.rankings(), *tap_lib.random_taps()]


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc, self.drop = nn.LayerNorm(DIM), nn.Linear(DIM, DIM), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.fc(self.norm(x)).relu())


class Model(nn.Module):
    """Twelve queries go through layers; the best five make a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.cls, self.box = nn.Linear(DIM, 3), nn.Linear(DIM, 4)

    def queries(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid().amax(-1)

    def best(self, scores: Tensor) -> Tensor:
        return scores.topk(5).indices

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.queries(x)
        logits, boxes = self.cls(x), self.box(x)
        best = boxes[self.best(self.scores(logits))]
        return {"cls": F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)), "box": best.abs().mean()}


class OneBatch(Model):
    """Has a dimension of images in front."""

    def queries(self, x: Tensor) -> Tensor:
        return super().queries(x[None])[0]


class OneBatchBehind(Model):
    """Has a dimension of images behind the queries."""

    def queries(self, x: Tensor) -> Tensor:
        return super().queries(x[:, None]).squeeze(1)


class OtherNameOfArgument(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class OneBatchOfOtherLayers(OneBatch):
    def __init__(self) -> None:
        super().__init__()
        for layer in self.layers:
            layer.fc = OtherNameOfArgument(DIM, DIM)


class QueryByQuery(Model):
    """Maps layers over the queries."""

    def queries(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer.drop(torch.func.vmap(lambda query: layer.fc(layer.norm(query)).relu())(x))
        return x


class InTwoDimensions(Model):
    """Has queries as rows and columns of a map."""

    def queries(self, x: Tensor) -> Tensor:
        return super().queries(x.unflatten(0, (3, 4))).flatten(0, 1)


class ListOfLists(Model):
    """Picks from one list of a batch of lists."""

    def best(self, scores: Tensor) -> Tensor:
        return scores[None].topk(5).indices[0]


class OnLogits(Model):
    def scores(self, logits: Tensor) -> Tensor:
        return logits.amax(-1)


class OnTwiceTheLogits(Model):
    def scores(self, logits: Tensor) -> Tensor:
        return 2 * logits.amax(-1) + 1


HARMLESS = [
    OneBatch, OneBatchBehind, OneBatchOfOtherLayers, InTwoDimensions, ListOfLists, OnLogits, OnTwiceTheLogits,
    QueryByQuery,
]  # fmt: skip


@pytest.mark.parametrize("new", HARMLESS)
@TURNED
def test_the_same_in_another_shape_or_on_rising_scores_matches(tmp_path, tolerance, new, turned):
    sides = (new, Model) if turned else (Model, new)
    verdict = verdict_on(tmp_path, *sides, tolerance, taps)
    assert verdict.outcome == MATCH, verdict.reasons


class Twice(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 1.001 * super().forward(input)


class WithWrongBox:
    def __init__(self) -> None:
        super().__init__()
        self.box = Twice(DIM, 4)


class WithWrongLayer:
    def __init__(self) -> None:
        super().__init__()
        self.layers[1].fc = Twice(DIM, DIM)


class WrongBox(WithWrongBox, OneBatch):
    pass


class WrongLayer(WithWrongLayer, OneBatch):
    pass


class WrongBoxOnLogits(WithWrongBox, OnLogits):
    pass


@pytest.mark.parametrize(
    ("new", "where"), [(WrongBox, "box"), (WrongLayer, "layers.1.fc"), (WrongBoxOnLogits, "box")]
)
def test_an_error_beside_it_is_named(tmp_path, tolerance, new, where):
    verdict = verdict_on(tmp_path, Model, new, tolerance, taps)
    assert (verdict.outcome, verdict.divergence.where) == (MISMATCH, where), verdict.divergence


class Broadcast(Model):
    """Loses a dimension of length 1, so that what is computed with it is another thing."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.queries(x)
        scores = self.cls(x).amax(-1, keepdim=self.keeps)
        return {"loss": (self.box(x)[:, :1] * scores).square().mean()}

    keeps = True


class Lost(Broadcast):
    keeps = False


class OneDimensionMore(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)[None]


class GivesOneDimensionMore(Model):
    """Has a layer that gives another shape of the same; that is undone behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.box = OneDimensionMore(DIM, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.queries(x)
        logits, boxes = self.cls(x), self.box(x)[0]
        best = boxes[self.best(self.scores(logits))]
        return {"cls": F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)), "box": best.abs().mean()}


class OtherScores(Model):
    """Ranks by scores that are no function of the right ones; the first five happen to be the same."""

    def scores(self, logits: Tensor) -> Tensor:
        scores = super().scores(logits)
        is_left = scores < scores.detach().kthvalue(len(scores) - 4).values
        rest = scores[is_left]
        return torch.where(is_left, rest.min() + rest.max() - scores, scores)


class FewQueries(Model):
    """Ranks the first four queries alone: so few may be in the same order by chance."""

    def best(self, scores: Tensor) -> Tensor:
        return scores[:4].topk(2).indices


class FewQueriesOnLogits(FewQueries, OnLogits):
    pass


class Transposed(Model):
    """Reads the map of queries column by column."""

    def queries(self, x: Tensor) -> Tensor:
        return super().queries(x.unflatten(0, (3, 4)).transpose(0, 1)).flatten(0, 1)


@pytest.mark.parametrize(
    ("legacy", "new"),
    [
        (Broadcast, Lost), (Model, GivesOneDimensionMore), (Model, OtherScores), (Model, Transposed),
        (FewQueries, FewQueriesOnLogits),
    ],
)  # fmt: skip
def test_what_changes_numbers_or_may_is_a_mismatch(tmp_path, tolerance, legacy, new):
    verdict = verdict_on(tmp_path, legacy, new, tolerance, taps)
    assert verdict.outcome == MISMATCH


class InParts(Model):
    """Gives the heads one part of the queries after the other."""

    number = 2

    def parts(self, x: Tensor) -> list[Tensor]:
        return list(x.split(len(x) // self.number))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.queries(x)
        logits, boxes = (torch.cat([head(part) for part in self.parts(x)]) for head in (self.cls, self.box))
        best = boxes[self.best(self.scores(logits))]
        return {"cls": F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)), "box": best.abs().mean()}


class InThreeParts(InParts):
    number = 3


class InOnePart(InParts):
    number = 1


@pytest.mark.parametrize(("legacy", "new"), [(InOnePart, InParts), (InThreeParts, InParts), (Model, InThreeParts)])
@TURNED
def test_calls_in_parts_match_where_they_may_round_otherwise(tmp_path, tolerance, legacy, new, turned):
    sides = (new, legacy) if turned else (legacy, new)
    verdict = verdict_on(tmp_path, *sides, tolerance, taps)
    if tolerance.name == EXACT and verdict.outcome == MISMATCH:
        assert verdict.divergence.where.split(".")[0] in ("cls", "box")  # which got the same
    else:
        assert verdict.outcome == MATCH, verdict.reasons


class LastPartTwice(InParts):
    def parts(self, x: Tensor) -> list[Tensor]:
        return [x[6:], x[6:]]


class OtherOrder(InParts):
    def parts(self, x: Tensor) -> list[Tensor]:
        return super().parts(x)[::-1]


class WrongLayerInParts(WithWrongLayer, InParts):
    pass


class WrongBoxInParts(WithWrongBox, InParts):
    pass


@pytest.mark.parametrize(
    ("new", "where"),
    [
        (LastPartTwice, "the detector"), (OtherOrder, "the detector"), (WrongLayerInParts, "layers.1.fc"),
        (WrongBoxInParts, "box"),
    ],
)  # fmt: skip
def test_an_error_in_calls_in_parts_is_named(tmp_path, tolerance, new, where):
    verdict = verdict_on(tmp_path, Model, new, tolerance, taps)
    first = "cls" if tolerance.name == EXACT and where == "box" else where  # which rounds otherwise
    assert verdict.outcome == MISMATCH
    assert verdict.divergence.where in (where, first), verdict.divergence


class ImageByImage(Model):
    """Takes three images of four queries; heads and rankings see one after the other."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        images = self.queries(x).unflatten(0, (3, 4))
        logits, boxes = (torch.stack([head(image) for image in images]) for head in (self.cls, self.box))
        best = torch.stack([boxes[i][self.of_image(scores)] for i, scores in enumerate(self.scores(logits))])
        return {"cls": F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)), "box": best.abs().mean()}

    def of_image(self, scores: Tensor) -> Tensor:
        return scores.topk(2).indices


class AllImages(ImageByImage):
    """Heads and rankings see all images at once."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        images = self.queries(x).unflatten(0, (3, 4))
        logits, boxes = self.cls(images), self.box(images)
        best = boxes.gather(1, self.of_image(self.scores(logits))[..., None].expand(-1, -1, 4))
        return {"cls": F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)), "box": best.abs().mean()}


class OthersOfAllImages(AllImages):
    """Takes the second and third best."""

    def of_image(self, scores: Tensor) -> Tensor:
        return scores.topk(3).indices[:, 1:]


class WorstOfAllImages(AllImages):
    def of_image(self, scores: Tensor) -> Tensor:
        return (-scores).topk(2).indices


@TURNED
def test_all_images_at_once_match_one_after_the_other(tmp_path, tolerance, turned):
    sides = (AllImages, ImageByImage) if turned else (ImageByImage, AllImages)
    verdict = verdict_on(tmp_path, *sides, tolerance, taps)
    if tolerance.name == EXACT and verdict.outcome == MISMATCH:
        assert verdict.divergence.where.split(".")[0] in ("cls", "box")  # which got the same
    else:
        assert verdict.outcome == MATCH, verdict.reasons


class Repeated(nn.Module):
    """Calls one activation and one layer several times in a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.head = nn.Linear(DIM, DIM), nn.Tanh(), nn.Linear(DIM, 1)

    def once(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = x + self.act(self.fc(x))
        return self.act(self.head(x))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.once(x.unflatten(0, (3, 4))).square().mean()}


class RepeatedImageByImage(Repeated):
    """So that all calls for one image come before those for the next."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": torch.cat([self.once(image) for image in x.unflatten(0, (3, 4)).split(1)]).square().mean()}


class OtherSecondTime(RepeatedImageByImage):
    def once(self, x: Tensor) -> Tensor:
        x = x + self.act(self.fc(x))
        return self.act(self.head(x + self.act(self.fc(1.01 * x))))


@TURNED
def test_calls_of_one_image_come_together_or_those_of_one_place(tmp_path, tolerance, turned):
    sides = (RepeatedImageByImage, Repeated) if turned else (Repeated, RepeatedImageByImage)
    verdict = verdict_on(tmp_path, *sides, tolerance, taps)
    if tolerance.name == EXACT and verdict.outcome == MISMATCH:
        assert verdict.divergence.comparison.pair.new.kind != "module_in"  # they got the same
    else:
        assert verdict.outcome == MATCH, verdict.reasons


def test_another_call_among_those_of_one_image_is_named(tmp_path, tolerance):
    verdict = verdict_on(tmp_path, Repeated, OtherSecondTime, tolerance, taps)
    assert verdict.outcome == MISMATCH
    if tolerance.name != EXACT:
        record = verdict.divergence.comparison.pair.new
        assert (verdict.divergence.where, record.kind, record.name, record.call) == ("the detector", "module_in", "fc", 1)


@pytest.mark.parametrize("new", [OthersOfAllImages, WorstOfAllImages])
def test_other_queries_of_all_images_are_a_mismatch(tmp_path, tolerance, new):
    assert verdict_on(tmp_path, ImageByImage, new, tolerance, taps).outcome == MISMATCH


class Stages(nn.Module):
    """Gives back what both stages make; the second goes on with what the first makes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(x).tanh()
        return self.given(first), self.second(first).tanh()

    def given(self, first: Tensor) -> Tensor:
        return first


class Copying(Stages):
    def given(self, first: Tensor) -> Tensor:
        return first.clone()


class Halving(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient / 2


class HalvingGradients(Stages):
    def given(self, first: Tensor) -> Tensor:
        return Halving.apply(first)


class OfStages(nn.Module):
    make = Stages

    def __init__(self) -> None:
        super().__init__()
        self.stages, self.head = self.make(), nn.Linear(DIM, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": sum(self.head(level).square().mean() for level in self.stages(x))}


class OfCopies(OfStages):
    make = Copying


class OfHalves(OfStages):
    make = HalvingGradients


@TURNED
def test_a_copy_with_a_gradient_of_its_own_matches(tmp_path, tolerance, turned):
    sides = (OfCopies, OfStages) if turned else (OfStages, OfCopies)
    verdict = verdict_on(tmp_path, *sides, tolerance, taps)
    assert verdict.outcome == MATCH, verdict.reasons


def test_a_copy_that_halves_gradients_is_a_mismatch(tmp_path, tolerance):
    assert verdict_on(tmp_path, OfStages, OfHalves, tolerance, taps).outcome == MISMATCH

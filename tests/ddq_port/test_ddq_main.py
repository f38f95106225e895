"""DDQ FCN and DDQ R-CNN: their parts by hand, and the switches of the register from both sides."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from mmdet.models import losses as mmdet_losses
from mmdet.models.task_modules.assigners import match_cost
from mmengine.structures import InstanceData
from torch import Tensor, nn

from converters.rules.ports import port
from ddq_port.models.ddq_detr.assigner import TopkHungarianAssigner
from ddq_port.models.ddq_fcn import costs, losses, selection
from ddq_port.models.ddq_fcn.assigner import LogitTopkHungarianAssigner
from ddq_port.models.ddq_fcn.query_loss import QueryLoss
from ddq_port.models.ddq_fcn.shuffle import shuffled
from legacy_adapters import mmdet3
from legacy_adapters.inputs import Batch
from parity.sides.prepare import seeded_batch, seeded_weights

META = dict(img_shape=(64, 96), scale_factor=(0.5, 2.0))
GT = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0], [50.0, 10.0, 90.0, 60.0]]), labels=torch.tensor([0, 2]))


@cache
def model(family: str) -> nn.Module:
    """Return the small model of a family, seeded."""
    of = port(family, "tiny")
    built = mmdet3.build_model(of.variant.new["config"])
    built.load_state_dict(seeded_weights(of.layout("new"), 0, of.family.seeding), strict=True)
    return built


def batch(objects: tuple[int, ...] = (2, 3), seed: int = 0) -> Batch:
    """Return two images of different sizes."""
    return seeded_batch([(40, 64), (64, 48)], seed=seed, num_classes=3, objects=objects, divisor=32)


def training_terms(family: str, objects: tuple[int, ...] = (2, 3)) -> tuple[dict[str, Tensor], Tensor]:
    return mmdet3.losses(model(family).train(), batch(objects))


def test_levels_get_the_last_channels_of_the_coarser_and_those_before_of_the_finer_level() -> None:
    maps = [torch.arange(6.0).view(1, 6, 1, 1).expand(1, 6, 4 - n, 4 - n) + 10 * n for n in range(3)]
    given = [[value.round().unique().tolist() for value in level[0]] for level in shuffled(maps, 2)]
    assert given == [
        [[0], [1], [14], [15], [2], [3]],  # the finest level is its own finer one
        [[10], [11], [24], [25], [2], [3]],
        [[20], [21], [24], [25], [12], [13]],  # the coarsest is its own coarser one
    ]


def test_resized_channels_keep_their_corners() -> None:
    fine, coarse = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 2, 2)
    coarse[0, 2] = torch.tensor([[0.0, 3.0], [6.0, 9.0]])
    corners = shuffled([fine, coarse], 1)[0][0, 1, ::3, ::3]
    assert corners.tolist() == [[0.0, 3.0], [6.0, 9.0]]


def _predictions() -> selection.DensePredictions:
    scores = torch.tensor([[0.1, 0.9, 0.0, 0.5]]).view(1, 1, 2, 2)
    coarse = torch.tensor([0.7]).view(1, 1, 1, 1)
    return selection.DensePredictions([scores, coarse], [torch.ones(1, 4, 2, 2), torch.ones(1, 4, 1, 1)], [], [])


def test_the_best_points_of_each_level_are_queries_and_those_of_score_zero_are_not() -> None:
    priors = [torch.tensor([[4.0, 4.0], [12.0, 4.0], [4.0, 12.0], [12.0, 12.0]]), torch.tensor([[8.0, 8.0]])]
    queries = selection.best_of_levels(_predictions(), 0, priors, (8, 16), 2)
    assert queries.scores.flatten().tolist() == pytest.approx([0.9, 0.5, 0.7])
    assert queries.points.tolist() == [1, 3, 4]
    assert queries.bboxes.tolist() == [[4.0, -4.0, 20.0, 12.0], [4.0, 4.0, 20.0, 20.0], [-8.0, -8.0, 24.0, 24.0]]
    assert len(selection.best_of_levels(_predictions(), 0, priors, (8, 16), 9).scores) == 4


def test_distinct_queries_are_those_of_one_nms_over_all_classes() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10.5], [50, 50, 60, 60]])
    queries = selection.Queries(torch.tensor([[0.1, 0.2], [0.8, 0.0], [0.3, 0.4]]), boxes, torch.arange(3))
    kept = selection.distinct(queries, dict(type="nms", iou_threshold=0.7))
    assert kept.points.tolist() == [1, 2]
    nothing = queries.at(torch.zeros(0, dtype=torch.long))
    assert selection.distinct(nothing, dict(type="nms", iou_threshold=0.7)) is nothing


@pytest.mark.parametrize("name, target", [
    ("QualityFocalLoss", (torch.tensor([0, 3]), torch.tensor([0.7, 0.0]))),
    ("FocalLoss", torch.tensor([0, 3])),
])  # fmt: skip
def test_class_losses_are_divided_by_their_factor_alone_unless_switched(name: str, target: object) -> None:
    given = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    options = dict(use_sigmoid=True, loss_weight=2.0, **(dict(activated=True) if "Quality" in name else {}))
    own, theirs = (getattr(module, name) for module in (losses, mmdet_losses))
    with_eps = theirs(**options)(given, target, avg_factor=1.0)
    items = theirs(**options)(given, target, reduction_override="none")
    assert torch.equal(own(**options)(given, target, avg_factor=1.0), items.sum() / 1.0)
    assert torch.equal(own(normaliser_eps=True, **options)(given, target, avg_factor=1.0), with_eps)
    assert own(**options)(given, target, avg_factor=torch.tensor(0.0)).isinf()
    assert theirs(**options)(given, target, avg_factor=torch.tensor(0.0)).isfinite()


@pytest.mark.parametrize("name", ["GIoULoss", "L1Loss"])
@pytest.mark.parametrize("factor", [1.0, 2.0, 3.0, 7.0, 4096.0])
def test_box_losses_are_divided_by_their_factor_alone_unless_switched(name: str, factor: float) -> None:
    boxes, wider, weight = GT.bboxes, GT.bboxes * 1.37, torch.ones(2, 1)
    options = dict(loss_weight=2.0)
    own, theirs = (getattr(module, name) for module in (losses, mmdet_losses))
    weight = weight.squeeze(1) if name == "GIoULoss" else weight.expand(2, 4)
    items = theirs(loss_weight=1.0)(boxes, wider, weight, reduction_override="none")
    for given in (factor, torch.tensor(factor)):
        assert torch.equal(own(**options)(boxes, wider, weight, avg_factor=given), 2.0 * (items.sum() / factor))
    switched = own(normaliser_eps=True, **options)(boxes, wider, weight, avg_factor=factor)
    assert torch.equal(switched, theirs(**options)(boxes, wider, weight, avg_factor=factor))


def test_costs_take_boxes_by_way_of_shares() -> None:
    given = InstanceData(bboxes=torch.tensor([[1.3, 2.7, 33.3, 44.1], [0.1, 7.7, 95.3, 63.9]]))
    factor = torch.tensor([96.0, 64.0, 96.0, 64.0])
    first, last = (given.bboxes / factor).split(2, dim=-1)
    centre, size = (first + last) / 2, last - first
    corners = torch.cat([centre - 0.5 * size, centre + 0.5 * size], dim=-1)
    distance = (corners[:, None] - GT.bboxes / factor).abs().sum(-1)
    assert torch.allclose(costs.ShareBBoxL1Cost(weight=5.0)(given, GT, META), 5 * distance, atol=1e-6)
    of_mmdet = match_cost.IoUCost(iou_mode="giou", weight=2.0)
    shares = costs.ShareIoUCost(iou_mode="giou", weight=2.0)(given, GT, META)
    assert torch.equal(shares, of_mmdet(InstanceData(bboxes=corners * factor), GT, META))
    assert torch.allclose(shares, of_mmdet(given, GT, META), atol=1e-5)


def test_the_class_cost_is_given_logits_so_that_there_is_one_sigmoid() -> None:
    scores = torch.tensor([[0.2, 0.6, 0.9], [0.99, 0.5, 0.01]])
    given, taken = LogitTopkHungarianAssigner(topk=1), TopkHungarianAssigner(topk=1)
    assert torch.allclose(given.class_basis(scores).sigmoid(), scores, atol=1e-6)
    assert taken.class_basis(scores) is scores


def test_a_query_loss_takes_images_of_any_number_of_queries_and_of_more_objects_than_queries() -> None:
    loss = QueryLoss(topk=8)
    scores = [torch.full((count, 3), 0.4, requires_grad=True) for count in (1, 5)]
    boxes = [GT.bboxes[:1].clone().requires_grad_(), torch.rand(5, 4).cumsum(-1).requires_grad_()]
    terms = loss(scores, boxes, [GT, GT], [META, META])
    assert {name: len(values) for name, values in terms.items()} == dict(loss_cls=2, loss_bbox=2)
    assert all(value.isfinite() for values in terms.values() for value in values)


def test_boxes_are_those_of_the_resized_image_unless_asked_otherwise_or_switched() -> None:
    fcn, images = model("ddq_fcn").eval(), batch()

    def detected(rescale: bool) -> Tensor:
        samples = mmdet3.data_samples(images, False)
        return fcn.predict(images.images, samples, rescale=rescale)[1].pred_instances.bboxes

    resized, original = detected(False), detected(True)
    assert torch.equal(resized / torch.tensor(images.scale_factors[1]).repeat(2), original)
    assert not torch.equal(resized, original)
    fcn.bbox_head.always_rescale = True
    try:
        assert torch.equal(detected(False), original)
    finally:
        fcn.bbox_head.always_rescale = False


def test_boxes_end_at_the_border_of_the_image_and_scores_descend() -> None:
    images = batch()
    with torch.no_grad():
        results = model("ddq_fcn").eval().predict(images.images, mmdet3.data_samples(images, False), rescale=False)
    for result, (height, width) in zip(results, images.image_sizes):
        found = result.pred_instances
        assert 0 < len(found) <= 50 and found.bboxes.min() >= 0 and found.labels.max() < 3
        assert found.bboxes[:, ::2].max() <= width and found.bboxes[:, 1::2].max() <= height
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)


def test_proposals_are_as_many_for_each_image_and_the_rest_is_zero() -> None:
    rcnn = model("ddq_rcnn").eval()
    for images in (batch(seed=seed) for seed in range(5)):  # until NMS keeps more of one image than of the other
        with torch.no_grad():
            x = rcnn.extract_feat(images.images)
            proposals = rcnn.rpn_head.predict(x[1:], mmdet3.data_samples(images, False))
        counts = [int(each.bboxes.abs().sum(-1).ne(0).sum()) for each in proposals]
        if counts[0] != counts[1]:
            break
    assert counts[0] != counts[1] and {len(each) for each in proposals} == {max(counts)}
    short = proposals[counts.index(min(counts))]
    assert not short.bboxes[min(counts) :].any() and not short.features[min(counts) :].any()
    assert proposals[0].imgs_whwh[0].tolist() == [64.0, 40.0, 64.0, 40.0]
    rcnn.rpn_head.num_distinct_queries = 7
    try:
        assert {len(each) for each in rcnn.rpn_head.predict(x[1:], mmdet3.data_samples(images, False))} == {7}
    finally:
        rcnn.rpn_head.num_distinct_queries = 300


@pytest.mark.parametrize("family, count", [("ddq_fcn", 5), ("ddq_rcnn", 13)])
def test_training_gives_all_terms_and_a_gradient_to_every_parameter(family: str, count: int) -> None:
    of = model(family)
    keys = list(of.state_dict())
    of.zero_grad()
    terms, total = training_terms(family)
    total.backward()
    assert len(terms) == count and total.isfinite()
    trained = {name: parameter.grad for name, parameter in of.named_parameters() if parameter.requires_grad}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in trained.values())
    assert list(of.state_dict()) == keys


def test_a_batch_without_objects_has_finite_losses_where_the_switch_is_set() -> None:
    assert training_terms("ddq_fcn", (0, 0))[1].isfinite()
    heads = model("ddq_rcnn").roi_head.bbox_head
    assert training_terms("ddq_rcnn", (0, 0))[1].isinf()  # as in the official code
    try:
        for head in heads:
            head.loss_cls.normaliser_eps = True
        assert training_terms("ddq_rcnn", (0, 0))[1].isfinite()
    finally:
        for head in heads:
            head.loss_cls.normaliser_eps = False

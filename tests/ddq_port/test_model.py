"""The detector on its own: layout, training step, edge cases, mask rules."""

import dataclasses

import pytest
import torch

from ddq_port import configs
from ddq_port.models.ddq_detr.head import detections
from ddq_port.models.ddq_detr.queries import DistinctSelection, QueryLayout, attention_block, pad_to, still_distinct
from legacy_adapters import mmdet3
from parity.sides.prepare import seeded_batch
from tests.models import described
from tests.models import layout_of as stored_layout


@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_stored_layout_is_that_of_the_real_model(variant):
    built = described(mmdet3.build_model(str(configs.path(configs.VARIANTS[variant]))), variant)
    assert stored_layout(variant) == built
    assert stored_layout(variant).to_json() == built.to_json()  # in the order of the model, too


def test_head_has_seven_and_seven_branches():
    keys = {".".join(key.split(".")[:3]) for key in stored_layout("r50_4scale").tensors if "branches" in key}
    expected = {"cls_branches", "reg_branches", "aux_cls_branches", "aux_reg_branches"}
    assert keys == {f"bbox_head.{name}.{index}" for name in expected for index in range(7)}


def test_training_step_adds_nothing_to_the_state_dict(build, batch, losses):
    model = build()
    before = list(model.state_dict())
    modules = [name for name, _ in model.named_modules(remove_duplicate=False)]
    _, total = losses(model, batch)
    total.backward()
    assert list(model.state_dict()) == before
    assert [name for name, _ in model.named_modules(remove_duplicate=False)] == modules


def test_every_trainable_parameter_gets_a_gradient(build, batch, losses):
    model = build()
    losses(model, batch)[1].backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()


def without_objects(batch, *images):
    boxes = [b[:0] if i in images else b for i, b in enumerate(batch.gt_bboxes)]
    labels = [x[:0] if i in images else x for i, x in enumerate(batch.gt_labels)]
    return dataclasses.replace(batch, gt_bboxes=boxes, gt_labels=labels)


@pytest.mark.parametrize("images", [(0,), (0, 1)], ids=["one image", "all images"])
def test_images_without_objects_train_with_finite_losses(build, batch, losses, images):
    model = build()
    terms, total = losses(model, without_objects(batch, *images))
    assert torch.isfinite(total)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("rule", ["legacy", "exact"])
def test_fewer_tokens_than_queries_are_padded(build, losses, rule):
    model = build(distinct_mask=rule)
    small = seeded_batch([(32, 32)], seed=0, num_classes=3)
    _, total = losses(model, small)
    assert torch.isfinite(total)
    model.eval()
    with torch.no_grad():
        (result,) = mmdet3.predict(model, small)
    assert len(result["scores"]) <= 50 and torch.isfinite(result["bboxes"]).all()


def test_autocast_trains_and_keeps_the_dense_loss_in_float32(build, batch):
    model = build().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms, total = mmdet3.losses(model, batch)
    total.backward()
    assert torch.isfinite(total)
    assert terms["aux_enc_aux_loss_cls"][0].dtype == torch.float32


@pytest.mark.parametrize(("float32", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_boxes_under_autocast(build, batch, float32, dtype):
    model = build().eval()
    model.bbox_head.float32_boxes = float32
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = mmdet3.predict(model, batch)
    assert {image["bboxes"].dtype for image in found} == {dtype}


def test_valid_ratios_are_float32_under_autocast_without_padding_too(build):
    model, given = build().eval(), []
    model.encoder.register_forward_pre_hook(lambda module, args, kwargs: given.append(kwargs), with_kwargs=True)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        mmdet3.predict(model, seeded_batch([(64, 96)], seed=0, num_classes=3))
    assert given[0]["valid_ratios"].dtype == torch.float32


def test_result_of_an_image_does_not_depend_on_its_neighbour(build):
    one = seeded_batch([(128, 160)], seed=0, num_classes=3)
    twice = dataclasses.replace(
        one,
        images=one.images.repeat(2, 1, 1, 1),
        image_sizes=one.image_sizes * 2,
        pad_shapes=one.pad_shapes * 2,
        scale_factors=one.scale_factors * 2,
        gt_bboxes=one.gt_bboxes * 2,
        gt_labels=one.gt_labels * 2,
    )
    model = build().eval()
    with torch.no_grad():
        first, second = mmdet3.predict(model, twice)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_mask_rules_give_different_detections(build, batch):
    found = []
    for rule in ("legacy", "exact"):
        model = build(distinct_mask=rule).eval()
        with torch.no_grad():
            found.append(mmdet3.predict(model, batch))
    assert any(not torch.equal(a["scores"], b["scores"]) for a, b in zip(*found))


BOXES = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.21], [0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]])


@pytest.mark.parametrize(
    ("rule", "scores", "survivors", "active"),
    [
        ("exact", [0.9, 0.8, 0.7, 0.6], [True, False, True, True], [True, False, True, True]),
        ("exact", [0.8, 0.9, 0.7, 0.6], [False, True, True, True], [False, True, True, True]),
        # query 0 survives: the legacy rule keeps every query in play
        ("legacy", [0.9, 0.8, 0.7, 0.6], [True, False, True, True], [True, True, True, True]),
        # query 0 is a duplicate: only the survivors go on
        ("legacy", [0.8, 0.9, 0.7, 0.6], [False, True, True, True], [False, True, True, True]),
    ],
)
def test_survivors_and_active_queries_of_both_mask_rules(rule, scores, survivors, active):
    everyone = torch.ones(4, dtype=torch.bool)
    result = still_distinct(BOXES, torch.tensor(scores), everyone, DistinctSelection(0.8, rule))
    assert [mask.tolist() for mask in result] == [survivors, active]


def test_queries_that_do_not_take_part_never_survive():
    candidates = torch.tensor([False, True, True, False])
    survivors, _ = still_distinct(
        BOXES, torch.tensor([0.9, 0.8, 0.7, 0.6]), candidates, DistinctSelection(0.8, "exact")
    )
    assert survivors.tolist() == [False, True, True, False]


def test_attention_is_open_where_one_of_the_pair_survived():
    block = attention_block(torch.tensor([[True, False, False]]))
    assert block.tolist() == [[[False, False, False], [False, True, True], [False, True, True]]]


def test_query_layout_cuts_the_axis():
    x = torch.arange(9).reshape(1, 9)
    assert QueryLayout(2, 3, 4).matching(x).tolist() == [[2, 3, 4]]


def test_padding_is_zeros_at_the_end():
    padded = pad_to([torch.ones(1, 2), torch.ones(3, 2)], 3)
    assert padded[0].tolist() == [[1, 1], [0, 0], [0, 0]] and padded.shape == (2, 3, 2)


@pytest.mark.parametrize(
    "overrides",
    [
        dict(distinct_mask="fast"),
        dict(dqs_cfg=dict(type="soft_nms", iou_threshold=0.8)),
        dict(dqs_cfg=dict(type="nms", iou_threshold=1.8)),
        dict(positional_encoding=dict(num_feats=30)),
        dict(dense_topk_ratio=0.0),
        dict(bbox_head=dict(loss_cls=dict(_delete_=True, type="CrossEntropyLoss"))),
    ],
    ids=lambda o: next(iter(o)),
)
def test_config_that_makes_no_sense_is_refused_in_one_line(build, overrides):
    with pytest.raises(ValueError, match="expected") as caught:
        build(**overrides)
    assert "\n" not in str(caught.value)


def test_more_objects_than_dense_queries_train(build, losses):
    crowded = seeded_batch([(32, 32)], seed=0, num_classes=3, objects=(60,))
    terms, total = losses(build(), crowded)
    assert torch.isfinite(total)
    # no copy of an object is left for a query: nothing is positive
    assert float(terms["aux_enc_aux_loss_bbox"][0]) == 0.0


@pytest.mark.parametrize(("limit", "expected"), [(4, 4), (50, 6), (None, 2)])
def test_detections_are_the_best_pairs_and_never_more_than_there_are(limit, expected):
    logits = torch.tensor([[0.0, 2.0, -1.0], [1.0, -2.0, 3.0]])
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.9, 0.5, 0.4, 0.2]])
    meta = dict(img_shape=(100, 200), scale_factor=(0.5, 2.0))
    found = detections(logits, boxes, meta, limit, rescale=True)
    assert found.labels.tolist() == [2, 1, 0, 0, 2, 1][:expected]
    assert found.scores.tolist() == pytest.approx(
        torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0, -2.0]).sigmoid()[:expected].tolist()
    )
    # the second query's box: x 140 to 220, cut at 200, y 40 to 60; then back to the original image
    assert found.bboxes[0].tolist() == pytest.approx([280.0, 20.0, 400.0, 30.0])

"""Co-DETR: its parts by hand, the switches from both sides, and what is refused."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import pytest
import torch
from mmdet.models.backbones import SwinTransformer
from mmdet.models.backbones.swin import swin_converter
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ddq_port import configs
from ddq_port.models.co_detr.denoising import CdnQueryGenerator
from ddq_port.models.co_detr.detections import detections
from ddq_port.models.co_detr.positives import FEWEST, Positives, aux_queries
from ddq_port.models.co_detr.swin import SwinTransformerV1
from ddq_port.models.co_detr.swin_layers import DropPath
from ddq_port.models.co_detr.tokens import flattened, reference_points
from ddq_port.registry import MODELS
from legacy_adapters import mmdet3
from legacy_adapters.inputs import Batch
from parity.sides.prepare import seeded_batch

DINO, DEFORMABLE = "co_detr/co-dino-5scale_tiny", "co_detr/co-deformable-detr_tiny"
META = dict(img_shape=(50, 100), scale_factor=(0.5, 2.0))


def built(name: str, **options: Any) -> nn.Module:
    """Return a small model with random weights, the same in each call."""
    config = configs.load(name)
    config.merge_from_dict(dict(model=options), allow_list_keys=True)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    try:
        model = mmdet3.build_from(config)
        model.init_weights()
    finally:
        logging.disable(logging.NOTSET)
    for branch in model.query_head.reg_branches:
        nn.init.normal_(branch[-1].weight, std=0.1)
    return model


@cache
def model(name: str) -> nn.Module:
    return built(name)


def batch(objects: tuple[int, ...] = (3, 2)) -> Batch:
    """Return two images of different sizes."""
    return seeded_batch([(32, 48), (24, 32)], seed=0, num_classes=3, objects=objects, divisor=1)


@pytest.mark.parametrize(("name", "count"), [(DINO, 47), (DEFORMABLE, 38)])
def test_every_head_has_losses_and_every_parameter_a_gradient(name: str, count: int) -> None:
    given = model(name).train()
    given.zero_grad()
    terms, total = mmdet3.losses(given, batch())
    assert len(terms) == count
    assert {"enc_loss_cls", "loss_rpn_cls", "loss_cls0", "loss_centerness1", "d1.loss_iou_aux1"} <= set(terms)
    total.backward()
    trained = [(name, parameter) for name, parameter in given.named_parameters() if parameter.requires_grad]
    assert [name for name, parameter in trained if parameter.grad is None] == []
    assert torch.isfinite(total)


def test_without_objects_there_are_no_denoising_queries_but_a_gradient_of_their_classes() -> None:
    given = model(DINO).train()
    given.zero_grad()
    terms, total = mmdet3.losses(given, batch((0, 0)))
    assert float(terms["dn_loss_cls"]) == float(terms["dn_loss_bbox"]) == 0
    total.backward()
    assert given.query_head.dn_generator.label_embedding.weight.grad.abs().max() == 0


def test_layers_that_are_computed_again_change_no_gradient() -> None:
    given = dict(configs.load(DINO).model.query_head.transformer.encoder, type="ddq_port.DetrTransformerEncoder")
    tokens = flattened([torch.rand(1, 64, 2, 3)] * 5, [torch.zeros(1, 2, 3, dtype=torch.bool)] * 5)

    def gradient(layers: int) -> Tensor:
        torch.manual_seed(0)
        encoder = MODELS.build({**given, "with_cp": layers}).train()
        query = tokens.features.transpose(0, 1).clone().requires_grad_()
        encoder(
            query,
            query_pos=torch.ones(30, 1, 64),
            query_key_padding_mask=tokens.padding,
            spatial_shapes=tokens.shapes,
            reference_points=reference_points(tokens),
            level_start_index=tokens.starts,
        ).square().sum().backward()
        return query.grad

    assert gradient(0).abs().max() > 0
    assert torch.equal(gradient(0), gradient(2))


@pytest.mark.parametrize("module", ["two-stage", "one-stage"])
def test_other_heads_can_detect(module: str) -> None:
    given, wanted = model(DINO).eval(), mmdet3.predict(model(DINO).eval(), batch())
    given.eval_module = module
    try:
        found = mmdet3.predict(given, batch())
    finally:
        given.eval_module = "detr"
    assert all(0 < len(image["scores"]) <= 20 for image in found)
    assert not torch.equal(found[0]["bboxes"], wanted[0]["bboxes"])


def test_padding_that_counts_as_image_reaches_all_heads_and_not_the_callers_samples() -> None:
    images = batch()
    samples = mmdet3.data_samples(images, True)
    without_masks = built(DINO, with_attn_mask=False).eval()
    own, whole = mmdet3.predict(built(DINO).eval(), images), without_masks.predict(images.images, samples)
    assert [sample.img_shape for sample in samples] == [(32, 48), (24, 32)]
    assert torch.equal(own[0]["bboxes"], whole[0].pred_instances.bboxes)  # the larger image has no padding
    assert not torch.equal(own[1]["bboxes"], whole[1].pred_instances.bboxes)
    without_masks.train().loss(images.images, samples)
    assert [sample.img_shape for sample in samples] == [(32, 48), (24, 32)]
    as_public_port = built(DINO, with_attn_mask=False, padding_is_image=False).eval()
    assert torch.equal(mmdet3.predict(as_public_port, images)[1]["bboxes"], own[1]["bboxes"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(backbone=dict(_delete_=True, type="ViT")), "model.backbone is a ViT"),
        (dict(mask_head=dict(type="FCNMaskHead")), "model has a mask_head"),
        (dict(train_cfg=[None]), "train_cfg is for 1 heads; expected 3"),
        (dict(rpn_head=None), "only one of rpn_head and roi_head"),
        (dict(query_head=dict(transformer=dict(num_co_heads=1))), "num_co_heads is 1; expected 2"),
        (dict(eval_module="three-stage"), "expected one of detr, two-stage, one-stage"),
        (dict(query_head=dict(loss_cls=dict(use_sigmoid=False))), "expected use_sigmoid=True"),
        (dict(query_head=dict(positional_encoding=dict(num_feats=8))), "num_feats is 8; expected 32"),
        (dict(query_head=dict(dn_cfg=dict(group_cfg=dict(num_dn_queries=0)))), "num_dn_queries is 0; expected"),
        (dict(query_head=dict(transformer=dict(encoder=dict(with_cp=3)))), "with_cp is 3; expected at most"),
    ],
)
def test_what_is_not_supported_is_refused_in_one_line(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        built(DINO, **options)
    assert "\n" not in str(error.value)


def scores_and_boxes() -> tuple[Tensor, Tensor]:
    """Return logits [3, 1] and boxes [3, 4] of three queries, the best two of which overlap."""
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.42], [0.2, 0.2, 0.1, 0.1]])
    return torch.tensor([[2.0], [1.0], [-200.0]]), boxes


def found(config: dict, with_nms: bool = True) -> list[float]:
    config = dict(max_per_img=2, nms=dict(type="nms", iou_threshold=0.5)) | config
    result = detections(*scores_and_boxes(), META, config, num_query=3, rescale=True, with_nms=with_nms)
    return [round(score, 2) for score in result.scores.tolist()]


def test_duplicates_are_looked_for_among_all_queries_or_among_as_many_as_are_wanted() -> None:
    assert found(dict(keep_zero_scores=True)) == [0.88, 0.0]
    assert found(dict(keep_zero_scores=True, nms_candidates=2)) == [0.88]


def test_scores_of_zero_are_dropped_unless_they_are_to_be_kept() -> None:
    assert found({}) == [0.88]
    assert found(dict(score_thr=0.99)) == []
    assert found(dict(max_per_img=3), with_nms=False) == [0.88, 0.73]
    assert found(dict(max_per_img=3, keep_zero_scores=True), with_nms=False) == [0.88, 0.73, 0.0]


def test_boxes_are_in_pixels_of_the_original_image() -> None:
    config = dict(max_per_img=1)
    result = detections(*scores_and_boxes(), META, config, num_query=3, rescale=True, with_nms=False)
    assert result.bboxes.tolist()[0] == pytest.approx([60, 7.5, 140, 17.5])


def positives(labels: list[list[int]]) -> Positives:
    """Return boxes of which each has its number for its left side."""
    boxes = torch.arange(12.0).repeat(2, 1)[:, :, None] + torch.tensor([0.0, 0.0, 2.0, 2.0])
    return Positives(boxes, torch.tensor(labels), boxes, boxes.repeat(1, 1, 2))


def chosen(most: int, zero_padding: bool = False) -> Any:
    given = positives([[3, 0, 3, 1, *[3] * 8], [2] * 11 + [3]])
    return aux_queries(given, [], [META, META], num_classes=3, most=most, zero_padding=zero_padding, num_heads=2)


def lefts(boxes: Tensor) -> list[int]:
    """Return the numbers of boxes [n, 4]."""
    return (boxes[:, 0] * 100 - boxes[:, 2] * 50).round().int().tolist()


def test_an_image_gives_its_positives_and_then_background_or_some_of_its_positives_by_chance() -> None:
    torch.manual_seed(5)
    background = torch.tensor([0, 2, *range(4, 12)])[torch.randperm(10)[:8]].tolist()
    some = torch.randperm(11)[:10].tolist()
    torch.manual_seed(5)
    queries = chosen(10)
    assert [lefts(image) for image in queries.boxes] == [[1, 3, *background], some]
    assert queries.features[0, :, 0].tolist() == [1, 3, *background]
    assert queries.bbox_weights[..., 0].sum(1).tolist() == [2, 10]
    assert queries.label_weights.sum(1).tolist() == [10, 10]
    assert queries.attn_masks is None


def test_a_pass_has_a_smallest_length() -> None:
    assert chosen(4).boxes.shape == (2, FEWEST, 4)


def test_zeros_fill_up_instead_and_are_seen_by_nothing() -> None:
    queries = chosen(10, zero_padding=True)
    assert queries.boxes[0, 2:].abs().max() == 0
    assert queries.labels[0].tolist() == [0, 1, *[3] * 8]
    assert queries.label_weights.sum(1).tolist() == [2, 10]
    assert queries.attn_masks.shape == (4, 10, 10)  # two heads of each image
    assert (~queries.attn_masks).sum((1, 2)).tolist() == [4, 4, 100, 100]


def test_images_with_fewer_boxes_than_a_pass_wants_have_losses_of_zero() -> None:
    few = [rows[:, :5] for rows in positives([[0, *[3] * 11]] * 2)]
    head, x = model(DINO).query_head, [torch.rand(2, 64, 8, 8) for _ in range(6)]
    metas = [dict(img_shape=(50, 100), batch_input_shape=(50, 100))] * 2
    terms = head.loss_aux(x, Positives(*few[:3], [torch.rand(5, 64)] * 2), metas, 0)
    assert {float(value) for value in terms.values()} == {0.0}


def generator(label: float = 0.5, box: float = 1.0) -> CdnQueryGenerator:
    torch.manual_seed(0)
    return CdnQueryGenerator(3, 8, 4, dict(label=label, box=box), dict(dynamic=True, num_dn_queries=4))


def objects(counts: tuple[int, ...]) -> list[InstanceData]:
    box = torch.tensor([[40.0, 20.0, 60.0, 30.0]])
    return [InstanceData(bboxes=box.repeat(n, 1), labels=torch.full((n,), 1)) for n in counts]


def test_the_first_half_of_a_group_is_near_and_the_second_further_away() -> None:
    queries = generator(label=0, box=0.4).generate(objects((2, 1)), [META, META])
    assert (queries.num_groups, queries.length) == (2, 8)
    boxes = queries.boxes.sigmoid()[0].view(2, 2, 2, 4)  # groups, near and far, objects
    corners = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)
    moved = (corners - torch.tensor([0.4, 0.4, 0.6, 0.6])).abs() / 0.1  # in half sides
    assert moved[:, 0].max() < 0.401
    assert moved[:, 1].min() > 0.399
    padded = queries.labels[1].view(2, 2, 2, 8)
    assert padded[:, :, 1].abs().max() == 0  # the second image has one object less
    assert padded[:, :, 0].abs().min() > 0


def test_groups_do_not_see_each_other_and_matching_queries_see_none() -> None:
    mask = generator().generate(objects((1,)), [META]).attn_mask
    assert mask.shape == (12, 12)
    groups = torch.cat([torch.arange(4).repeat_interleave(2), torch.full((4,), -1)])
    expected = (groups[:, None] != groups[None]) & (groups[None] >= 0)
    assert torch.equal(mask, expected)


def test_without_noise_nothing_is_drawn() -> None:
    given = generator(label=0, box=0)
    before = torch.get_rng_state()
    queries = given.generate(objects((1,)), [META])
    assert torch.equal(torch.get_rng_state(), before)
    assert queries.boxes.sigmoid()[0, 0].tolist() == pytest.approx([0.5, 0.5, 0.2, 0.2])


def test_swin_is_mmdets_swin_under_other_names() -> None:
    torch.manual_seed(0)
    size = dict(depths=(2, 2), num_heads=(1, 2), out_indices=(0, 1), window_size=4, drop_path_rate=0.0)
    mine, theirs = SwinTransformerV1(embed_dim=8, **size), SwinTransformer(embed_dims=8, strides=(4, 2), **size)
    mine.eval()
    theirs.eval()
    for parameter in mine.parameters():
        nn.init.normal_(parameter, std=0.3)
    weights = swin_converter(mine.state_dict())
    theirs.load_state_dict({name.removeprefix("backbone."): value for name, value in weights.items()})
    image = torch.rand(2, 3, 50, 70)
    for one, other in zip(mine(image), theirs(image)):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_weights_of_another_swin_are_refused(tmp_path: Any) -> None:
    size = dict(depths=(1, 1), num_heads=(1, 2), out_indices=(1,), window_size=4)
    given = SwinTransformerV1(embed_dim=8, **size).state_dict()
    given["head.weight"] = torch.zeros(3, 16)
    path = tmp_path / "swin.pth"
    torch.save(dict(model=given), path)
    mine = SwinTransformerV1(embed_dim=8, **size, pretrained=str(path))
    mine.init_weights()
    assert torch.equal(mine.patch_embed.proj.weight, given["patch_embed.proj.weight"])
    with pytest.raises(ValueError, match="does not fit the SwinTransformerV1 .* first patch_embed.proj.weight"):
        SwinTransformerV1(embed_dim=16, **size, pretrained=str(path)).init_weights()


def test_a_branch_is_left_out_for_whole_images_and_the_others_are_larger_by_as_much() -> None:
    torch.manual_seed(0)
    branch = DropPath(0.25)
    kept = branch.train()(torch.ones(2000, 2))
    assert {round(value, 3) for value in kept.flatten().tolist()} == {0.0, 1.333}
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(branch.eval()(kept), kept)

"""Faults of the transformer, of its queries and of what they are to become."""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

from typing import Any

import torch
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import nn

from ddq_port.models.co_detr import decoders, denoising, dino_head, query_head, transformer
from tests.ddq_main.fault import Fault
from tests.ddq_main.planting import Plant, labels_exchanged, replacing, setting, with_arguments, with_result

#: Small models that faults are planted in.
DINO, DEFORMABLE, SWIN, JITTERED = "tiny_co_dino", "tiny_co_deformable", "tiny_co_dino_swin", "tiny_co_dino_lsj"
_HEAD, _TRANSFORMER, _DECODER = ("query_head",), ("query_head.transformer",), ("query_head.transformer.decoder",)
_AUX = ("query_head", "the detector")  # whose code makes the queries of further heads
_NOISE = ("query_head", "query_head.dn_generator")
_TESTED = "query_head.test_cfg"


def _dino(name: str, where: tuple[str, ...], plant: Plant) -> Fault:
    return Fault(name, DINO, where, plant)


def _exchanged_heads(right: Any) -> Any:
    return lambda *args: right(*args[:-1], 1 - args[-1])


def _rounded_later(objects: Any, meta: dict) -> Any:
    h, w = meta["img_shape"][:2]
    return bbox_xyxy_to_cxcywh(objects.bboxes / objects.bboxes.new_tensor([w, h, w, h])[None])


def _eps(value: float) -> Any:
    return lambda right: lambda x, *args, **kwargs: right(x, eps=value)


def _detached_boxes(model: nn.Module) -> None:
    right = model.query_head.predictions
    model.query_head.predictions = lambda states, references: right(states, [each.detach() for each in references])


FAULTS = (
    _dino("positions_temperature", ("query_head.positional_encoding",), setting("query_head.positional_encoding.temperature", 10000)),
    _dino("positions_offset", ("query_head.positional_encoding",), setting("query_head.positional_encoding.offset", -0.5)),
    _dino("encoder_norm_eps", ("query_head.transformer.encoder.layers.0.norms.0",),
          setting("query_head.transformer.encoder.layers.0.norms.0.eps", 1e-3)),
    _dino("decoder_norm_eps", ("query_head.transformer.decoder.norm",), setting("query_head.transformer.decoder.norm.eps", 1e-3)),
    _dino("level_embeds_exchanged", _TRANSFORMER,
          replacing(transformer, "encodings", with_arguments(lambda positions, levels: (positions, levels.flip(0))))),
    _dino("proposals_twice_as_large", _TRANSFORMER,
          replacing(transformer, "proposals", with_result(lambda found: (found[0] + 0.7, found[1])))),
    _dino("queries_in_another_order", _TRANSFORMER,
          replacing(transformer, "rows_of", with_arguments(lambda rows, index: (rows, index.roll(1, 1))))),
    _dino("decoder_boxes_eps", _DECODER, replacing(decoders, "inverse_sigmoid", _eps(1e-5))),
    _dino("head_boxes_eps", _HEAD, setting("query_head.reference_eps", 1e-5)),
    _dino("boxes_of_the_head_detached", (*_HEAD, *_DECODER, "query_head.reg_branches.0"), _detached_boxes),
    _dino("ratios_of_padding_left_out", _DECODER,
          replacing(decoders, "_in_levels", with_arguments(lambda boxes, ratios: (boxes, torch.ones_like(ratios))))),
    _dino("label_noise", _NOISE, setting("query_head.dn_generator.label_noise_scale", 0.25)),
    _dino("box_noise", _NOISE, setting("query_head.dn_generator.box_noise_scale", 0.4)),
    _dino("denoising_queries", _NOISE, setting("query_head.dn_generator.size", 20)),
    _dino("denoising_mask_left_out", (*_NOISE, *_TRANSFORMER),
          replacing(denoising.CdnQueryGenerator, "_mask", with_result(torch.zeros_like))),
    _dino("denoising_boxes_divided_first", _NOISE, lambda model: setattr(denoising, "_normalised", _rounded_later)),
    _dino("loss_of_overlap", ("query_head.loss_iou", "enc_loss_iou"), setting("query_head.loss_iou.loss_weight", 1.0)),
    _dino("quality_beta", ("query_head.loss_cls", "enc_loss_cls"), setting("query_head.loss_cls.beta", 1.0)),
    _dino("cost_of_boxes", ("query_head", "match"), setting("query_head.assigner.match_costs.1.weight", 2.0)),
    _dino("overlap_cost_iou", ("query_head", "match"), setting("query_head.assigner.match_costs.2.iou_mode", "iou")),
    _dino("height_and_width_exchanged", _HEAD,
          replacing(query_head, "scale", with_result(lambda factor: factor[:, [1, 0, 3, 2]]))),
    _dino("denoising_targets_exchanged", _HEAD,
          replacing(dino_head, "of_denoising", with_result(lambda found: found._replace(bboxes=found.bboxes.flip(0))))),
    _dino("further_queries", _AUX, setting("query_head.max_pos_coords", 20)),
    _dino("further_queries_weight", (*_AUX, "loss_cls_aux0"), setting("query_head.lambda_1", 2.0)),
    _dino("further_queries_zero_padding", _AUX, setting("query_head.use_zero_padding", True)),
    _dino("further_heads_exchanged", (*_TRANSFORMER, *_AUX, "query_head.transformer.aux_pos_trans.0"),
          replacing(transformer.CoDinoTransformer, "forward_aux", _exchanged_heads)),
    _dino("soft_nms_threshold", _AUX, setting(f"{_TESTED}.nms.iou_threshold", 0.5)),
    _dino("nms_in_place_of_soft_nms", _AUX, setting(f"{_TESTED}.nms.type", "nms")),
    _dino("candidates_of_nms_cut_first", _AUX, setting(f"{_TESTED}.nms_candidates", 20)),
    _dino("score_threshold", _AUX, setting(f"{_TESTED}.score_thr", 0.2)),
    _dino("fewer_detections", _AUX, setting(f"{_TESTED}.max_per_img", 19)),
    _dino("labels_exchanged", _AUX, replacing(query_head, "detections", with_result(labels_exchanged))),
    Fault("padding_is_no_image", JITTERED, (*_AUX, "query_head.positional_encoding"), setting("counts_padding", False)),
    Fault("look_forward_once", DEFORMABLE, (*_DECODER, *_HEAD, "query_head.reg_branches.0"),
          setting("query_head.transformer.decoder.look_forward_twice", False)),
    Fault("features_of_further_queries_left_out", DEFORMABLE, _TRANSFORMER,
          setting("query_head.transformer.with_coord_feat", False)),
    Fault("head_boxes_eps_of_deformable", DEFORMABLE, _HEAD, setting("query_head.reference_eps", 1e-3)),
    Fault("zero_scores_kept", DEFORMABLE, _AUX, setting(f"{_TESTED}.keep_zero_scores", True)),
)  # fmt: skip

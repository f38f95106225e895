"""Harmless rewrites of code between modules: forms of arguments, containers, methods, masks, views, caches, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ddq_port.models.ddq_detr import decoder, detector, head
from ddq_port.models.ddq_detr.aux_loss import DenseTargets

from .fault import TRAINING, Rewrite
from .ground import STEPS
from .planting import around, calling, output, patching, replaced, result, setting
from .rewrites_leaves import subclass

_AUX = "bbox_head.aux_loss_for_dense"


def _positional_encoder(self: Any, query: Tensor, query_pos: Tensor, key_padding_mask: Tensor, spatial_shapes: Tensor,
                        level_start_index: Tensor, valid_ratios: Tensor, **kwargs: Any) -> Tensor:  # fmt: skip
    points = self.get_encoder_reference_points(spatial_shapes, valid_ratios, query.device)
    for layer in self.layers:
        query = layer(query, query_pos, key_padding_mask, spatial_shapes=spatial_shapes, reference_points=points,
                      level_start_index=level_start_index, valid_ratios=valid_ratios)  # fmt: skip
    return query


def _positional_encoder_layer(self: Any, query: Tensor, query_pos: Tensor, key_padding_mask: Tensor,
                              **kwargs: Any) -> Tensor:  # fmt: skip
    query = self.self_attn(query, query, query, None, query_pos, key_padding_mask, key_pos=query_pos, **kwargs)
    return self.norms[1](self.ffn(self.norms[0](query)))


def _positional_decoder_layer(self: Any, query: Tensor, key: Tensor = None, value: Tensor = None,
                              query_pos: Tensor = None, key_pos: Tensor = None, self_attn_mask: Tensor = None,
                              cross_attn_mask: Tensor = None, key_padding_mask: Tensor = None,
                              **kwargs: Any) -> Tensor:  # fmt: skip
    query = self.self_attn(query, query, query, None, query_pos, query_pos, self_attn_mask, **kwargs)
    query = self.norms[0](query)
    query = self.cross_attn(query, key, value, query_pos=query_pos, key_pos=key_pos, attn_mask=cross_attn_mask,
                            key_padding_mask=key_padding_mask, **kwargs)  # fmt: skip
    query = self.norms[1](query)
    return self.norms[2](self.ffn(query))


def _positional_call_of_decoder(model: nn.Module) -> None:
    def forward_decoder(right: Callable, query: Tensor, memory: Tensor, memory_mask: Tensor | None,
                        reference_points: Tensor, spatial_shapes: Tensor, level_start_index: Tensor,
                        valid_ratios: Tensor, dn_mask: Tensor, query_layout: Any) -> dict:  # fmt: skip
        branches = model.bbox_head
        states, references, masks = model.decoder(
            query, memory, memory_mask, dn_mask, reference_points, spatial_shapes, level_start_index, valid_ratios,
            branches.cls_branches, branches.reg_branches, branches.aux_reg_branches, query_layout,
        )  # fmt: skip
        return dict(hidden_states=states, references=list(references), active_masks=masks, query_layout=query_layout)

    around("", "forward_decoder", forward_decoder)(model)


def _named_encoding(right: Callable, feats: tuple, samples: list) -> Any:
    """Call the encoding by the names of its arguments."""
    model = right.__self__
    encode = model.positional_encoding
    model.__dict__["positional_encoding"] = lambda mask, input=None: encode(mask=mask, input=input)
    try:
        return right(feats, samples)
    finally:
        del model.__dict__["positional_encoding"]


class _Renaming:
    """Calls a module by the names of its arguments, or by their places."""

    def __init__(self, module: Any, names: tuple[str, ...] = ()) -> None:
        self.module, self.names = module, names

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(**dict(zip(self.names, args)), **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def _losses_by_name(model: nn.Module) -> None:
    names = ("pred", "target", "weight", "avg_factor")
    for name in ("loss_cls", "loss_bbox", "loss_iou"):
        model.bbox_head.__dict__[name] = _Renaming(model.bbox_head._modules[name], names)


def _whole_number(right: Callable, bboxes: Tensor, target: DenseTargets, num_classes: int) -> Any:
    loss = right.__self__
    given, loss.__dict__["loss_bbox"] = loss.loss_bbox, lambda *args, **kw: given(*args, **{**kw, "avg_factor": 1})
    try:
        return right(bboxes, target, num_classes)
    finally:
        del loss.__dict__["loss_bbox"]


def _number_for_tensor(model: nn.Module) -> None:
    loss = model.bbox_head._modules["loss_cls"]

    def call(pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Any) -> Tensor:
        return loss(pred, target, weight, avg_factor=float(avg_factor))

    call.use_sigmoid = True
    model.bbox_head.__dict__["loss_cls"] = call


def _methods_merged(right: Callable, feats: tuple, samples: Any = None) -> dict:
    """All that ``forward_transformer`` does, in one method."""
    model = right.__self__
    encoder_inputs, decoder_inputs = model.pre_transformer(feats, samples)
    memory = model.encoder(
        query=encoder_inputs["feat"], query_pos=encoder_inputs["feat_pos"],
        key_padding_mask=encoder_inputs["feat_mask"], spatial_shapes=encoder_inputs["spatial_shapes"],
        level_start_index=encoder_inputs["level_start_index"], valid_ratios=encoder_inputs["valid_ratios"],
    )  # fmt: skip
    made, head_inputs = model.pre_decoder(
        memory, encoder_inputs["feat_mask"], encoder_inputs["spatial_shapes"], samples
    )
    return {**head_inputs, **model.forward_decoder(**{**decoder_inputs, **made})}


def _method_split(right: Callable, images: Tensor) -> Any:
    """``extract_feat`` in two methods of other names."""
    model = right.__self__

    def features_of_stages(x: Tensor) -> Any:
        return model.backbone(x)

    def mapped_to_width(stages: Any) -> Any:
        return model.neck(stages)

    return mapped_to_width(features_of_stages(images))


def _predict_split(right: Callable, hidden_states: Tensor, references: Any, active_masks: list, query_layout: Any,
                   batch_data_samples: list, rescale: bool = True) -> list[InstanceData]:  # fmt: skip
    """``predict`` with a method per image, and no call of ``forward`` of its own but the module's."""
    module = right.__self__

    def of_image(index: int) -> InstanceData:
        mask = active_masks[-1][index].nonzero().squeeze(1)
        return head.detections(
            logits[-1, index].index_select(0, mask), boxes[-1, index].index_select(0, mask),
            batch_data_samples[index].metainfo, module.test_cfg.get("max_per_img"), rescale,
        )  # fmt: skip

    logits, boxes = module(hidden_states, references, query_layout)
    return [of_image(index) for index in range(len(batch_data_samples))]


def _cached_points(model: nn.Module) -> None:
    """Keep the reference points with all that they depend on."""
    known: dict[Any, Tensor] = {}

    def points(right: Callable, shapes: Tensor, ratios: Tensor, device: Any) -> Tensor:
        key = (str(shapes.tolist()), str(ratios.tolist()), ratios.dtype)
        if key not in known:
            known[key] = right(shapes, ratios, device)
        return known[key]

    around("encoder", "get_encoder_reference_points", points)(model)


def _cached_encoding(model: nn.Module) -> None:
    """Keep encodings with the mask they belong to."""
    known: list[tuple[Any, Tensor]] = []

    def forward(right: Callable, mask: Tensor | None, input: Tensor | None = None) -> Tensor:
        if mask is None:
            return right(mask, input)
        for other, encoded in known:
            if torch.equal(other, mask):
                return encoded
        known.append((mask.clone(), right(mask, input)))
        return known[-1][1]

    around("positional_encoding", "forward", forward)(model)


def _points_by_arange(right: Callable, shapes: Tensor, ratios: Tensor, device: Any) -> Tensor:
    """Count cells instead of spacing them evenly; whole numbers and a half are exact."""
    points = []
    for level, (height, width) in enumerate(shapes.tolist()):
        y = torch.arange(height, dtype=torch.float32).add(0.5).repeat_interleave(width)
        x = torch.arange(width, dtype=torch.float32).add(0.5).repeat(height)
        x = x[None] / (ratios[:, level, :1] * width)
        y = y[None] / (ratios[:, level, 1:] * height)
        points.append(torch.stack((x, y), -1))
    return torch.cat(points, 1)[:, :, None] * ratios[:, None]


def _unused_work(right: Callable, memory: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Compute statistics for a log that nobody reads."""
    with torch.no_grad():
        statistics = dict(mean=memory.mean(), norm=memory.norm(dim=-1).amax(), finite=memory.isfinite().all())
    return right(memory, *args, **kwargs) if statistics else None


def _checked_for_nan(right: Callable, *args: Any, **kwargs: Any) -> Any:
    terms = right(*args, **kwargs)
    for name, value in terms.items():
        values = value if isinstance(value, list) else [value]
        if not all(bool(torch.isfinite(one.detach()).all()) for one in values):
            raise FloatingPointError(name)
    return terms


def _view_by_view(x: Tensor) -> Tensor:
    return x.transpose(1, 2).clone(memory_format=torch.contiguous_format).permute(0, 2, 1).contiguous()


def _mapped_by_gather(right: Callable, memory: Tensor, logits: Tensor, coords: Tensor, dense_logits: Any) -> tuple:
    """Pick rows by ``index_select`` instead of indexing."""
    model = right.__self__

    class Mapped:
        def __init__(self, rows: Tensor) -> None:
            self.rows = rows

        def __getitem__(self, inds: Tensor) -> Tensor:
            return self.rows.index_select(0, inds)

    mapping = model.query_map
    model.__dict__["query_map"] = lambda x: Mapped(mapping(x))
    try:
        return right(memory, logits, coords, dense_logits)
    finally:
        del model.__dict__["query_map"]


def _padded_by_copy(right: Callable, items: list[Tensor], length: int) -> Tensor:
    padded = items[0].new_zeros(len(items), length, *items[0].shape[1:])
    for index, item in enumerate(items):
        padded[index, : len(item)] = item
    return padded


def _padded_by_cat(right: Callable, items: list[Tensor], length: int) -> Tensor:
    return torch.cat([torch.cat([x, x.new_zeros(length - len(x), x.size(1))])[None] for x in items])


def _block_by_de_morgan(right: Callable, survivors: Tensor) -> Tensor:
    dropped = torch.logical_not(survivors)
    return torch.logical_and(dropped.unsqueeze(2), dropped.unsqueeze(1))


def _block_by_numbers(right: Callable, survivors: Tensor) -> Tensor:
    number = survivors.int()
    return (number[:, :, None] + number[:, None, :]).eq(0)


def _where_for_fill(right: Callable, *args: Any) -> Any:
    def masked_fill(x: Tensor, mask: Tensor, value: float) -> Tensor:
        return torch.where(mask, x.new_tensor(value), x)

    with replaced(Tensor, "masked_fill", masked_fill):
        return right(*args)


def _dense_block_padded(right: Callable, mask: Tensor, num_dense: int) -> Tensor:
    extended = F.pad(mask, (0, num_dense, 0, num_dense), value=True)
    extended[len(mask) :, len(mask) :] = False
    return extended


def _float_mask(model: nn.Module) -> None:
    """Give the attention function a mask of zeros and minus infinity, as it makes it of booleans itself."""

    def attend(right: Callable, *args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get("attn_mask")
        if mask is not None and mask.dtype == torch.bool:
            kwargs["attn_mask"] = torch.zeros_like(mask, dtype=args[0].dtype).masked_fill_(mask, float("-inf"))
        return right(*args, **kwargs)

    patching(F, "multi_head_attention_forward", lambda right, *a, **k: calling(right, attend)(*a, **k))(model)


def _quality_at_once(right: Callable, scores: Tensor, bboxes: Tensor, gt: Any, meta: dict) -> DenseTargets:
    """Find the best of each object by a scatter instead of a loop."""
    loss = right.__self__
    count, classes = scores.shape
    labels = scores.new_full((count,), classes).long()
    boxes, quality = torch.zeros_like(bboxes), bboxes.new_zeros(count)
    if not len(gt.labels):
        return DenseTargets(labels, bboxes.new_zeros(count), boxes, quality)
    with torch.no_grad():
        assigned = loss.assigner.assign(scores, bboxes, gt, meta)
        objects, rows = assigned.gt_inds, assigned.query_inds
        best = scores.new_full((len(gt.labels),), -1.0)
        most = best.scatter_reduce(0, objects, assigned.alignments, "amax")[objects]
        overlap = best.scatter_reduce(0, objects, assigned.ious, "amax")[objects]
        labels[rows], boxes[rows] = gt.labels[objects], gt.bboxes[objects].to(boxes)
        quality[rows] = assigned.alignments / (most + 10e-8) * overlap
    return DenseTargets(labels, bboxes.new_ones(count), boxes, quality)


def _under_no_grad(right: Callable, *args: Any, **kwargs: Any) -> Any:
    with torch.no_grad():
        return right(*args, **kwargs)


def _inference_alone(right: Callable, *args: Any, **kwargs: Any) -> Any:
    with torch.set_grad_enabled(False):
        return right(*args, **kwargs)


def _by_type_name(right: Callable, boxes: Tensor, scores: Tensor, *rest: Any) -> Tensor:
    return right(boxes.type("torch.FloatTensor"), scores.type("torch.FloatTensor"), *rest)


def _states_by_type_name(inputs: dict) -> dict:
    return {**inputs, "hidden_states": inputs["hidden_states"].type("torch.FloatTensor")}


def _memory_by_dtype(outputs: dict) -> dict:
    return {**outputs, "memory": outputs["memory"].to(dtype=torch.float32)}


def _images_by_method(right: Callable, images: Tensor) -> Any:
    return right(images.float())


def _as_list(levels: Any) -> list:
    return list(levels)


def _gradients_set_to_zero(made: Any) -> None:
    """Clear gradients by zeros instead of removing them."""
    made.wrapper.zero_grad = lambda **kwargs: made.optimizer.zero_grad(set_to_none=False)


def _betas_as_list(made: Any) -> None:
    for group in made.optimizer.param_groups:
        group["betas"] = list(group["betas"])


def _one_by_one(made: Any) -> None:
    """Update the parameters one by one, as torch does of itself on the CPU."""
    for group in made.optimizer.param_groups:
        group["foreach"] = False


REWRITES = (
    Rewrite("encoder_layers_by_place", "arguments by place", "encoder",
            subclass("encoder", forward=_positional_encoder)),
    Rewrite("attention_by_place_in_encoder", "arguments by place", "encoder.layers.1",
            subclass("encoder.layers.1", forward=_positional_encoder_layer)),
    Rewrite("attention_by_place_in_decoder", "arguments by place", "decoder.layers.0",
            subclass("decoder.layers.0", forward=_positional_decoder_layer)),
    Rewrite("decoder_by_place", "arguments by place", "the detector", _positional_call_of_decoder),
    Rewrite("encoding_by_name", "arguments by name", "the detector", around("", "pre_transformer", _named_encoding)),
    Rewrite("losses_by_name", "arguments by name", "bbox_head", _losses_by_name),
    Rewrite("whole_number_in_dense_loss", "1 for 1.0", _AUX, around(_AUX, "_bbox_loss", _whole_number)),
    Rewrite("whole_loss_weight", "1 for 1.0", "bbox_head.loss_cls", setting("bbox_head.loss_cls", loss_weight=1)),
    Rewrite("number_for_tensor", "1 for 1.0", "bbox_head", _number_for_tensor),
    Rewrite("forward_merged", "methods merged", "the detector", around("", "forward_transformer", _methods_merged)),
    Rewrite("features_split", "methods split", "the detector", around("", "extract_feat", _method_split)),
    Rewrite("predict_split", "methods split", "bbox_head", around("bbox_head", "predict", _predict_split)),
    Rewrite("points_cached", "cache that is right", "encoder", _cached_points, setting="batch"),
    Rewrite("encoding_cached", "cache that is right", "positional_encoding", _cached_encoding, setting="batch"),
    Rewrite("points_by_arange", "other way to count", "encoder",
            around("encoder", "get_encoder_reference_points", _points_by_arange)),
    Rewrite("unused_statistics", "work for nothing", "the detector", around("", "pre_decoder", _unused_work)),
    Rewrite("losses_checked", "work for nothing", "bbox_head", around("bbox_head", "loss", _checked_for_nan)),
    Rewrite("memory_laid_out_anew", "views and copies", "the detector",
            result("", "forward_encoder", lambda out: {**out, "memory": _view_by_view(out["memory"])})),
    Rewrite("states_copied", "views and copies", "the detector",
            result("", "forward_transformer", lambda out: {**out, "hidden_states": out["hidden_states"].clone()})),
    Rewrite("logits_flattened_and_back", "views and copies", "bbox_head",
            result("bbox_head", "forward", lambda out: tuple(x.flatten(0, 1).reshape(x.shape) for x in out))),
    Rewrite("rows_by_index_select", "other indexing", "the detector", around("", "_select_tokens", _mapped_by_gather)),
    Rewrite("padded_by_copy", "other padding", "pad_to", patching(detector, "pad_to", _padded_by_copy), setting="few"),
    Rewrite("padded_by_cat", "other padding", "pad_to", patching(detector, "pad_to", _padded_by_cat), setting="few"),
    Rewrite("block_by_de_morgan", "masks in another way", "attention_block",
            patching(decoder, "attention_block", _block_by_de_morgan)),
    Rewrite("block_by_numbers", "masks in another way", "attention_block",
            patching(decoder, "attention_block", _block_by_numbers)),
    Rewrite("where_for_masked_fill", "masks in another way", "the detector",
            around("", "gen_encoder_output_proposals", _where_for_fill)),
    Rewrite("dense_block_padded", "masks in another way", "the detector",
            patching(detector, "_with_dense_block", _dense_block_padded)),
    Rewrite("mask_of_numbers", "numbers for booleans", "decoder", _float_mask),
    Rewrite("quality_at_once", "loop or vector", _AUX, around(_AUX, "targets", _quality_at_once)),
    Rewrite("no_grad_around_selection", "no_grad where nothing is learnt", "decoder",
            around("decoder", "_select", _under_no_grad)),
    Rewrite("no_grad_around_predict", "no_grad where nothing is learnt", "the detector",
            around("", "predict", _inference_alone)),
    Rewrite("selection_cast_by_type_name", "cast by type name", "the detector",
            patching(detector, "select_distinct", _by_type_name)),
    Rewrite("states_cast_by_type_name", "cast by type name", "the detector",
            result("", "forward_transformer", _states_by_type_name)),
    Rewrite("memory_cast", "cast by type name", "the detector", result("", "forward_encoder", _memory_by_dtype)),
    Rewrite("images_cast", "cast by type name", "the detector", around("", "extract_feat", _images_by_method)),
    Rewrite("neck_gives_a_list", "list for tuple", "neck", output("neck", _as_list)),
    Rewrite("backbone_gives_a_list", "list for tuple", "backbone", output("backbone", _as_list)),
    Rewrite("references_as_tensor", "list for tuple", "the detector", result("", "forward_decoder",
            lambda out: {**out, "references": torch.stack(list(out["references"]))})),
    Rewrite("masks_as_tuple", "list for tuple", "the detector", result("", "forward_decoder",
            lambda out: {**out, "active_masks": tuple(out["active_masks"])})),
    Rewrite("gradients_set_to_zero", "other form of an option", "the optimizer wrapper", _gradients_set_to_zero,
            place=TRAINING, setting=STEPS),
    Rewrite("betas_as_list", "other form of an option", "the optimizer", _betas_as_list, place=TRAINING,
            setting=STEPS),
    Rewrite("updated_one_by_one", "other form of an option", "the optimizer", _one_by_one, place=TRAINING,
            setting=STEPS),
)  # fmt: skip

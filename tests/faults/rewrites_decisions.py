"""Harmless rewrites of decisions and of the order in which independent work is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from torch import Tensor

from ddq_port.models.ddq_detr import decoder, detector, head, queries
from ddq_port.models.ddq_detr.aux_loss import DenseTargets
from ddq_port.models.ddq_detr.decoder import DDQTransformerDecoder
from ddq_port.models.ddq_detr.head import DDQDETRHead
from ddq_port.models.ddq_detr.queries import QueryLayout

from .fault import Rewrite
from .planting import Apply, Change, around, patching, replaced

_AUX = "bbox_head.aux_loss_for_dense"


def _with_topk(topk: Callable[[Tensor, int], tuple[Tensor, Tensor]]) -> Apply:
    """Take the best detections in another way."""

    def detections(right: Callable, logits: Tensor, boxes: Tensor, meta: dict, limit: int | None,
                   rescale: bool) -> InstanceData:  # fmt: skip
        number = logits.size(-1)
        scores = logits.sigmoid().view(-1)
        scores, pair = topk(scores, min(len(logits) if limit is None else limit, len(scores)))
        height, width = meta["img_shape"][:2]
        found = bbox_cxcywh_to_xyxy(boxes[pair // number]) * boxes.new_tensor([[width, height, width, height]])
        found[:, 0::2] = found[:, 0::2].clamp(0, width)
        found[:, 1::2] = found[:, 1::2].clamp(0, height)
        if rescale:
            found = found / found.new_tensor(meta["scale_factor"]).repeat((1, 2))
        return InstanceData(bboxes=found, scores=scores, labels=pair % number)

    return patching(head, "detections", detections)


def _by_sort(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    ordered, places = scores.sort(descending=True)
    return ordered[:number], places[:number]


def _by_torch_sort(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    ordered, places = torch.sort(scores, dim=0, descending=True)
    return ordered[:number], places[:number]


def _by_longer_topk(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    values, places = scores.topk(min(number + 3, len(scores)))
    return values[:number], places[:number]


def _by_argsort(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    places = scores.argsort(descending=True)[:number]
    return scores[places], places


def _dense(select: Callable[[Tensor, int], Tensor]) -> Apply:
    """Select dense queries in another way, outside the graph as before."""

    def changed(right: Callable, scores: Tensor, max_num: int) -> Tensor:
        with torch.no_grad():
            return select(scores, max_num)

    return patching(detector, "select_dense", changed)


def _select_backwards(self: DDQTransformerDecoder, query: Tensor, boxes: Tensor, cls_branch: Any, candidates: Tensor,
                      layout: QueryLayout) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Handle the images of a batch from the last to the first."""
    with torch.no_grad():
        scores = cls_branch(layout.matching(query)).sigmoid().max(-1).values
        boxes = layout.matching(boxes)
        survivors, active = torch.empty_like(candidates), torch.empty_like(candidates)
        for i in reversed(range(len(query))):
            survivors[i], active[i] = decoder.still_distinct(boxes[i], scores[i], candidates[i], self.selection)
    return survivors, active


def _method(path: str, name: str, function: Callable[..., Any]) -> Apply:
    """Put ``function(self, ...)`` in place of a method."""
    return around(path, name, lambda right, *args, **kwargs: function(right.__self__, *args, **kwargs))


def _predict_backwards(right: Callable, *args: Any, **kwargs: Any) -> list[InstanceData]:
    """Make the detections of the last image first."""
    inputs: list[tuple] = []
    make = head.detections
    with replaced(head, "detections", lambda *arguments: inputs.append(arguments)):
        right(*args, **kwargs)
    return [make(*arguments) for arguments in inputs[::-1]][::-1]


def _targets_backwards(right: Callable, logits: list, boxes: list, gts: list, metas: list) -> tuple:
    *lists, positive, negative = right(logits[::-1], boxes[::-1], gts[::-1], metas[::-1])
    return (*(one[::-1] for one in lists), positive, negative)


def _dense_targets_first(self: Any, scores: Tensor, bboxes: Tensor, gts: list, metas: list) -> dict:
    """Assign the last image first; the losses of each image follow as before."""
    made: dict[int, DenseTargets] = {}
    for i in reversed(range(len(scores))):
        made[i] = self.targets(scores[i], bboxes[i], gts[i], metas[i])
    with replaced(self, "targets", lambda score, *rest: made.pop(min(made))):
        return type(self)._loss(self, scores, bboxes, gts, metas)


def _selected_first(right: Callable, memory: Tensor, logits: Tensor, coords: Tensor, dense_logits: Any) -> tuple:
    """Select for all images before anything is mapped."""
    model = right.__self__
    boxes = coords.detach().sigmoid()
    scores = logits.detach().max(-1).values.sigmoid()
    threshold, count = model.selection.iou_threshold, model.num_queries
    distinct = [detector.select_distinct(boxes[i], scores[i], threshold, count) for i in range(len(memory))]
    dense: list[Tensor] = []
    if dense_logits is not None:
        dense_scores = dense_logits.detach().max(-1).values.sigmoid()
        dense = [detector.select_dense(one, int(count * model.dense_topk_ratio)) for one in dense_scores]
    mapped = [model.query_map(one.detach()) for one in memory]
    content = [x[inds] for x, inds in zip(mapped, distinct)]
    return distinct, dense, content, [x[inds] for x, inds in zip(mapped, dense)]


def _selected_from_last(right: Callable, memory: Tensor, logits: Tensor, coords: Tensor, dense_logits: Any) -> tuple:
    """As :func:`_selected_first`, the last image first."""
    model, select = right.__self__, detector.select_distinct
    boxes, scores = coords.detach().sigmoid(), logits.detach().max(-1).values.sigmoid()
    threshold, count = model.selection.iou_threshold, model.num_queries
    distinct = [select(boxes[i], scores[i], threshold, count) for i in reversed(range(len(memory)))][::-1]
    made = iter(distinct)
    with replaced(detector, "select_distinct", lambda *args: next(made)):
        return right(memory, logits, coords, dense_logits)


def _head_from_last_layer(self: DDQDETRHead, hidden_states: Tensor, references: Any, query_layout: QueryLayout) -> Any:
    """Predict from the last layer first, boxes before classes."""
    logits, boxes = {}, {}
    for lid in reversed(range(len(hidden_states))):
        hidden, anchor = hidden_states[lid], head.inverse_sigmoid(references[lid])
        parts = [(hidden, self.cls_branches[lid], self.reg_branches[lid])]
        if query_layout.num_dense:
            sparse, dense = hidden.split([query_layout.num_sparse, query_layout.num_dense], 1)
            parts = [
                (sparse, self.cls_branches[lid], self.reg_branches[lid]),
                (dense, self.aux_cls_branches[lid], self.aux_reg_branches[lid]),
            ]
        deltas = [reg(x) for x, _, reg in parts]
        boxes[lid] = (torch.cat(deltas, 1) + anchor).sigmoid()
        logits[lid] = torch.cat([cls(x) for x, cls, _ in parts], 1)
    order = range(len(hidden_states))
    return torch.stack([logits[i] for i in order]), torch.stack([boxes[i] for i in order])


def _losses_in_other_order(self: DDQDETRHead, hidden_states: Tensor, references: list, active_masks: list,
                           query_layout: QueryLayout, enc_outputs_class: Tensor, enc_outputs_coord: Tensor,
                           aux_enc_outputs_class: Tensor, aux_enc_outputs_coord: Tensor, batch_data_samples: list,
                           dn_meta: dict) -> dict:  # fmt: skip
    """Compute the terms of denoising first and those of the encoder last; name and sum them as ever."""
    gts = [sample.gt_instances for sample in batch_data_samples]
    metas = [sample.metainfo for sample in batch_data_samples]
    logits, boxes = self(hidden_states, references, query_layout)
    start, stop = query_layout.num_denoising, query_layout.num_sparse
    denoising = head.layer_losses(
        "dn_", zip(*self.loss_dn(logits[:, :, :start], boxes[:, :, :start], gts, metas, dn_meta))
    )
    matching = self._matching_losses(logits[:, :, start:stop], boxes[:, :, start:stop], active_masks, gts, metas)
    dense = {}
    for lid in range(len(logits)):
        terms = self._dense_losses(logits[lid, :, stop:], boxes[lid, :, stop:], gts, metas)
        dense |= {f"{lid}_aux_{name}": value for name, value in terms.items()}
    aux = self._dense_losses(aux_enc_outputs_class, aux_enc_outputs_coord, gts, metas)
    encoder = head.named("enc_", self.loss_by_feat_single(enc_outputs_class, enc_outputs_coord, gts, metas))
    return {**matching, **encoder, **denoising, **dense, **{f"aux_enc_{name}": value for name, value in aux.items()}}


def _dense_before_sparse(right: Callable, query: Tensor, branch: Any, aux_branch: Any, layout: QueryLayout) -> Tensor:
    """Refine dense queries before the others."""
    if layout.num_dense == 0:
        return branch(query)
    dense = aux_branch(query[:, layout.num_sparse :])
    return torch.cat([branch(query[:, : layout.num_sparse]), dense], dim=1)


def _encoded_from_coarse_to_fine(right: Callable, feats: tuple, samples: list) -> Any:
    """Encode the positions of the coarsest level first."""
    model = right.__self__
    encode, calls = model.positional_encoding, []

    def note(*args: Any, **kwargs: Any) -> Tensor:
        calls.append((args, kwargs))
        shape = args[0].shape if args[0] is not None else kwargs["input"][:, 0].shape
        return torch.zeros(shape[0], model.embed_dims, *shape[1:])

    model.__dict__["positional_encoding"] = note
    try:
        right(feats, samples)
        made = [encode(*args, **kwargs) for args, kwargs in reversed(calls)]
        model.__dict__["positional_encoding"] = lambda *args, **kwargs: made.pop()
        return right(feats, samples)
    finally:
        del model.__dict__["positional_encoding"]


def _survivors_scattered(right: Callable, boxes: Tensor, scores: Tensor, candidates: Tensor, selection: Any) -> tuple:
    inds = candidates.nonzero().squeeze(1)
    kept = queries.select_distinct(boxes[inds], scores[inds], selection.iou_threshold, len(inds))
    survivors = candidates.new_zeros(candidates.shape).index_fill_(0, inds.index_select(0, kept), True)
    return survivors, torch.logical_or(survivors, survivors[:1])


def _with_draws(uniform: Callable[[Tensor], Tensor], whole: Callable[[Tensor, int, int], Tensor]) -> Change:
    """Draw the noise by other functions, which take the same numbers from the generator."""

    def whole_like(like: Tensor, low: int = 0, high: int = 0, dtype: torch.dtype | None = None) -> Tensor:
        return whole(like, low, high).to(dtype or like.dtype)

    def changed(right: Callable, *args: Any, **kwargs: Any) -> Any:
        with replaced(torch, "rand_like", uniform), replaced(torch, "randint_like", whole_like):
            return right(*args, **kwargs)

    return changed


_BY_SIZE = _with_draws(lambda like: torch.rand(like.shape), lambda like, *bounds: torch.randint(*bounds, like.shape))
_IN_PLACE = _with_draws(
    lambda like: like.new_empty(like.shape).uniform_(), lambda like, *bounds: torch.empty_like(like).random_(*bounds)
)

REWRITES = (
    Rewrite("noise_by_size", "other function for a draw", "dn_query_generator",
            around("dn_query_generator", "generate_dn_bbox_query", _BY_SIZE)),
    Rewrite("label_noise_by_size", "other function for a draw", "dn_query_generator",
            around("dn_query_generator", "generate_dn_label_query", _BY_SIZE)),
    Rewrite("noise_in_place", "other function for a draw", "dn_query_generator",
            around("dn_query_generator", "generate_dn_bbox_query", _IN_PLACE)),
    Rewrite("detections_by_torch_topk", "other function for a top-k", "detections", _with_topk(lambda *args: torch.topk(*args))),
    Rewrite("detections_by_sort", "other function for a top-k", "detections", _with_topk(_by_sort)),
    Rewrite("detections_by_torch_sort", "other function for a top-k", "detections", _with_topk(_by_torch_sort)),
    Rewrite("detections_by_longer_topk", "longer list of a top-k", "detections", _with_topk(_by_longer_topk)),
    Rewrite("detections_by_argsort", "other function for a top-k", "detections", _with_topk(_by_argsort)),
    Rewrite("dense_by_argsort", "other function for a sort", "select_dense",
            _dense(lambda scores, number: scores.argsort(descending=True)[:number])),
    # no top-k here: masked tokens have one and the same score, and it puts them in another order
    Rewrite("dense_by_torch_sort", "other function for a sort", "select_dense",
            _dense(lambda scores, number: torch.sort(scores, dim=0, descending=True)[1].narrow(
                0, 0, min(number, len(scores))))),
    Rewrite("dense_by_torch_argsort", "other function for a sort", "select_dense",
            _dense(lambda scores, number: torch.argsort(scores[None], dim=-1, descending=True)[0, :number])),
    Rewrite("selection_from_last_image", "images in another order", "decoder",
            _method("decoder", "_select", _select_backwards), setting="batch"),
    Rewrite("detections_from_last_image", "images in another order", "bbox_head.predict",
            around("bbox_head", "predict", _predict_backwards), setting="batch"),
    Rewrite("matched_from_last_image", "images in another order", "bbox_head.get_targets",
            around("bbox_head", "get_targets", _targets_backwards), setting="batch"),
    Rewrite("dense_matched_from_last_image", "images in another order", _AUX,
            _method(_AUX, "_loss", _dense_targets_first), setting="batch"),
    Rewrite("tokens_from_last_image", "images in another order, before", "the detector",
            around("", "_select_tokens", _selected_from_last), setting="batch"),
    Rewrite("selected_before_mapped", "work in another order", "the detector",
            around("", "_select_tokens", _selected_first), setting="batch"),
    Rewrite("head_from_last_layer", "work in another order", "bbox_head",
            _method("bbox_head", "forward", _head_from_last_layer)),
    Rewrite("losses_in_other_order", "work in another order", "bbox_head.loss",
            _method("bbox_head", "loss", _losses_in_other_order)),
    Rewrite("dense_refined_first", "work in another order", "decoder",
            around("decoder", "_box_delta", _dense_before_sparse)),
    Rewrite("coarse_levels_first", "levels in another order", "the detector",
            around("", "pre_transformer", _encoded_from_coarse_to_fine)),
    Rewrite("survivors_scattered", "other indexing", "still_distinct",
            patching(decoder, "still_distinct", _survivors_scattered)),
)  # fmt: skip

"""Faults in the detector's own code: proposals, query selection, denoising queries, what the decoder is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddq_port.models.ddq_detr import detector, queries
from ddq_port.models.ddq_detr.queries import DistinctSelection

from .fault import DETECTOR, Fault
from .planting import Apply, around, patching, replaced, result, setting, shadowing

Selected = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]
_NOISE, _DRAWS = "`noise`", "draws other random numbers"


def _proposal_size(memory_and_proposals: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    memory, proposals = memory_and_proposals
    return memory, proposals + proposals.new_tensor([0.0, 0.0, 0.5, 0.5])


def _memory_changed_in_place(memory: dict[str, Tensor]) -> dict[str, Tensor]:
    memory["memory"].mul_(1.5)
    return memory


def _not_masked(right: Callable, memory: Tensor, memory_mask: Tensor | None, shapes: Tensor) -> Any:
    return right(memory, None, shapes)


def _unmasked_decoder(right: Callable, **kwargs: Any) -> dict:
    return right(**{**kwargs, "memory_mask": None})


def _boxes_taken_for_corners(right: Callable, *args: Any) -> Tensor:
    with replaced(queries, "bbox_cxcywh_to_xyxy", lambda boxes: boxes):
        return right(*args)


def _content_in_token_order(selected: Selected) -> Selected:
    distinct, dense, content, dense_content = selected
    return distinct, dense, [x[inds.argsort()] for x, inds in zip(content, distinct)], dense_content


def _memory_of_first_image(right: Callable, memory: Tensor, *rest: Any) -> Selected:
    return right(memory[:1].expand_as(memory), *rest)


def _sigmoid_twice(right: Callable, memory: Tensor, logits: Tensor, coords: Tensor, dense: Tensor | None) -> Selected:
    return right(memory, logits, coords, None if dense is None else dense.sigmoid())


def _half_precision_scores(right: Callable, memory: Tensor, logits: Tensor, *rest: Any) -> Selected:
    return right(memory, logits.half().to(logits.dtype), *rest)


def _first_class_scores(right: Callable, memory: Tensor, logits: Tensor, *rest: Any) -> Selected:
    return right(memory, logits[..., :1], *rest)


def _label_range_short(right: Callable, *args: Any) -> Tensor:
    draw = torch.randint_like
    with replaced(torch, "randint_like", lambda like, low, high, **rest: draw(like, low, high - 1, **rest)):
        return right(*args)


def _size_before_sign(right: Callable, *args: Any) -> Tensor:
    """Draw the size of the box noise before its sign."""
    draw_sign, draw_size = torch.randint_like, torch.rand_like
    sizes: list[Tensor] = []

    def sign(like: Tensor, **kwargs: Any) -> Tensor:
        sizes.append(draw_size(like))
        return draw_sign(like, **kwargs)

    with replaced(torch, "randint_like", sign), replaced(torch, "rand_like", lambda like: sizes.pop()):
        return right(*args)


def _one_draw_more(right: Callable, *args: Any) -> Tensor:
    torch.rand(1)
    return right(*args)


def _every_image_alike(right: Callable, *args: Any) -> Tensor:
    """Draw the choice of noisy labels for all, then use it in reverse order."""
    draw = torch.rand_like
    with replaced(torch, "rand_like", lambda like: draw(like).flip(0)):
        return right(*args)


def _labels_shifted(right: Callable, labels: Tensor, groups: int) -> Tensor:
    return right((labels + 1) % 3, groups)


def _boxes_divided_by_height_first(right: Callable, boxes: Tensor, groups: int) -> Tensor:
    return right(boxes[:, [1, 0, 3, 2]], groups)


def _groups_see_each_other(mask: Tensor) -> Tensor:
    return torch.zeros_like(mask)


def _dense_see_all(right: Callable, mask: Tensor, num_dense: int) -> Tensor:
    extended = right(mask, num_dense)
    extended[len(mask) :] = False
    return extended


def _padded_with_ones(right: Callable, items: list[Tensor], length: int) -> Tensor:
    return torch.stack([F.pad(item, (0, 0, 0, length - len(item)), value=1.0) for item in items])


def _padded_with_last(right: Callable, items: list[Tensor], length: int) -> Tensor:
    return torch.stack([torch.cat([item, item[-1:].expand(length - len(item), -1)]) for item in items])


def _selecting(change: Callable) -> Apply:
    return patching(detector, "select_distinct", change)


FAULTS = (
    Fault("swapped_norms_memory", "swapped norms", DETECTOR,
          shadowing("", "memory_trans_norm", lambda model: model.decoder.norm), says="`memory_trans_norm`"),
    Fault("proposal_size", "constant", DETECTOR, result("", "gen_encoder_output_proposals", _proposal_size),
          says="tap `distinct`"),
    Fault("memory_changed_in_place", "in-place change", DETECTOR,
          result("", "forward_encoder", _memory_changed_in_place), says="memory"),
    Fault("proposals_not_masked", "padding mask", DETECTOR, around("", "gen_encoder_output_proposals", _not_masked),
          says="`memory_trans_fc`"),
    Fault("no_padding_mask_in_decoder", "padding mask", DETECTOR, around("", "forward_decoder", _unmasked_decoder),
          says="`key_padding_mask`"),
    Fault("threshold_of_selection", "NMS threshold", DETECTOR, setting("", selection=DistinctSelection(0.5)),
          says="tap `distinct`"),
    Fault("boxes_taken_for_corners", "box units", DETECTOR, _selecting(_boxes_taken_for_corners),
          says="tap `distinct`"),
    Fault("worst_distinct", "ascending sort", DETECTOR,
          _selecting(lambda right, boxes, scores, *rest: right(boxes, 1 - scores, *rest)), says="tap `distinct`"),
    Fault("distinct_reversed", "permuted queries", DETECTOR, _selecting(lambda right, *args: right(*args).flip(0)),
          says="tap `distinct`"),
    Fault("distinct_as_int32", "dtype cast", DETECTOR, _selecting(lambda right, *args: right(*args).int()),
          says="tap `distinct`"),
    Fault("content_in_token_order", "permuted queries", DETECTOR, result("", "_select_tokens", _content_in_token_order),
          says="query"),
    Fault("memory_of_first_image", "batch mix-up", DETECTOR, around("", "_select_tokens", _memory_of_first_image),
          says="`query_map`"),
    Fault("ascending_dense", "ascending sort", DETECTOR,
          patching(detector, "select_dense", lambda right, scores, number: right(-scores, number)), says="tap `dense`"),
    Fault("fewer_dense", "top-k count", DETECTOR, setting("", dense_topk_ratio=1.4), says="tap `dense`"),
    Fault("sigmoid_twice_on_dense", "sigmoid twice", DETECTOR, around("", "_select_tokens", _sigmoid_twice),
          says="tap `dense`"),
    Fault("scores_in_half_precision", "dtype cast", DETECTOR, around("", "_select_tokens", _half_precision_scores),
          says="tap `distinct`"),
    Fault("selected_by_first_class", "score rule", DETECTOR, around("", "_select_tokens", _first_class_scores),
          says="tap `distinct`"),
    Fault("dense_from_main_branch", "wrong branch", DETECTOR, shadowing("bbox_head", "aux_cls_branches",
          lambda head: [*head._modules["aux_cls_branches"][:-1], head._modules["cls_branches"][-1]])),
    Fault("queries_padded_with_ones", "padding value", DETECTOR, patching(detector, "pad_to", _padded_with_ones),
          says="query", setting="few"),
    Fault("queries_padded_with_last", "padding value", DETECTOR, patching(detector, "pad_to", _padded_with_last),
          says="query", setting="few"),
    Fault("label_range_short", "RNG request", DETECTOR,
          around("dn_query_generator", "generate_dn_label_query", _label_range_short), says=_NOISE),
    Fault("size_drawn_before_sign", "RNG order", DETECTOR,
          around("dn_query_generator", "generate_dn_bbox_query", _size_before_sign), says=_NOISE),
    Fault("one_draw_more", "RNG order", DETECTOR,
          around("dn_query_generator", "generate_dn_label_query", _one_draw_more), says=_DRAWS),
    Fault("draws_used_backwards", "RNG order", DETECTOR,
          around("dn_query_generator", "generate_dn_label_query", _every_image_alike)),
    Fault("drop_path_per_token", "RNG request", "backbone.stages.3.blocks.1.ffn.dropout_layer",
          around("backbone.stages.3.blocks.1.ffn.dropout_layer", "forward",
                 lambda right, x: right(x.flatten(0, 1)).view_as(x)), says=_DRAWS, setting="swin"),
    Fault("box_noise_scale", "denoising", DETECTOR, setting("dn_query_generator", box_noise_scale=0.9),
          says="reference_points"),
    Fault("label_noise_scale", "denoising", DETECTOR, setting("dn_query_generator", label_noise_scale=0.9)),
    Fault("denoising_groups", "denoising", DETECTOR, setting("dn_query_generator", num_dn_queries=26),
          says=_DRAWS),
    Fault("denoising_labels_shifted", "label offset", DETECTOR,
          around("dn_query_generator", "generate_dn_label_query", _labels_shifted),
          says="`dn_query_generator.label_embedding`"),
    Fault("denoising_boxes_transposed", "wrong image size", DETECTOR,
          around("dn_query_generator", "generate_dn_bbox_query", _boxes_divided_by_height_first),
          says="reference_points"),
    Fault("groups_see_each_other", "attention mask", DETECTOR,
          result("dn_query_generator", "generate_dn_mask", _groups_see_each_other), says="dn_mask"),
    Fault("dense_see_all", "attention mask", DETECTOR, patching(detector, "_with_dense_block", _dense_see_all),
          says="dn_mask"),
)  # fmt: skip

"""Faults in the decoder's own code: references, branches, selection between layers, the masks that follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ddq_port.models.ddq_detr import decoder
from ddq_port.models.ddq_detr.decoder import DecoderOutput
from ddq_port.models.ddq_detr.queries import DistinctSelection

from .fault import INCOMPARABLE, Fault
from .planting import Apply, around, output, patching, setting, shadowing

_LAST = 2


def _active(rule: Callable[[Tensor], Tensor]) -> Apply:
    """Change which queries stay active; ``rule`` takes the survivors [num_matching]."""

    def changed(right: Callable, *args: Any) -> tuple[Tensor, Tensor]:
        survivors, _ = right(*args)
        return survivors, rule(survivors)

    return patching(decoder, "still_distinct", changed)


def _only_survivors_are_seen(right: Callable, survivors: Tensor) -> Tensor:
    return ~survivors[:, None, :].expand_as(right(survivors))


def _rotated_branches(right: Callable, *args: Any, **kwargs: Any) -> DecoderOutput:
    branches = list(kwargs["reg_branches"])
    return right(*args, **{**kwargs, "reg_branches": branches[1:] + branches[:1]})


def _swapped_branches(right: Callable, query: Tensor, branch: nn.Module, aux_branch: nn.Module, layout: Any) -> Tensor:
    return right(query, aux_branch, branch, layout)


def _negative_delta(right: Callable, *args: Any) -> Tensor:
    return -right(*args)


def _images_mixed_up(right: Callable, query: Tensor, boxes: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return right(query, boxes.flip(0), *rest)


def _mean_score(right: Callable, query: Tensor, boxes: Tensor, cls_branch: Callable, *rest: Any) -> Any:
    return right(query, boxes, lambda x: cls_branch(x).mean(-1, keepdim=True), *rest)


def _height_first(right: Callable, query: Tensor, boxes: Tensor, *rest: Any) -> Any:
    return right(query, boxes[..., [0, 1, 3, 2]], *rest)


def _layers_reversed(out: DecoderOutput) -> DecoderOutput:
    return out._replace(hidden_states=out.hidden_states.flip(0))


def _references_of_the_input(out: DecoderOutput) -> DecoderOutput:
    return out._replace(references=torch.cat([out.references[:1], out.references[:-1]]))


def _all_valid(right: Callable, *args: Any, **kwargs: Any) -> DecoderOutput:
    return right(*args, **{**kwargs, "valid_ratios": torch.ones_like(kwargs["valid_ratios"])})


class _Once:
    """Calls a module for the first layer only and gives that result again for all others of the same shape."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.known: dict[torch.Size, Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape not in self.known:
            self.known[x.shape] = self.module(x)
        return self.known[x.shape]


def _norm_once_more(right: Callable, *args: Any, **kwargs: Any) -> DecoderOutput:
    out = right(*args, **kwargs)
    right.__self__.norm(out.hidden_states[-1])
    return out


def _not_on_last(decoder_module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Give the normalisation of all layers but the last."""
    norm, calls = decoder_module._modules["norm"], [0]

    def normalise(x: Tensor) -> Tensor:
        calls[0] += 1
        return x if calls[0] % (_LAST + 1) == 0 else norm(x)

    return normalise


def _encoding(**changes: Any) -> Apply:
    return patching(decoder, "coordinate_to_encoding", lambda right, x, **kwargs: right(x, **kwargs, **changes))


def _x_before_y(right: Callable, coordinates: Tensor, **kwargs: Any) -> Tensor:
    y, x, w, h = right(coordinates, **kwargs).chunk(4, -1)
    return torch.cat([x, y, w, h], -1)


FAULTS = (
    Fault("eps_layer_norm", "eps", "decoder.norm", setting("decoder.norm", eps=1e-6)),
    Fault("eps_inverse_sigmoid", "eps", "decoder",
          patching(decoder, "inverse_sigmoid", lambda right, x, eps: right(x, eps=1e-5))),
    Fault("off_by_one_branch", "off-by-one layer", "decoder", around("decoder", "forward", _rotated_branches)),
    Fault("mask_row_2", "mask row", "decoder", _active(lambda survivors: survivors | survivors[2])),
    Fault("mask_row_last", "mask row", "decoder", _active(lambda survivors: survivors | survivors[-1])),
    Fault("always_active", "mask row", "decoder", _active(torch.ones_like)),
    Fault("only_survivors_are_seen", "attention mask", "decoder",
          patching(decoder, "attention_block", _only_survivors_are_seen), says="`self_attn_mask`"),
    Fault("dropped_queries_not_masked", "attention mask", "decoder",
          patching(decoder, "attention_block", lambda right, survivors: torch.zeros_like(right(survivors))),
          says="`self_attn_mask`"),
    Fault("swapped_aux_branch", "wrong branch", "decoder", around("decoder", "_box_delta", _swapped_branches)),
    Fault("delta_negative", "sign", "decoder", around("decoder", "_box_delta", _negative_delta)),
    Fault("threshold_between_layers", "NMS threshold", "decoder",
          setting("decoder", selection=DistinctSelection(0.79)), says="tap `distinct`"),
    Fault("boxes_of_other_image_selected", "batch mix-up", "decoder", around("decoder", "_select", _images_mixed_up),
          says="tap `distinct`"),
    Fault("selected_by_mean_score", "score rule", "decoder", around("decoder", "_select", _mean_score),
          says="tap `distinct`"),
    Fault("selected_with_height_first", "box units", "decoder",
          around("decoder", "_select", _height_first), says="tap `distinct`"),
    Fault("decoder_layers_reversed", "multi-output swap", "decoder", output("decoder", _layers_reversed),
          says="output 0"),
    Fault("references_one_late", "multi-output swap", "decoder", output("decoder", _references_of_the_input),
          says="output 1"),
    Fault("references_not_scaled", "reference points", "decoder", around("decoder", "forward", _all_valid)),
    Fault("position_of_first_layer", "stale value", "decoder", shadowing("decoder", "ref_point_head",
          lambda module: _Once(module._modules["ref_point_head"]))),
    Fault("last_layer_not_normalised", "missing call", "decoder", shadowing("decoder", "norm", _not_on_last)),
    Fault("norm_called_once_more", "extra call", "decoder", around("decoder", "forward", _norm_once_more),
          outcome=INCOMPARABLE),
    Fault("box_encoding_temperature", "box encoding", "decoder", _encoding(temperature=20)),
    Fault("box_encoding_x_before_y", "box encoding", "decoder",
          patching(decoder, "coordinate_to_encoding", _x_before_y)),
    Fault("queries_rolled_by_last_layer", "permuted queries", f"decoder.layers.{_LAST}",
          output(f"decoder.layers.{_LAST}", lambda x: x.roll(1, 1))),
    Fault("channels_rolled_by_feed_forward", "permuted channels", "decoder.layers.0.ffn",
          output("decoder.layers.0.ffn", lambda x: x.roll(1, -1))),
    Fault("branches_shared", "shared weights", "decoder", shadowing("bbox_head", "reg_branches",
          lambda head: [head._modules["reg_branches"][i] for i in (0, 0, 2, 3)])),
)  # fmt: skip

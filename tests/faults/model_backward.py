"""Faults that only the backward pass shows: everything forward is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ddq_port.models.ddq_detr.decoder import DecoderOutput

from .fault import DETECTOR, INCOMPARABLE, Fault
from .planting import Apply, Backward, around, output, result, without_detach

_PACKAGE = "ddq_port.models.ddq_detr"


def _gradient_times(path: str, factor: float) -> Apply:
    return output(path, lambda x: Backward.apply(x, factor))


def _looked_forward_once(out: DecoderOutput) -> DecoderOutput:
    return out._replace(references=out.references.detach())


def _input_detached(right: Callable, x: Tensor) -> Tensor:
    return right(x.detach())


def _half_a_gradient(right: Callable, pred: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return right(Backward.apply(pred, 0.5), *args, **kwargs)


def _level_gradient_lost(dicts: tuple[dict, dict]) -> tuple[dict, dict]:
    dicts[0]["feat_pos"] = dicts[0]["feat_pos"].detach()
    return dicts


FAULTS = (
    Fault("references_not_detached", "missing detach", "decoder", without_detach(f"{_PACKAGE}.decoder", "forward")),
    Fault("memory_not_detached", "missing detach", DETECTOR,
          without_detach(f"{_PACKAGE}.detector", "_select_tokens")),
    Fault("proposals_not_detached", "missing detach", DETECTOR,
          without_detach(f"{_PACKAGE}.detector", "pre_decoder")),
    Fault("looked_forward_once", "extra detach", "decoder", output("decoder", _looked_forward_once)),
    Fault("value_detached", "extra detach", "decoder.layers.0.cross_attn.value_proj",
          around("decoder.layers.0.cross_attn.value_proj", "forward", _input_detached)),
    Fault("level_embed_detached", "extra detach", DETECTOR, result("", "pre_transformer", _level_gradient_lost),
          says="`query_pos`", outcome=INCOMPARABLE),
    Fault("gradient_doubled", "gradient scale", "encoder.layers.1.ffn", _gradient_times("encoder.layers.1.ffn", 2.0)),
    Fault("gradient_reversed", "gradient scale", "memory_trans_fc", _gradient_times("memory_trans_fc", -1.0)),
    Fault("gradient_halved_in_loss", "gradient scale", "bbox_head.loss_iou",
          around("bbox_head.loss_iou", "forward", _half_a_gradient)),
    Fault("gradient_of_a_loss_doubled", "gradient scale", "bbox_head.aux_loss_for_dense.loss_cls",
          _gradient_times("bbox_head.aux_loss_for_dense.loss_cls", 2.0)),
)  # fmt: skip

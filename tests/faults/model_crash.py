"""Faults that change something first and end the side later: what was recorded until then tells where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .fault import Fault
from .planting import Apply, around, output, setting, together


def _raising(path: str, method: str, training: bool) -> Apply:
    def changed(right: Callable, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() == training:
            raise RuntimeError("planted: the sizes of the tensors do not match")
        return right(*args, **kwargs)

    return around(path, method, changed)


FAULTS = (
    Fault("crash_in_head_after_encoder", "crash behind a difference", "encoder.layers.0.norms.0",
          together(setting("encoder.layers.0.norms.0", eps=1e-3), _raising("bbox_head", "predict", False))),
    Fault("crash_in_decoder_after_neck", "crash behind a difference", "neck.convs.1.gn",
          together(setting("neck.convs.1.gn", eps=1e-2), _raising("decoder.layers.1", "forward", False))),
    Fault("crash_in_loss_after_decoder", "crash behind a difference", "decoder.layers.0.ffn",
          together(output("decoder.layers.0.ffn", lambda x: x * 1.01), _raising("bbox_head", "loss", True))),
)  # fmt: skip

"""Harmless rewrites that compute the same in other shapes, in parts, or by scores that rise with the right ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ddq_port.models.ddq_detr import head

from .fault import Rewrite
from .planting import around, patching, replaced


def _on_flat_tokens(right: Callable, x: Tensor, identity: Tensor | None = None) -> Tensor:
    """Have the tokens of all images in one dimension."""
    return right(x.flatten(0, 1), None if identity is None else identity.flatten(0, 1)).view_as(x)


def _with_one_more_axis(right: Callable, x: Tensor) -> Tensor:
    return right(x[None]).squeeze(0)


def _on_logits(right: Callable, *args: Any) -> InstanceData:
    """Rank logits, and make probabilities of the best alone."""
    with replaced(Tensor, "sigmoid", lambda logits: logits):
        found = right(*args)
    found.scores = found.scores.sigmoid()
    return found


class _ImageByImage:
    """Calls a module once for each image of a batch."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        return torch.stack([self.module(image) for image in x])


def _branches_image_by_image(model: nn.Module) -> None:
    for name in ("cls_branches", "reg_branches"):
        model.bbox_head.__dict__[name] = [_ImageByImage(module) for module in model.bbox_head._modules[name]]


REWRITES = (
    Rewrite("ffn_on_flat_tokens", "other shapes", "encoder.layers.0.ffn",
            around("encoder.layers.0.ffn", "forward", _on_flat_tokens), setting="batch"),
    Rewrite("branch_with_one_more_axis", "other shapes", "bbox_head.reg_branches.0",
            around("bbox_head.reg_branches.0", "forward", _with_one_more_axis)),
    # a sigmoid of other numbers together rounds otherwise
    Rewrite("detections_on_logits", "rising scores", "detections", patching(head, "detections", _on_logits),
            keeps_bits=False),
    Rewrite("branches_image_by_image", "image by image", "bbox_head", _branches_image_by_image, keeps_bits=False,
            setting="batch"),
)  # fmt: skip

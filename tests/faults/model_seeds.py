"""Faults in random draws: reseeding with a literal, draws too many or too few, draws of an own generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .fault import DETECTOR, Fault
from .ground import STEPS
from .planting import Apply, around, replaced

_NOISE = "draws other random numbers"
_LABELS, _BOXES = "generate_dn_label_query", "generate_dn_bbox_query"


def _reseeding(path: str, method: str, seed: int) -> Apply:
    """Reseed with a literal before a method runs."""

    def reseeded(right: Callable, *args: Any, **kwargs: Any) -> Any:
        torch.manual_seed(seed)
        return right(*args, **kwargs)

    return around(path, method, reseeded)


def _own_generator(right: Callable, *args: Any) -> Tensor:
    """Draw from a generator of its own, always from its start."""
    generator = torch.Generator().manual_seed(0)

    def rand_like(like: Tensor, **kwargs: Any) -> Tensor:
        return torch.rand(like.shape, generator=generator, dtype=like.dtype)

    with replaced(torch, "rand_like", rand_like):
        return right(*args)


def _sizes_not_drawn(right: Callable, *args: Any) -> Tensor:
    with replaced(torch, "rand_like", lambda like: torch.full_like(like, 0.5)):
        return right(*args)


def _labels_drawn_once(right: Callable, *args: Any) -> Tensor:
    """Draw whether a label is noisy for all of a group, and use it for every group."""
    groups = args[-1]

    def rand_like(like: Tensor) -> Tensor:
        return torch.rand(len(like) // (2 * groups)).repeat(2 * groups)

    with replaced(torch, "rand_like", rand_like):
        return right(*args)


def _drawn_behind(right: Callable, *args: Any, **kwargs: Any) -> Any:
    out = right(*args, **kwargs)
    torch.rand(3)
    return out


def _drawn_in_training(right: Callable, *args: Any, **kwargs: Any) -> Any:
    if torch.is_grad_enabled():
        torch.rand(1)
    return right(*args, **kwargs)


FAULTS = (
    Fault("loss_reseeds_with_0", "literal seed", DETECTOR, _reseeding("", "loss", 0), setting="batch"),
    Fault("loss_reseeds_with_1", "literal seed", DETECTOR, _reseeding("", "loss", 1), setting="batch"),
    Fault("forward_reseeds_with_42", "literal seed", DETECTOR, _reseeding("", "extract_feat", 42),
          setting="batch"),
    Fault("forward_reseeds_with_0", "literal seed", DETECTOR, _reseeding("", "extract_feat", 0),
          setting="batch"),
    Fault("label_noise_reseeds_with_0", "literal seed of denoising", DETECTOR,
          _reseeding("dn_query_generator", _LABELS, 0), setting="batch"),
    Fault("box_noise_reseeds_with_42", "literal seed of denoising", DETECTOR,
          _reseeding("dn_query_generator", _BOXES, 42), setting="batch"),
    Fault("training_reseeds_with_0", "literal seed of denoising", DETECTOR,
          _reseeding("dn_query_generator", _LABELS, 0), setting=STEPS),
    Fault("drop_path_reseeds_with_1", "literal seed of drop path", "backbone.stages.1.blocks.0.ffn.dropout_layer",
          _reseeding("backbone.stages.1.blocks.0.ffn.dropout_layer", "forward", 1), says=_NOISE, setting="swin"),
    Fault("drop_path_reseeds_with_0", "literal seed of drop path", "backbone.stages.0.blocks.1.ffn.dropout_layer",
          _reseeding("backbone.stages.0.blocks.1.ffn.dropout_layer", "forward", 0), says=_NOISE, setting="swin"),
    Fault("noise_of_own_generator", "own generator", DETECTOR, around("dn_query_generator", _BOXES, _own_generator)),
    Fault("size_of_noise_not_drawn", "draw left out", DETECTOR,
          around("dn_query_generator", _BOXES, _sizes_not_drawn)),
    Fault("label_noise_alike_in_groups", "draw left out", DETECTOR,
          around("dn_query_generator", _LABELS, _labels_drawn_once), says=_NOISE),
    Fault("draws_behind_box_noise", "draw too many", DETECTOR, around("dn_query_generator", _BOXES, _drawn_behind),
          says=_NOISE),
    Fault("draw_in_encoder", "draw too many", "encoder", around("encoder", "forward", _drawn_in_training),
          says=_NOISE),
)  # fmt: skip

"""Faults in the backbone, the neck and what comes before the encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fault import DETECTOR, INCOMPARABLE, Fault
from .planting import Apply, around, calling, output, replaced, replacing, result, setting, shadowing, together

Dicts = tuple[dict[str, Any], dict[str, Any]]


def _plain_block(right: Callable, x: Tensor) -> Tensor:
    """A residual block that forgets what it should be added to."""
    block = right.__self__
    out = block.relu(block.norm1(block.conv1(x)))
    out = block.relu(block.norm2(block.conv2(out)))
    return block.relu(block.norm3(block.conv3(out)))


def _always_training(right: Callable, mode: bool = True) -> nn.Module:
    return right(True)


def _counting(right: Callable, input: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        right.__self__.num_batches_tracked.add_(1)
    return right(input)


def _moving_average(right: Callable, input: Tensor) -> Tensor:
    out, norm = right(input), right.__self__
    if torch.is_grad_enabled():
        norm.running_mean.mul_(1 - norm.momentum)
    return out


def _no_buffers(path: str, buffer: str, value: float) -> Apply:
    """Leave one buffer as the model was built, whatever the weights hold."""

    def load(right: Callable, state: dict, prefix: str, *rest: Any) -> None:
        right({**state, prefix + buffer: torch.full_like(state[prefix + buffer], value)}, prefix, *rest)

    return around(path, "_load_from_state_dict", load)


def _one_element(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    changed = outputs[2].clone()
    changed[0, 3, 1, 2] += 1e-3
    return (*outputs[:2], changed, *outputs[3:])


def _half(x: Tensor) -> Tensor:
    return x.half().to(x.dtype)


def _exchanged_halves(x: Tensor) -> Tensor:
    return x.roll(x.size(1) // 2, 1)


def _transformer_inputs(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Apply:
    """Change the keyword arguments of encoder and decoder after they are made."""

    def changed(dicts: Dicts) -> Dicts:
        change(*dicts)
        return dicts

    return result("", "pre_transformer", changed)


def _wide_first(encoder: dict[str, Any], decoder: dict[str, Any]) -> None:
    encoder["spatial_shapes"] = decoder["spatial_shapes"] = encoder["spatial_shapes"].flip(-1)


def _starts_shifted(encoder: dict[str, Any], decoder: dict[str, Any]) -> None:
    shapes = encoder["spatial_shapes"]
    encoder["level_start_index"] = decoder["level_start_index"] = shapes.prod(1).cumsum(0)


def _ratios_swapped(encoder: dict[str, Any], decoder: dict[str, Any]) -> None:
    encoder["valid_ratios"] = decoder["valid_ratios"] = encoder["valid_ratios"].flip(-1)


def _ratios_of_first_image(encoder: dict[str, Any], decoder: dict[str, Any]) -> None:
    ratios = encoder["valid_ratios"]
    encoder["valid_ratios"] = decoder["valid_ratios"] = ratios[:1].expand_as(ratios).contiguous()


def _mask_inverted(encoder: dict[str, Any], decoder: dict[str, Any]) -> None:
    encoder["feat_mask"] = ~encoder["feat_mask"]


def _column_major(encoder: dict[str, Any], decoder: dict[str, Any]) -> None:
    levels = zip(encoder["spatial_shapes"].tolist(), encoder["level_start_index"].tolist())
    order = [torch.arange(start, start + h * w).view(h, w).t().reshape(-1) for (h, w), start in levels]
    encoder["feat"] = encoder["feat"][:, torch.cat(order)]


def _coarse_to_fine(right: Callable, feats: tuple[Tensor, ...], samples: Any) -> Dicts:
    return right(tuple(feats)[::-1], samples)


def _image_shape_transposed(right: Callable, feats: tuple[Tensor, ...], samples: list) -> Dicts:
    shapes = [sample.img_shape for sample in samples]
    try:
        for sample, (height, width) in zip(samples, shapes):
            sample.set_metainfo(dict(img_shape=(width, height)))
        return right(feats, samples)
    finally:
        for sample, shape in zip(samples, shapes):
            sample.set_metainfo(dict(img_shape=shape))


def _smooth_mask(right: Callable, feats: tuple[Tensor, ...], samples: list) -> Dicts:
    def smooth(interpolate: Callable, *args: Any, **kwargs: Any) -> Tensor:
        return interpolate(*args, **kwargs, mode="bilinear")

    with replaced(F, "interpolate", calling(F.interpolate, smooth)):
        return right(feats, samples)


def _levels_embedded_backwards(right: Callable, *args: Any) -> Dicts:
    model = right.__self__
    model.__dict__["level_embed"] = model._parameters["level_embed"].flip(0)
    try:
        return right(*args)
    finally:
        del model.__dict__["level_embed"]


def _trainable(path: str, flag: bool) -> Apply:
    return setting(path, requires_grad=flag)


FAULTS = (
    Fault("eps_batch_norm", "eps", "backbone.layer3.0.bn2", setting("backbone.layer3.0.bn2", eps=1e-3)),
    Fault("eps_group_norm", "eps", "neck.convs.1.gn", setting("neck.convs.1.gn", eps=1e-6)),
    Fault("activation_backbone", "activation", "backbone.relu", replacing("backbone.relu", nn.LeakyReLU)),
    Fault("residual_backbone", "dropped residual", "backbone.layer1.1",
          around("backbone.layer1.1", "forward", _plain_block)),
    Fault("dilation", "convolution geometry", "backbone.layer3.0.conv2",
          setting("backbone.layer3.0.conv2", dilation=(2, 2), padding=(2, 2))),
    Fault("stride_in_first_convolution", "convolution geometry", "backbone.layer2.0.conv1",
          together(setting("backbone.layer2.0.conv1", stride=(2, 2)),
                   setting("backbone.layer2.0.conv2", stride=(1, 1)))),
    Fault("pool_of_two", "convolution geometry", "backbone.maxpool",
          setting("backbone.maxpool", kernel_size=2, padding=0)),
    Fault("padding_replicated", "padding value", "neck.extra_convs.0.conv",
          setting("neck.extra_convs.0.conv", padding_mode="replicate")),
    Fault("group_count", "norm groups", "neck.convs.2.gn", setting("neck.convs.2.gn", num_groups=16)),
    Fault("images_bgr", "channel order", DETECTOR,
          around("", "extract_feat", lambda right, images: right(images.flip(1)))),
    Fault("images_bgr_in_backbone", "channel order", "backbone",
          around("backbone", "forward", lambda right, x: right(x.flip(1)))),
    Fault("batch_statistics_in_training", "batch norm mode", "backbone.layer2.0.bn1",
          setting("backbone", norm_eval=False)),
    Fault("batch_statistics_at_inference", "batch norm mode", "backbone.layer4.0.bn1",
          around("backbone.layer4.0.bn1", "train", _always_training)),
    Fault("batches_counted", "buffer update", "backbone.layer2.1.bn1.num_batches_tracked",
          around("backbone.layer2.1.bn1", "forward", _counting)),
    Fault("running_mean_moves", "buffer update", "backbone.layer1.0.bn1.running_mean",
          around("backbone.layer1.0.bn1", "forward", _moving_average)),
    Fault("running_var_not_loaded", "not loaded", "backbone.layer3.0.bn1.running_var",
          _no_buffers("backbone.layer3.0.bn1", "running_var", 1.0)),
    Fault("norm_weight_not_loaded", "not loaded", "neck.convs.0.gn.weight",
          _no_buffers("neck.convs.0.gn", "weight", 1.0)),
    Fault("frozen_stage_trains", "frozen", "backbone.layer1.0.conv1.weight",
          together(_trainable("backbone.layer1.0.conv1.weight", True), setting("backbone", frozen_stages=0)),
          outcome=INCOMPARABLE),
    Fault("frozen_by_mistake", "frozen", "neck.convs.0.conv.weight",
          _trainable("neck.convs.0.conv.weight", False), outcome=INCOMPARABLE),
    Fault("half_precision_convolution", "dtype cast", "neck.convs.0.conv", output("neck.convs.0.conv", _half)),
    Fault("one_element", "single element", "neck", output("neck", _one_element), says="output 2"),
    Fault("levels_reversed_by_neck", "multi-output swap", "neck", output("neck", lambda levels: levels[::-1])),
    Fault("encoding_temperature", "positional encoding", "positional_encoding",
          setting("positional_encoding", temperature=10000)),
    Fault("encoding_not_normalised", "positional encoding", "positional_encoding",
          setting("positional_encoding", normalize=False)),
    Fault("encoding_offset", "positional encoding", "positional_encoding",
          setting("positional_encoding", offset=-0.5)),
    Fault("encoding_x_before_y", "positional encoding", "positional_encoding",
          output("positional_encoding", _exchanged_halves)),
    Fault("levels_coarse_to_fine", "level order", DETECTOR, around("", "pre_transformer", _coarse_to_fine)),
    Fault("shapes_wide_first", "level geometry", DETECTOR, _transformer_inputs(_wide_first), says="spatial_shapes"),
    Fault("level_starts_shifted", "level geometry", DETECTOR, _transformer_inputs(_starts_shifted),
          says="level_start_index"),
    Fault("valid_ratios_swapped", "reference points", DETECTOR, _transformer_inputs(_ratios_swapped),
          says="valid_ratios"),
    Fault("valid_ratios_of_first_image", "batch mix-up", DETECTOR, _transformer_inputs(_ratios_of_first_image),
          says="valid_ratios"),
    Fault("mask_inverted_in_encoder", "padding mask", DETECTOR, _transformer_inputs(_mask_inverted),
          says="feat_mask"),
    Fault("tokens_column_major", "token order", DETECTOR, _transformer_inputs(_column_major), says="feat"),
    Fault("image_shape_transposed_in_mask", "wrong image size", DETECTOR,
          around("", "pre_transformer", _image_shape_transposed), says="`positional_encoding`"),
    Fault("mask_interpolated_smoothly", "interpolation", DETECTOR, around("", "pre_transformer", _smooth_mask),
          says="`positional_encoding`"),
    Fault("level_embed_missing", "level embedding", DETECTOR,
          shadowing("", "level_embed", lambda model: torch.zeros_like(model._parameters["level_embed"])),
          says="feat_pos"),
    Fault("level_embed_backwards", "level embedding", DETECTOR,
          around("", "pre_transformer", _levels_embedded_backwards), says="feat_pos"),
    Fault("window_not_shifted", "window attention", "backbone.stages.0.blocks.1.attn",
          setting("backbone.stages.0.blocks.1.attn", shift_size=0), setting="swin"),
    Fault("drop_path_rate", "dropout", "backbone.stages.3.blocks.1.ffn.dropout_layer",
          setting("backbone.stages.3.blocks.1.ffn.dropout_layer", drop_prob=0.1), setting="swin"),
)  # fmt: skip

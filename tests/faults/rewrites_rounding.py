"""Harmless rewrites that compute the same with other rounding: they must match under derived tolerance."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.ops import multi_scale_deform_attn
from mmdet.models.losses import focal_loss
from mmdet.models.losses.utils import weighted_loss
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ddq_port.models.ddq_detr import aux_loss, decoder, head

from .fault import Rewrite
from .planting import Apply, around, calling, patching, replaced
from .rewrites_leaves import subclass

#: The module; its package has a function of that name.
_IOU_LOSS = import_module("mmdet.models.losses.iou_loss")

#: Added to every divisor by mmdet's `weight_reduce_loss`.
_EPS = torch.finfo(torch.float32).eps


def _rewrite(name: str, kind: str, where: str, apply: Apply, setting: str = "plain") -> Rewrite:
    return Rewrite(name, kind, where, apply, keeps_bits=False, setting=setting)


def _by_einsum(self: nn.Linear, x: Tensor) -> Tensor:
    return torch.einsum("...io,io->...o", x[..., None] * self.weight.t(), torch.ones_like(self.weight.t())) + self.bias


def _by_sum(self: nn.Linear, x: Tensor) -> Tensor:
    """Multiply by halves of the weight and add."""
    half = x.size(-1) // 2
    return x[..., :half] @ self.weight[:, :half].t() + (x[..., half:] @ self.weight[:, half:].t() + self.bias)


def _by_addmm(self: nn.Linear, x: Tensor) -> Tensor:
    """Take the bias for the weight of one more input, which is always one."""
    rows = F.pad(x.reshape(-1, x.size(-1)), (1, 0), value=1.0)
    return (rows @ torch.cat([self.bias[:, None], self.weight], 1).t()).reshape(*x.shape[:-1], -1)


def _linear_in_double(self: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x.double(), self.weight.double(), self.bias.double()).to(x.dtype)


def _layer_norm_by_hand(self: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + self.eps) * self.weight + self.bias


def _layer_norm_by_moments(self: nn.LayerNorm, x: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(x, -1, correction=0, keepdim=True)
    return (x - mean) / (deviation**2 + self.eps).sqrt() * self.weight + self.bias


def _group_norm_by_hand(self: nn.GroupNorm, x: Tensor) -> Tensor:
    grouped = x.reshape(len(x), self.num_groups, -1)
    centred = grouped - grouped.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + self.eps).sqrt()
    return scaled.view_as(x) * self.weight[:, None, None] + self.bias[:, None, None]


def _batch_norm_as_scale(self: nn.BatchNorm2d, x: Tensor) -> Tensor:
    scale = self.weight / (self.running_var + self.eps).sqrt()
    return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


def _convolution_by_matmul(self: nn.Conv2d, x: Tensor) -> Tensor:
    out = torch.einsum("bchw,oc->bohw", x, self.weight[:, :, 0, 0])
    return out if self.bias is None else out + self.bias[:, None, None]


def _convolution_by_unfold(self: nn.Conv2d, x: Tensor) -> Tensor:
    columns = F.unfold(x, self.kernel_size, padding=self.padding, stride=self.stride)
    height = (x.size(2) + 2 * self.padding[0] - self.kernel_size[0]) // self.stride[0] + 1
    out = self.weight.flatten(1) @ columns
    return out.view(len(x), self.out_channels, height, -1)


def _sampling(change: Callable[..., Tensor]) -> Apply:
    return patching(multi_scale_deform_attn, "multi_scale_deformable_attn_pytorch", change)


def _level_by_level(right: Callable, value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Add what each level gives to what the others gave."""
    start, out = 0, 0
    for level, (height, width) in enumerate(shapes.tolist()):
        part = value[:, start : start + height * width]
        start += height * width
        out = out + right(part, shapes[level : level + 1], locations[:, :, :, level : level + 1],
                          weights[:, :, :, level : level + 1])  # fmt: skip
    return out


def _weights_normalised_again(right: Callable, value: Tensor, shapes: Tensor, locations: Tensor,
                              weights: Tensor) -> Tensor:  # fmt: skip
    return right(value, shapes, locations, weights / weights.sum((-2, -1), keepdim=True))


def _fused_attention(right: Callable, *args: Any, **kwargs: Any) -> Any:
    """Ask for no weights: torch computes scaled dot products in one kernel then."""
    return right(*args, **{**kwargs, "need_weights": False})


def _attention_in_double(right: Callable, *args: Any, **kwargs: Any) -> Any:
    def wide(x: Any) -> Any:
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    dtype = args[0].dtype
    out, weights = right(*(wide(x) for x in args), **{key: wide(value) for key, value in kwargs.items()})
    return out.to(dtype), weights if weights is None else weights.to(dtype)


def _attending(change: Callable[..., Any]) -> Apply:
    return lambda model: patching(F, "multi_head_attention_forward", lambda right, *args, **kwargs: calling(
        right, change)(*args, **kwargs))(model)  # fmt: skip


def _encoding_in_double(right: Callable, coordinates: Tensor, **kwargs: Any) -> Tensor:
    return right(coordinates.double(), **kwargs).to(coordinates.dtype)


def _encoding_of_positions(self: Any, mask: Tensor | None, input: Tensor | None = None) -> Tensor:
    """Multiply by the inverse of each period; interleave by reshaping."""
    mask = input.new_zeros(len(input), *input.shape[-2:]).bool() if mask is None else mask
    seen = (~mask).float()
    y, x = seen.cumsum(1), seen.cumsum(2)
    y = (y + self.offset) * (self.scale / (y[:, -1:] + self.eps))
    x = (x + self.offset) * (self.scale / (x[:, :, -1:] + self.eps))
    frequency = self.temperature ** (-2 * torch.arange(self.num_feats // 2) / self.num_feats)
    parts = []
    for place in (y, x):
        angles = place[..., None] * frequency
        parts.append(torch.stack((angles.sin(), angles.cos()), -1).flatten(-2))
    return torch.cat(parts, -1).permute(0, 3, 1, 2)


def _logit_as_difference(right: Callable, x: Tensor, eps: float = 1e-5) -> Tensor:
    x = x.clamp(0, 1)
    return x.clamp(min=eps).log() - (1 - x).clamp(min=eps).log()


def _inverse_of_ratio(right: Callable, x: Tensor, eps: float = 1e-5) -> Tensor:
    x = x.clamp(0, 1)
    return -torch.log((1 - x).clamp(min=eps) / x.clamp(min=eps))


def _focal_by_softplus(right: Callable, pred: Tensor, target: Tensor, weight: Tensor | None = None, gamma: float = 2.0,
                       alpha: float = 0.25, reduction: str = "mean", avg_factor: Any = None) -> Tensor:  # fmt: skip
    target = target.to(pred.dtype)
    p = pred.sigmoid()
    positive = alpha * (1 - p) * (1 - p) * F.softplus(-pred)
    negative = (1 - alpha) * p * p * F.softplus(pred)
    loss = torch.where(target > 0.5, positive, negative)
    if weight is not None:
        loss = loss * weight.view(-1, 1)
    return loss.sum() / (avg_factor + _EPS)


def _giou_term_by_term(pred: Tensor, target: Tensor, eps: float = 1e-7) -> Tensor:
    (x1, y1, x2, y2), (u1, v1, u2, v2) = pred.unbind(-1), target.unbind(-1)
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0)
    height = (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp(min=0)
    inner = width * height
    union = ((x2 - x1) * (y2 - y1) + ((u2 - u1) * (v2 - v1) - inner)).clamp(min=eps)
    hull = (torch.maximum(x2, u2) - torch.minimum(x1, u1)) * (torch.maximum(y2, v2) - torch.minimum(y1, v1))
    hull = hull.clamp(min=eps)
    return (1 - inner / union) + (hull - union) / hull


def _giou(right: Callable, *args: Any, **kwargs: Any) -> Tensor:
    return weighted_loss(_giou_term_by_term)(*args, **kwargs)


def _l1_by_coordinate(self: Any, pred: Tensor, target: Tensor, weight: Tensor | None = None, avg_factor: Any = None,
                      reduction_override: Any = None) -> Tensor:  # fmt: skip
    loss = sum(((pred[:, i] - target[:, i]).abs() * weight[:, i]).sum() for i in range(4))
    return loss * (self.loss_weight / (avg_factor + _EPS))


def _cost_without_cdist(right: Callable, one: Tensor, two: Tensor, p: float = 2.0) -> Tensor:
    return (one[:, None] - two[None]).abs().flip(-1).cumsum(-1)[..., -1] if p == 1 else right(one, two, p=p)


def _power_by_products(right: Callable, scores: Tensor, bboxes: Tensor, gt: Any, meta: dict) -> Any:
    """Raise the overlap to the sixth by two products."""
    assigned = right(scores, bboxes, gt, meta)
    score = scores[assigned.query_inds, gt.labels[assigned.gt_inds]]
    cube = assigned.ious * assigned.ious * assigned.ious
    return type(assigned)(assigned.query_inds, assigned.gt_inds, score * (cube * cube), assigned.ious)


def _normalised_by_product(right: Callable, losses: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
    factor = 1.0 / torch.stack(factors).flip(0).sum().clamp(min=1)
    return [loss * factor for loss in losses]


def _rescaled_by_product(right: Callable, logits: Tensor, boxes: Tensor, meta: dict, limit: int | None,
                         rescale: bool) -> InstanceData:  # fmt: skip
    found = right(logits, boxes, meta, limit, False)
    if rescale:
        found.bboxes = found.bboxes * found.bboxes.new_tensor([1 / x for x in meta["scale_factor"]]).repeat(2)
    return found


def _points_over_ratio(right: Callable, shapes: Tensor, ratios: Tensor, device: Any) -> Tensor:
    points = []
    for level, (height, width) in enumerate(shapes.tolist()):
        y = ((torch.arange(height) + 0.5) / height).repeat_interleave(width)
        x = ((torch.arange(width) + 0.5) / width).repeat(height)
        points.append(torch.stack((x[None] / ratios[:, level, :1], y[None] / ratios[:, level, 1:]), -1))
    return torch.cat(points, 1)[:, :, None] * ratios[:, None]


def _noise_by_addcmul(right: Callable, gt_bboxes: Tensor, groups: int) -> Tensor:
    """Add the noise in another order of the products."""

    def mul(one: Tensor, two: Tensor) -> Tensor:
        return (two / 3) * (one * 3)

    with replaced(torch, "mul", mul):
        return right(gt_bboxes, groups)


def _total_backwards(right: Callable, terms: dict) -> Any:
    total, log = right(terms)
    parts = [sum(x) if isinstance(x, list) else x.mean() for x in terms.values()]
    return torch.stack([x.reshape(()) for x in parts]).flip(0).sum(), log


def _softmax_with_logsumexp(right: Callable, *args: Any, **kwargs: Any) -> Tensor:
    def softmax(x: Tensor, dim: int = -1, **_: Any) -> Tensor:
        return (x - x.logsumexp(dim, keepdim=True)).exp()

    with replaced(Tensor, "softmax", softmax):
        return right(*args, **kwargs)


REWRITES = (
    _rewrite("linear_by_einsum", "product in another way", "query_map", subclass("query_map", forward=_by_einsum)),
    _rewrite("linear_by_halves", "product in another way", "encoder.layers.0.ffn",
             subclass("encoder.layers.0.ffn.layers.1", forward=_by_sum)),
    _rewrite("linear_transposed", "product in another way", "memory_trans_fc",
             subclass("memory_trans_fc", forward=_by_addmm)),
    _rewrite("linear_in_double", "wider inside", "decoder.layers.1.cross_attn.value_proj",
             subclass("decoder.layers.1.cross_attn.value_proj", forward=_linear_in_double)),
    _rewrite("layer_norm_by_hand", "norm by hand", "decoder.norm",
             subclass("decoder.norm", forward=_layer_norm_by_hand)),
    _rewrite("layer_norm_by_moments", "norm by hand", "encoder.layers.1.norms.0",
             subclass("encoder.layers.1.norms.0", forward=_layer_norm_by_moments)),
    _rewrite("group_norm_by_hand", "norm by hand", "neck.convs.0.gn",
             subclass("neck.convs.0.gn", forward=_group_norm_by_hand)),
    _rewrite("batch_norm_as_scale", "norm by hand", "backbone.layer3.0.bn1",
             subclass("backbone.layer3.0.bn1", forward=_batch_norm_as_scale)),
    _rewrite("convolution_by_matmul", "convolution in another way", "neck.convs.1.conv",
             subclass("neck.convs.1.conv", forward=_convolution_by_matmul)),
    _rewrite("convolution_by_unfold", "convolution in another way", "backbone.conv1",
             subclass("backbone.conv1", forward=_convolution_by_unfold)),
    _rewrite("sampling_level_by_level", "attention in another way", "attention", _sampling(_level_by_level)),
    _rewrite("weights_normalised_again", "attention in another way", "attention", _sampling(_weights_normalised_again)),
    _rewrite("fused_attention", "attention in another way", "decoder", _attending(_fused_attention)),
    _rewrite("attention_in_double", "wider inside", "decoder", _attending(_attention_in_double)),
    _rewrite("softmax_with_logsumexp", "softmax in another way", "encoder.layers.0.self_attn",
             around("encoder.layers.0.self_attn", "forward", _softmax_with_logsumexp)),
    _rewrite("encoding_in_double", "wider inside", "decoder",
             patching(decoder, "coordinate_to_encoding", _encoding_in_double)),
    _rewrite("encoding_by_frequencies", "encoding in another way", "positional_encoding",
             subclass("positional_encoding", forward=_encoding_of_positions)),
    _rewrite("logit_as_difference", "logit in another way", "bbox_head",
             patching(head, "inverse_sigmoid", _logit_as_difference)),
    _rewrite("logit_of_inverse", "logit in another way", "decoder",
             patching(decoder, "inverse_sigmoid", _inverse_of_ratio)),
    _rewrite("focal_loss_by_softplus", "loss in another way", "bbox_head.loss_cls",
             patching(focal_loss, "py_sigmoid_focal_loss", _focal_by_softplus)),
    _rewrite("giou_term_by_term", "loss in another way", "bbox_head.loss_iou",
             patching(_IOU_LOSS, "giou_loss", _giou)),
    _rewrite("l1_by_coordinate", "loss in another way", "bbox_head.loss_bbox",
             subclass("bbox_head.loss_bbox", forward=_l1_by_coordinate)),
    _rewrite("cost_without_cdist", "cost in another way", "bbox_head.assigner",
             patching(torch, "cdist", _cost_without_cdist)),
    _rewrite("power_by_products", "cost in another way", "bbox_head.aux_loss_for_dense",
             around("bbox_head.aux_loss_for_dense.assigner", "assign", _power_by_products)),
    _rewrite("normalised_by_product", "quotient by product", "bbox_head.aux_loss_for_dense",
             patching(aux_loss, "_normalise", _normalised_by_product)),
    _rewrite("rescaled_by_product", "quotient by product", "detections",
             patching(head, "detections", _rescaled_by_product)),
    _rewrite("points_over_ratio", "quotient by product", "encoder",
             around("encoder", "get_encoder_reference_points", _points_over_ratio)),
    _rewrite("total_backwards", "sum in another order", "the detector", around("", "parse_losses", _total_backwards)),
    _rewrite("noise_in_other_order", "sum in another order", "dn_query_generator",
             around("dn_query_generator", "generate_dn_bbox_query", _noise_by_addcmul)),
)  # fmt: skip

"""A ResNet whose frozen batch normalisation is part of its convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ddq_port.registry import MODELS


class FoldedBasicBlock(BasicBlock):
    """mmdet's block of two convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on [bs, channels, h, w]."""
        return _folded(self, x, (self.norm1, self.norm2), super().forward)


class FoldedBottleneck(Bottleneck):
    """mmdet's block of three convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on [bs, channels, h, w]."""
        if self.with_plugins or self.with_dcn:
            return super().forward(x)
        return _folded(self, x, (self.norm1, self.norm2, self.norm3), super().forward)


_FOLDED = {BasicBlock: FoldedBasicBlock, Bottleneck: FoldedBottleneck}


@MODELS.register_module()
class FoldedResNet(ResNet):
    """mmdet's ResNet with its parameters; runs in channels-last order.

    Batch normalisation that uses its running statistics is a linear map of a convolution's output. It is applied to the
    weights instead, anew in every call, so weights may change and gradients reach them. Where a statistic is of the
    batch, or a block is of another kind, mmdet's own code runs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.res_layers:
            for block in getattr(self, name):
                # mmdet asks for the very class of a block when it chooses initial values, so it is changed here
                block.__class__ = _FOLDED.get(type(block), type(block))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of the stages in ``out_indices``.

        Args:
            x: images [bs, 3, h, w].
        """
        x = x.contiguous(memory_format=torch.channels_last)
        if self.deep_stem or not _is_linear(self.norm1):
            return super().forward(x)
        x = self.maxpool(_rectified(convolved(x, self.conv1, self.norm1)))
        outs = []
        for i, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)


def _folded(block: nn.Module, x: Tensor, norms: Sequence[nn.Module], unfolded: Callable[[Tensor], Tensor]) -> Tensor:
    """Run a residual block, or mmdet's code of it where that is not possible."""
    last = [] if block.downsample is None else [block.downsample[-1]]
    if not all(map(_is_linear, [*norms, *last])):
        return unfolded(x)
    if block.with_cp and x.requires_grad:
        return checkpoint(_block_output, block, norms, x, use_reentrant=False)
    return _block_output(block, norms, x)


def _block_output(block: nn.Module, norms: Sequence[nn.Module], x: Tensor) -> Tensor:
    out = x
    *inner, last = zip((block.conv1, block.conv2, getattr(block, "conv3", None)), norms)
    for conv, norm in inner:
        out = _rectified(convolved(out, conv, norm))
    out, shortcut = convolved(out, *last), _shortcut(block.downsample, x)
    return _rectified(out.add_(shortcut) if _in_place(out) else out + shortcut)


def _rectified(x: Tensor) -> Tensor:
    return x.relu_() if _in_place(x) else x.relu()


def _in_place(x: Tensor) -> bool:
    """Tell whether it pays to write into ``x``: autograd copies the gradient of a view that was written into."""
    return not (x.requires_grad and x._is_view())


def _shortcut(downsample: nn.Sequential | None, x: Tensor) -> Tensor:
    if downsample is None:
        return x
    *before, conv, norm = downsample
    for module in before:
        x = module(x)
    return convolved(x, conv, norm)


def _is_linear(norm: nn.Module) -> bool:
    return isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None and norm.affine


def convolved(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Convolve [bs, channels, h, w] and normalise with the running statistics."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # [channels]
    weight = conv.weight * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    if x.device.type == "cpu" and conv.kernel_size == (1, 1) and conv.padding == (0, 0) and conv.groups == 1:
        # a matrix product in channels-last order, for which torch may take its slow convolution on a CPU
        pixels = x[:, :, :: conv.stride[0], :: conv.stride[1]].permute(0, 2, 3, 1)  # [bs, h, w, channels]
        return F.linear(pixels, weight.flatten(1), bias).permute(0, 3, 1, 2)  # [bs, channels, h, w]
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)

"""Faults in bottleneck blocks, which the shallow ResNets do not have."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .fault import Fault
from .planting import around, output, setting, together

_BLOCK = "backbone.layer2.0"
_SETTING = "bottleneck"


def _relu_before_sum(right: Callable, x: Tensor) -> Tensor:
    """Activate the last convolution's output before it is added."""
    block = right.__self__
    out = block.relu(block.norm1(block.conv1(x)))
    out = block.relu(block.norm2(block.conv2(out)))
    out = block.relu(block.norm3(block.conv3(out)))
    return out + block.downsample(x)


FAULTS = (
    Fault("stride_in_first_of_three", "bottleneck block", f"{_BLOCK}.conv1",
          together(setting(f"{_BLOCK}.conv1", stride=(2, 2)), setting(f"{_BLOCK}.conv2", stride=(1, 1))),
          setting=_SETTING),
    Fault("eps_of_expansion_norm", "bottleneck block", f"{_BLOCK}.bn3", setting(f"{_BLOCK}.bn3", eps=1e-3),
          setting=_SETTING),
    Fault("activation_before_sum", "bottleneck block", _BLOCK, around(_BLOCK, "forward", _relu_before_sum),
          setting=_SETTING),
    Fault("expansion_in_groups_mixed_up", "bottleneck block", f"{_BLOCK}.conv3",
          output(f"{_BLOCK}.conv3", lambda x: x.view(len(x), 4, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape)),
          setting=_SETTING),
)  # fmt: skip


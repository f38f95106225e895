"""The operators of mmcv's compiled extension that these detectors need, in plain torch, under mmcv's own names.

Names, argument names and argument order are those of the C++ bindings (github ``open-mmlab/mmcv`` v2.1.0,
``mmcv/ops/csrc/pytorch/pybind.cpp``). All of them run on CPU and CUDA tensors. NMS is this package's own; the others
are in :mod:`ddq_port.ops.continuous`.

This module is loaded as ``mmcv._ext`` by :mod:`ddq_port.ops.standin`. mmcv asserts at import that every operator
exists, so any other name yields a function that raises LackingOperatorError when called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from torch import Tensor

from ddq_port.ops import nms as _nms
from ddq_port.ops.carafe import carafe_backward, carafe_forward
from ddq_port.ops.continuous import (
    ms_deform_attn_backward,
    ms_deform_attn_forward,
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
)
from ddq_port.ops.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from ddq_port.ops.masked_conv import masked_col2im_forward, masked_im2col_forward
from ddq_port.ops.roi_align import roi_align_backward, roi_align_forward
from ddq_port.ops.softnms import nms_match, softnms

__all__ = [
    "carafe_backward",
    "carafe_forward",
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "masked_col2im_forward",
    "masked_im2col_forward",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "nms",
    "nms_match",
    "roi_align_backward",
    "roi_align_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softnms",
]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices that greedy NMS keeps; see :func:`ddq_port.ops.nms.nms`.

    Args:
        boxes: [N, 4] as (x1, y1, x2, y2), any unit; float64 works too, which the compiled operator refuses.
        scores: [N].
        iou_threshold: overlap above which a box is suppressed.
        offset: 0 or 1, added to widths and heights.

    Returns:
        int64 tensor [K], in descending order of score.

    Raises:
        ValueError: on wrong shapes or NaN.
    """
    return _nms.nms(boxes, scores, iou_threshold, offset)


def get_compiler_version() -> str:
    """Return a text for environment reports, which ask the extension for its compiler."""
    return "none (ddq_port stand-in for mmcv._ext)"


def get_compiling_cuda_version() -> str:
    """Return a text for environment reports, which ask the extension for its CUDA compiler."""
    return "not available"


class LackingOperatorError(NotImplementedError):
    """An operator was called that this stand-in lacks; the message, one line, says what to install.

    Attributes:
        lacking_operator: its name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(_advice(name))
        self.lacking_operator = name


#: The operators that were asked for and are lacking, each with what to do: see ``legacy_adapters.lacking``.
__lacking_operators__: dict[str, str] = {}


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Return, for any other operator name, a function that raises LackingOperatorError when called."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def lacking(*args: object, **kwargs: object) -> NoReturn:
        raise LackingOperatorError(name)

    __lacking_operators__[name] = _advice(name)
    lacking.__name__ = lacking.__qualname__ = name
    return lacking


def _advice(name: str) -> str:
    return (
        f"mmcv operator `{name}` is not in ddq_port's stand-in for mmcv._ext; install the compiled mmcv in place of "
        "mmcv-lite, extra [mmcv]; some operators it has on a GPU only."
    )

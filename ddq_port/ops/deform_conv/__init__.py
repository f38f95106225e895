"""Deformable convolution of mmcv's compiled extension, with and without modulation, in plain torch.

Names, argument names and argument order are those of the C++ bindings (github ``open-mmlab/mmcv`` v2.1.0,
``mmcv/ops/csrc/pytorch/pybind.cpp``; they are the same in 1.4.7 and 1.7.2). Every rounding, the order in which terms
are added and the shapes of the matrix products are those of the CPU code (``csrc/pytorch/deform_conv.cpp``,
``modulated_deform_conv.cpp`` and the files of these names in ``cpu``), so results and gradients in float32 and float64
equal those of the compiled operator bit for bit, with the same torch. float16 and bfloat16 are computed in float32 and
rounded once at the end, where the compiled kernel rounds float16 at each step.

Like :mod:`ddq_port.ops.continuous`, this package serves both sides of a comparison: the legacy side loads it by its
path. It therefore imports torch and its own modules only and is written for Python 3.8.
"""

from .modulated import modulated_deform_conv_backward, modulated_deform_conv_forward
from .plain import deform_conv_backward_input, deform_conv_backward_parameters, deform_conv_forward

__all__ = [
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
]

"""Mixed precision on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.optim import OptimWrapper
from torch import nn

from ddq_port.registry import OPTIM_WRAPPERS

_DTYPES = ("float16", "bfloat16")


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(MMEngineAmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper``, on CPUs as well.

    mmengine's refuses to start without a GPU, and its autocast knows bfloat16 only on a CPU.

    Args:
        loss_scale: ``'dynamic'``, a fixed scale as a float, or arguments of ``torch.amp.GradScaler``.
        dtype: ``'float16'`` or ``'bfloat16'``.
        **kwargs: of mmengine's ``OptimWrapper``.

    Raises:
        ValueError: for another dtype or loss scale.
    """

    def __init__(self, loss_scale: str | float | dict = "dynamic", dtype: str = "float16", **kwargs) -> None:
        OptimWrapper.__init__(self, **kwargs)
        if dtype not in _DTYPES:
            raise ValueError(f"optim_wrapper.dtype is {dtype!r}; expected one of {', '.join(_DTYPES)}.")
        fixed = isinstance(loss_scale, float)
        if not fixed and not isinstance(loss_scale, dict) and loss_scale != "dynamic":
            raise ValueError(f"optim_wrapper.loss_scale is {loss_scale!r}; expected 'dynamic', a float or a dict.")
        settings = dict(init_scale=loss_scale) if fixed else dict(loss_scale) if loss_scale != "dynamic" else {}
        self._device_type = torch.device(get_device()).type
        self._scale_update_param = loss_scale if fixed else None
        self.loss_scaler = torch.amp.GradScaler(self._device_type, **settings)
        self.cast_dtype = getattr(torch, dtype)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, without synchronising gradients that wait to be accumulated."""
        with (
            OptimWrapper.optim_context(self, model),
            torch.autocast(self._device_type, dtype=self.cast_dtype),
        ):
            yield

"""An optimizer that takes its steps in few calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ddq_port.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class FusedAdamW(torch.optim.AdamW):
    """torch's fused ``AdamW``, with one call for all parameters of equal settings.

    mmengine makes a group of each parameter as soon as a config has ``paramwise_cfg``, and torch takes a step group by
    group. Groups and states stay as they are, so checkpoints are those of ``AdamW``.

    Args:
        params: as of ``AdamW``.
        **kwargs: of ``AdamW``.
    """

    def __init__(self, params: Any, **kwargs: Any) -> None:
        super().__init__(params, fused=True, **kwargs)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step.

        Args:
            closure: computes the loss and its gradients first.

        Returns:
            What ``closure`` returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        self.param_groups = _merged(groups)
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return groups of parameters that have the same settings."""
    merged: list[tuple[dict[str, Any], list[torch.Tensor]]] = []
    for group in groups:
        settings = {key: value for key, value in group.items() if key != "params"}
        for known, params in merged:
            if known == settings:
                params.extend(group["params"])
                break
        else:
            merged.append((settings, list(group["params"])))
    return [{**settings, "params": params} for settings, params in merged]

"""Which of two sets of weights mmcv's EMAHook left under the model's own names.

The hook keeps averages in buffers `ema_...` and exchanges them with the weights at the end of an epoch and before the
next one. So it depends on the order of the hooks at the end of an epoch which of them a checkpoint has where: whoever
saves after the hook finds the averages under the model's names. Hooks of one priority are called in the order in which
they were registered, and those of a config come after the one that saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.mmcv1 import stops

#: `mmcv.runner.priority.Priority`; a lower number comes first.
_PRIORITIES = {
    "HIGHEST": 0, "VERY_HIGH": 10, "HIGH": 30, "ABOVE_NORMAL": 40, "NORMAL": 50, "BELOW_NORMAL": 60, "LOW": 70,
    "VERY_LOW": 90, "LOWEST": 100,
}  # fmt: skip
_SAVING, _BEST = 50, 70  # of the hook that saves, and of the one that saves the best of all (`best_...`)


def are_swapped(config: Mapping[str, Any] | None, file: str) -> bool | None:
    """Tell whether the model's own names hold the averages.

    Args:
        config: Of 2.x, that the training had; None if it is not known.
        file: Name of the checkpoint.

    Returns:
        None if the config does not tell.
    """
    if config is None:
        return None
    priorities = [_priority(hook) for hook in config.get("custom_hooks") or () if is_hook(hook)]
    if len(priorities) != 1 or priorities[0] is None:
        return None
    saving = config.get("checkpoint_config")
    is_best = file.startswith("best_")
    by_step = isinstance(saving, Mapping) and saving.get("by_epoch", True) is False and not is_best
    if not stops.counts_epochs(config) or by_step:
        return False  # nothing is exchanged within an epoch
    return priorities[0] <= _BEST if is_best else priorities[0] < _SAVING  # the best is saved by a hook made after it


def is_hook(hook: Any) -> bool:
    """Tell whether an entry of `custom_hooks` is one that averages."""
    return isinstance(hook, Mapping) and "EMAHook" in str(hook.get("type"))


def _priority(hook: Mapping[str, Any]) -> int | None:
    value = hook.get("priority", "NORMAL")
    return value if isinstance(value, int) else _PRIORITIES.get(str(value).upper())

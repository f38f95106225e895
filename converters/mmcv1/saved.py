"""A checkpoint of mmcv 1.x's Runner: whether a file is one, the config in it, and what stands in the way of going on.

`mmcv.runner.save_checkpoint` writes `meta` (`epoch`, `iter`, `mmcv_version`, `time`, `CLASSES` and what the program
adds, of mmdet the text of the config as `config`), `state_dict` and `optimizer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.errors import PartsError
from legacy_adapters.ground import config_text

ADVICE = "pass --keep model to convert the weights alone"
_SCALERS = ("amp", "scaler", "loss_scaler", "grad_scaler")
_SECTIONS = ("runner", "optimizer", "lr_config", "momentum_config", "checkpoint_config")
_OF_MMENGINE = ("message_hub", "param_schedulers")


def is_of_mmengine(content: Mapping[Any, Any], meta: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint has what mmengine's Runner saves, and mmcv's not."""
    return any(name in content for name in _OF_MMENGINE) or "mmengine_version" in meta


def is_of_mmcv(content: Mapping[Any, Any], meta: Mapping[str, Any]) -> bool:
    """Tell whether mmcv 1.x wrote a checkpoint, by the version that it writes."""
    return str(meta.get("mmcv_version", "")).startswith("1.") and not is_of_mmengine(content, meta)


def has_counters(meta: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint says after how many epochs and steps it was written."""
    return all(_is_count(meta.get(name)) for name in ("epoch", "iter"))


def config(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the config that a checkpoint was written with, as plain data; None if it has none that can be read."""
    text = meta.get("config")
    if not isinstance(text, str):
        return None
    try:
        found = config_text.parse(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    is_read = all(isinstance(found.get(name) or {}, Mapping) for name in _SECTIONS)
    return found if found and is_read and isinstance(found.get("custom_hooks") or [], list) else None


def check_whole(content: Mapping[Any, Any], meta: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Refuse what a training in 3.x cannot go on with.

    Args:
        content: Of the file.
        meta: The plain part of its `meta`.
        old: The config that it was written with; None if it is not known.

    Raises:
        PartsError: If the training was one in half precision: its loss scale has no equal in 3.x's.
    """
    half = meta.get("fp16")
    if half:
        what = "a loss scaler" if isinstance(half, Mapping) and "loss_scaler" in half else "half precision"
        raise PartsError(
            f"`meta.fp16` of the source is the state of {what}, of mmcv's Fp16OptimizerHook, and 3.x rounds in other places, "
            f"so that no step would be the same; {ADVICE}, and begin a new training with them."
        )
    if (old or {}).get("fp16"):
        raise PartsError(
            "`fp16` of the source's config says that it was trained in half precision, where 3.x rounds in other places, so that "
            f"no step would be the same; {ADVICE}, and begin a new training with them."
        )
    for name in _SCALERS:
        if content.get(name) is not None:
            of = "apex amp" if name == "amp" else "a gradient scaler"
            raise PartsError(
                f"`{name}` of the source is the state of {of}, which mmengine's Runner does not take up; {ADVICE}, and begin "
                "a new training with them."
            )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0

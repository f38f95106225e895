"""The text of a config in a checkpoint, read without executing it, and what differs from another config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from legacy_adapters.ground.config_text import parse

__all__ = ["flat", "parse"]


def flat(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by their dotted keys; lists of plain values are one setting."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list | tuple) and any(isinstance(item, Mapping) for item in config):
        for number, item in enumerate(config):
            yield from flat(item, f"{key}.{number}")
    else:
        yield key, list(config) if isinstance(config, list | tuple) else config

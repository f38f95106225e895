"""The config of 3.x while it is being written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from converters.configs.kinds import ABSENT, Remark, Translation


@dataclass
class Draft:
    """A config that sections are added to.

    Attributes:
        config: what there is of it.
        origins: dotted path in it -> path in the config of 2.x; none for a setting of the same path.
        remarks: what could not be translated.
    """

    config: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    def came(self, path: str, origin: str) -> None:
        """Remember where a setting comes from."""
        self.origins.setdefault(path, origin)

    def remark(self, key: str, value: Any, why: str) -> None:
        """Note a setting that is not carried over, or not for certain; once."""
        remark = Remark(key, value, why)
        if remark not in self.remarks:
            self.remarks.append(remark)

    def translation(self) -> Translation:
        """Return what was made."""
        return Translation(self.config, self.origins, tuple(self.remarks))


def taken(options: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Take settings out of a dict and return them under their new names, in the order of ``names``."""
    return {new: options.pop(old) for old, new in names.items() if old in options}


def left_over(draft: Draft, path: str, options: Mapping[str, Any], why: str) -> None:
    """Note every setting that nothing has taken."""
    for key, value in options.items():
        draft.remark(f"{path}.{key}" if path else key, value, why)


def untyped(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy without its type."""
    return {key: value for key, value in options.items() if key != "type"}


__all__ = ["ABSENT", "Draft", "left_over", "taken", "untyped"]

"""What carrying and comparing configs gives; plain data, that knows no code base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class _Absent:
    """What stands for a setting that a config does not have, and for which no default is known."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


@dataclass(frozen=True)
class Remark:
    """A setting that was not carried over, or not for certain.

    Attributes:
        key: dotted path in the config that it stands in.
        value: what it is there; ``ABSENT`` where that does not matter.
        why: one sentence.
    """

    key: str
    value: Any
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        shown = {} if self.value is ABSENT else dict(value=plain(self.value))
        return dict(key=self.key, **shown, why=self.why)


@dataclass(frozen=True)
class Translation:
    """A config of the old version with the words of the new one.

    Attributes:
        config: plain data.
        origins: dotted path in ``config`` -> path in the old config, where they differ; each stands for all beneath it.
        remarks: what could not be translated.
    """

    config: dict[str, Any]
    origins: Mapping[str, str]
    remarks: tuple[Remark, ...]

    def origin(self, path: str) -> str:
        """Return where a setting stands in the old config: what belongs to the longest part of its path."""
        parts = path.split(".")
        for count in range(len(parts), 0, -1):
            known = self.origins.get(".".join(parts[:count]))
            if known is not None:
                return ".".join([known, *parts[count:]]) if known else known
        return path


@dataclass(frozen=True)
class Setting:
    """One side of a difference: a value, and whether it is only the default of the class."""

    value: Any
    is_default: bool = False


@dataclass(frozen=True)
class Difference:
    """A setting that means something else in the new config.

    Attributes:
        key: dotted path in the new config.
        old_key: where it comes from in the old one.
        old: its value, in the words of the new version.
        new: value in the new config.
        effect: what it does to results, in one or two sentences; empty if nothing is known of the setting.
        group: what it belongs to, such as ``model``.
        also: other keys of the new config with the same difference.
        written: what stands at ``old_key`` in the old config, in its own words; ``ABSENT`` if that is no single value.
    """

    key: str
    old_key: str
    old: Setting
    new: Setting
    effect: str
    group: str
    also: tuple[str, ...] = ()
    written: Any = ABSENT

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        sides = {
            name: dict(value=plain(side.value), is_default=side.is_default)
            for name, side in (("old", self.old), ("new", self.new))
            if side.value is not ABSENT
        }
        own = {} if self.written is ABSENT else dict(written=plain(self.written))
        names = dict(key=self.key, also=list(self.also), old_key=self.old_key, group=self.group, effect=self.effect)
        return {**names, **own, **sides}


@dataclass(frozen=True)
class Comparison:
    """What two configs differ in.

    Attributes:
        differences: in the order in which they are told.
        remarks: settings of either config that were not compared, and why.
        compared: how many settings were, defaults not counted.
    """

    differences: tuple[Difference, ...]
    remarks: tuple[Remark, ...] = ()
    compared: int = 0


class Migration(Protocol):
    """What a family knows of the configs of its two versions."""

    def translate(self, old: str) -> Translation:
        """Carry a config over; ``old`` is its path."""

    def compare(self, old: str, new: str) -> Comparison:
        """Compare two configs, given by their paths, by what they mean."""

    def vet(self, config: str) -> tuple[str, ...]:
        """Read a config of the new version as its own tools do and say what is wrong with it; nothing if it is fine."""


@dataclass(frozen=True)
class Context:
    """What the comparison of two structures needs to know of the code base.

    Attributes:
        defaults: type of a dict -> names and defaults of what it may hold; of an unknown one nothing.
        implied: dotted path -> defaults of a dict without a type.
    """

    defaults: Any
    implied: Any = field(default=lambda path: {})


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and value != value or value in (float("inf"), float("-inf")):
        return str(value)
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)

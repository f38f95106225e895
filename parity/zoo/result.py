"""What became of a config of the zoo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

#: Both sides compute the same; they do once known deviations of the new code base are undone; they do not; there was
#: too little to compare; a side cannot run it; it took too long; this toolkit failed.
MATCH, DEVIATION, MISMATCH, INCOMPARABLE = "MATCH", "DEVIATION", "MISMATCH", "INCOMPARABLE"
UNSUPPORTED, TIMEOUT, ERROR = "UNSUPPORTED", "TIMEOUT", "ERROR"
ORDER = (MATCH, DEVIATION, MISMATCH, INCOMPARABLE, UNSUPPORTED, TIMEOUT, ERROR)


@dataclass(frozen=True)
class Result:
    """What became of one config.

    Attributes:
        name: of the config.
        architecture: as in :class:`converters.configs.zoo.Entry`.
        verdict: one of :data:`ORDER`.
        why: in a line; empty for a match.
        tolerance: under which both sides were compared; ``exact`` means the same bits. Empty if they were not.
        undone: what the new code base itself computes otherwise, and was undone for a deviation.
        records: how many were compared.
        identical: of these, in every bit.
        detections: of each image, of the legacy side.
        sizes: (h, w) of each image in pixels.
        width: of the layers, as a share of the config's own.
        checks: what was compared.
        remarks: how many settings the written config says nothing of, variables of the file aside.
        seconds: that it took.
    """

    name: str
    architecture: str
    verdict: str
    why: str = ""
    tolerance: str = ""
    undone: str = ""
    records: int = 0
    identical: int = 0
    detections: tuple[int, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    width: float = 1.0
    checks: tuple[str, ...] = ()
    remarks: int = 0
    seconds: float = 0.0

    def but(self, **changes: Any) -> Result:
        """Return the same with other values in some fields."""
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """Undo :meth:`as_dict`, also of data that came as JSON.

        Raises:
            TypeError: if a field is missing or unknown.
        """
        values = {item.name: data[item.name] for item in fields(cls) if item.name in data}
        if len(values) != len(data):
            raise TypeError("not the fields of a result")
        return cls(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value

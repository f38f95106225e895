"""What a difference can be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from legacy_adapters.recording.trace_writer import Key


class DiagnosisKind(str, Enum):
    """A sort of difference; its value is the string in reports."""

    __str__ = str.__str__

    # of one tensor against its twin
    PERMUTATION = "permutation"
    TRANSPOSE = "transpose"
    SHIFT = "shift"
    REPEATED = "repeated"
    MOVED = "moved"
    FACTOR = "factor"
    OFFSET = "offset"
    SIGN = "sign"
    INVERTED = "inverted"
    CLAMP = "clamp"
    WHOLE = "whole numbers"
    CONSTANT = "constant"
    REPLACED = "one number for many"
    RELABELLED = "relabelled"
    DROPOUT = "dropout"
    FUNCTION = "function"
    PRECISION = "precision"
    TYPE = "type"
    SHAPE = "shape"
    GRADIENT = "gradient factor"
    VALUE = "value"
    # against other records
    OTHER_RECORD = "other record"
    RESIDUAL = "residual"
    # of a layer that is computed again
    EPS = "eps"
    BATCH_NORM = "batch norm mode"
    GROUPS = "groups"
    VARIANCE = "variance"
    ACTIVATION = "activation"
    INTERPOLATION = "interpolation"
    GEOMETRY = "geometry"
    BIAS = "bias"
    WEIGHT = "weight"
    ATTENTION = "attention"
    DETACH = "detach"
    FROZEN = "frozen"
    # where the difference is, not what
    NOT_FINITE = "not finite"
    PLACE = "place"

    @property
    def is_place(self) -> bool:
        """Tell whether it says where elements differ, and not what the difference is."""
        return self in (DiagnosisKind.NOT_FINITE, DiagnosisKind.PLACE)


@dataclass(frozen=True)
class Diagnosis:
    """What the difference of one record is.

    Attributes:
        kind: what sort.
        text: a phrase for a person, without a full stop.
        residual: what remains of the difference once it is undone, as a share of the record's size; 0 if every bit is
            explained.
        gap: the difference itself as the same share; infinite where shapes differ.
        rank: how much the explanation assumes; of several that hold, the least is stated.
        record: key of the new side's record.
    """

    kind: DiagnosisKind
    text: str
    residual: float
    gap: float
    rank: int = 0
    record: Key | None = None

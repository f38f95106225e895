"""Errors of this package; the message of each is one sentence that fits on one line."""

from __future__ import annotations

from collections.abc import Iterable

from legacy_adapters.family import FamilyError as FamilyError
from legacy_adapters.ground import words


class CheckpointError(Exception):
    """A file cannot be read as a checkpoint."""


class MalformedError(CheckpointError):
    """What is wrong inside a file, said without its name."""


class OutputExistsError(Exception):
    """The file to write is already there and nobody asked to replace it."""


class AlreadyConvertedError(Exception):
    """The source already has the layout that was asked for."""


class VerificationError(Exception):
    """A file is not what its manifest says, or has none."""


class ClassMapError(Exception):
    """A class map cannot be read, or asks for classes that are not there."""


class ConversionError(Exception):
    """A checkpoint was read, but does not fit what it should be converted with."""


class MappingError(ConversionError):
    """A mapping contradicts itself; raised when it is built."""


class NotOneToOneError(MappingError):
    """A key becomes several, or a part of one, where one name was asked for."""


class NotInvertibleError(ConversionError):
    """A conversion needs values that the rules left out on the way there."""


class RuleFileError(MappingError):
    """A file of rules cannot be read, or says something that is no rule."""


class RestDiffersError(ConversionError):
    """What a rule says to be one number is not, or cannot be held by the dtype."""


class DetectionError(ConversionError):
    """Keys and shapes fit no known layout."""


class ClassCountError(ConversionError):
    """The source was trained for another number of classes than the variant."""


class UnmappedKeyError(ConversionError):
    """A source key is matched by no rule."""


class DuplicateDiffersError(ConversionError):
    """A key that should repeat another one bit by bit does not."""


class CollisionError(ConversionError):
    """One key is used, or produced, twice."""


class UnexpectedKeyError(ConversionError):
    """A key was produced that the target layout does not have."""


class MissingKeyError(ConversionError):
    """A key of the target layout was not produced."""


class ShapeMismatchError(ConversionError):
    """A tensor has another shape than the target layout says."""


class DtypeMismatchError(ConversionError):
    """A tensor has another dtype than the target layout says."""


class CastError(ConversionError):
    """A number cannot be held in the dtype that was asked for."""


class OptimizerError(ConversionError):
    """An optimizer's state, or a schedule's, does not fit the model."""


class PartsError(ConversionError):
    """A part that was asked for is not there, or cannot be written in that form."""


def listed(items: Iterable[str], shown: int = 3) -> str:
    """Join the first few items and count the rest: "`a`, `b`, `c` and 5 more"."""
    names = list(items)
    text = ", ".join(f"`{name}`" for name in names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown} more"


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, or its class if it has none."""
    return words.one_line(str(error)) or type(error).__name__

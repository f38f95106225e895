"""Why a hook ends a training. The text of each is one or two lines, made to be shown without a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .not_finite import Cause


class TrainingStopped(RuntimeError):
    """Base of all reasons for which a hook of this package ends a training."""


class ResumeRefusedError(TrainingStopped):
    """A checkpoint cannot be resumed as it was left: what it was saved with is not what is there now."""


class NonFiniteLossError(TrainingStopped):
    """A loss, or what it is made of or makes, is NaN or infinite.

    Attributes:
        iteration: number of the iteration, from 1.
        terms: name and value of each loss term that is not finite.
        images: path of each image of the batch, or its id where the batch holds no paths.
        cause: what was not finite first; None if that is not known.
    """

    def __init__(
        self,
        text: str,
        iteration: int,
        terms: dict[str, float],
        images: Sequence[str],
        cause: Cause | None = None,
    ) -> None:
        super().__init__(text)
        self.iteration, self.terms, self.images, self.cause = iteration, dict(terms), tuple(images), cause

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.iteration, self.terms, self.images, self.cause)

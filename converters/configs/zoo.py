"""The configs that come with a code base, and what is tried with each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .kinds import Translation


@dataclass(frozen=True)
class Entry:
    """A config of a code base.

    Attributes:
        name: of it, among those of the code base.
        architecture: what it is of: the classes that its model is made of, in a line.
        is_pick: it stands for its architecture.
        lacking: why it cannot be tried at all; empty if it can.
    """

    name: str
    architecture: str
    is_pick: bool
    lacking: str = ""


@dataclass(frozen=True)
class Case:
    """A config as it is tried.

    Attributes:
        legacy: path of the config of the legacy side.
        new: path of the one that was written for the new side.
        translation: what became of the config.
        width: of the model's layers, as a share of the config's own; 1 if they are as they were.
    """

    legacy: Path
    new: Path
    translation: Translation
    width: float


class NarrowError(Exception):
    """A model cannot be made narrow; the message is one line."""


class Zoo(Protocol):
    """The configs that come with a code base.

    Attributes:
        sizes: batches to try, the smallest first: (h, w) of each image in pixels.
        undoing: adapter of the new side with what its code base itself computes otherwise undone. The provenance of such a
            side says as ``undone`` which deviations those are that its model has, by their numbers.
        deviations: the page that tells of them.
        of_rounding: numbers of those that show in rounding alone.
    """

    sizes: tuple[tuple[tuple[int, int], ...], ...]
    undoing: Path
    deviations: str
    of_rounding: tuple[str, ...]

    def shown(self, numbers: Sequence[str], checks: Sequence[str], is_exact: bool) -> tuple[str, ...]:
        """Return those of the deviations that can show in a comparison; all, if none can.

        Args:
            numbers: of the deviations.
            checks: what is compared.
            is_exact: whether that is bit by bit, with scale factors that are powers of two.
        """

    def entries(self, repo: Path, is_wanted: Callable[[str], bool]) -> tuple[Entry, ...]:
        """Return the configs of the code base in a folder, in the order of their names; of these some are picks.

        Args:
            repo: folder of the code base.
            is_wanted: tells by its name whether a config is looked at.

        Raises:
            FamilyError: if there are no configs.
        """

    def case(self, repo: Path, name: str, folder: Path, narrow: bool) -> Case:
        """Write both configs of a model into a folder.

        Args:
            repo: folder of the code base.
            name: of the config.
            folder: that takes them.
            narrow: make the layers of both narrow, where that leaves the model what it is.

        Raises:
            FamilyError: if the config cannot be read.
            NarrowError: if the model cannot be made narrow.
        """

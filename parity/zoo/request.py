"""What is asked of one config of the zoo; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    """What to try.

    Attributes:
        family: name or folder.
        repo: folder of the legacy code base.
        name: of the config.
        architecture: as in :class:`converters.configs.zoo.Entry`.
        narrow: make layers narrow where that is possible.
        checks: some of ``forward``, ``loss``, ``grad``.
        seed: of weights, inputs and draws.
        threads: of a side.
        time_limit: of each run of a side, in seconds.
        exact_only: leave out the comparison under derived tolerance.
        lacking: why it cannot be tried at all; empty if it can.
    """

    family: str
    repo: str
    name: str
    architecture: str
    narrow: bool
    checks: tuple[str, ...]
    seed: int
    threads: int
    time_limit: float
    exact_only: bool = False
    lacking: str = ""

    def as_plain(self) -> dict[str, Any]:
        """Return what JSON gives back as it is."""
        return {**asdict(self), "checks": list(self.checks)}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Request:
        """Undo :meth:`as_plain`."""
        return cls(**{**data, "checks": tuple(data["checks"])})

"""Models in processes of their own: two code bases may not be importable in one."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from converters.errors import CheckpointError
from converters.suggesting import worker

if TYPE_CHECKING:
    import numpy as np


class RunError(Exception):
    """A model cannot be run; the message is one line."""


@dataclass(frozen=True)
class Run:
    """What a model computed.

    Attributes:
        outputs: Its tensors, in their order.
        calls: Of every call of a module, in the order in which they ended, and every floating tensor that it was given
            or gave: the module's path, `in` or `out`, and the number of elements and the sums of their absolute values
            and squares.
        idle: Parameters that no output depends on, and buffers of which that is not known; empty where that was not
            asked.
    """

    outputs: tuple[np.ndarray, ...]
    calls: tuple[tuple[str, str, tuple[float, ...]], ...]
    idle: tuple[str, ...] = ()


class ModelProcess:
    """A model that a file builds, in a process of its own; to be used in a `with` statement."""

    def __init__(self, file: str | Path, seed: int) -> None:
        """Start it.

        Raises:
            CheckpointError: If the file has no model that can be built.
        """
        self.file = Path(file)
        self._process = subprocess.Popen(
            [sys.executable, "-m", worker.__name__, str(file), str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            self._answer()
        except RunError as error:
            self.__exit__(None, None, None)
            raise CheckpointError(f"Cannot take a model from `{file}`: {error}.") from error

    def __enter__(self) -> ModelProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()

    def state(self) -> dict[str, np.ndarray]:
        """Return its weights by key.

        Raises:
            RunError: If the process has ended.
        """
        return self._ask("state")

    def kinds(self) -> dict[str, str]:
        """Return by key the class of the module that holds it, and its name in there.

        Raises:
            RunError: If the process has ended.
        """
        return self._ask("kinds")

    def inputs(self) -> Any:
        """Return what its file says it is called with; None if it does not say.

        Raises:
            RunError: If that cannot be made.
        """
        return self._ask("inputs")

    def run(self, weights: Mapping[str, np.ndarray], inputs: Any, precise: bool, with_gradients: bool = False) -> Run:
        """Put weights into it, call it and return what it computes.

        Args:
            weights: By key; all others stay as they are.
            inputs: What it is called with: a dict for names, a tuple for several, anything else alone.
            precise: In float64; in float32 otherwise.
            with_gradients: Whether to look for parameters without effect.

        Raises:
            RunError: If it cannot be run.
        """
        found = self._ask("run", dict(weights), inputs, precise, with_gradients)
        return Run(tuple(found["outputs"]), tuple(found["calls"]), tuple(found["idle"]))

    def _ask(self, name: str, *arguments: Any) -> Any:
        try:
            worker.send(self._process.stdin, (name, arguments))
        except BrokenPipeError as error:
            raise RunError("its process has ended") from error
        return self._answer()

    def _answer(self) -> Any:
        try:
            done, value = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            raise RunError(f"its process ended with code {self._process.wait()}") from error
        if not done:
            raise RunError(value)
        return value

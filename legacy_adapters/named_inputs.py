"""The inputs of a phase by name, which say what there is when another name is asked for.

Imports the standard library only, for :mod:`.contract`, which has to work without torch.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping


class MissingInputError(KeyError):
    """An adapter asks for an input that its phase does not have; the message goes on after the adapter's place."""

    def __str__(self) -> str:
        return str(self.args[0])


class NamedInputs(Dict[str, Any]):
    """The inputs of a phase by name; to ask for another name is an error that lists those that there are.

    Args:
        phase: of a run.
        tensors: by name.
    """

    def __init__(self, phase: str, tensors: Mapping[str, Any]) -> None:
        super().__init__(tensors)
        self.phase = phase

    def __missing__(self, name: str) -> Any:
        raise MissingInputError("asks for the input `{}`, but {}".format(name, self.described))

    @property
    def described(self) -> str:
        """Say which inputs there are, for a message."""
        return "phase {} has {}".format(self.phase, ", ".join("`{}`".format(name) for name in sorted(self)))

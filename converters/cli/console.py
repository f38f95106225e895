"""How `ddq-convert` ends: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from converters import errors
from legacy_adapters.ground.console import BAD_INPUT, Failure, OneLineErrors
from legacy_adapters.ground.names import TOOLKIT
from legacy_adapters.ground.packages import EXTRAS, OF_EXTRAS, missing

UNFIT = 1


class ByteSize(click.ParamType):
    """A number of bytes such as `5GB`, `500MB` or `64MiB`."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([0-9]+) ?([KMGT]?)(i?)B?", str(value).strip(), re.IGNORECASE)
        if found is None or int(found[1]) == 0:
            self.fail(f"{value!r} is not a size; write it like 5GB, 500MB or 64MiB.", param, ctx)
        return int(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " ")


class OneLineGroup(OneLineErrors, click.Group):
    """A click group that reports every error, its own included, as one line on stderr."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for one that is not there name what may be meant."""
        name = args[0] if args else ""
        if name not in self.commands and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.commands, n=1)
            meant = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(self.commands)}."
            ctx.fail(f"No such command `{name}`; {meant}")
        return super().resolve_command(ctx, args)

    def explained(self, error: Exception) -> str | None:
        """Say what is not installed, or that stdout cannot be written; what the library reads is in `exit_codes`."""
        if isinstance(error, ImportError):
            if (error.name or "").partition(".")[0] in TOOLKIT:
                return None
            if (name := missing(error)) in OF_EXTRAS:
                return f"{name} is not installed; install it with {EXTRAS}."
            return str(error) if error.msg.endswith(".") else f"Cannot import: {error}; is it installed here?"
        # what is still to be written would fail again, with a traceback, when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return f"Cannot write the result to stdout: {getattr(error, 'strerror', None) or error}."


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn the errors of the library into exit codes."""
    try:
        yield
    except (errors.ConversionError, errors.VerificationError) as error:
        raise Failure(str(error), UNFIT) from error
    except (
        errors.CheckpointError,
        errors.OutputExistsError,
        errors.AlreadyConvertedError,
        errors.FamilyError,
        errors.ClassMapError,
    ) as error:
        raise Failure(str(error), BAD_INPUT) from error
    except OSError as error:
        raise Failure(of_system(error), BAD_INPUT) from error


def of_system(error: OSError) -> str:
    """Say in a sentence what the system refused; errors of our own say it already."""
    if error.errno is None:
        return str(error)
    where = f" `{error.filename}`" if error.filename is not None else ""
    return f"Cannot read or write{where}: {error.strerror or error}."

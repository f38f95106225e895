"""How a training or an evaluation ends: its log on stderr, its error in one line, the traceback of a bug in the log."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.runner import Runner

from ddq_port.checkpoints import CheckpointFileError
from ddq_port.data.own import OwnDataError
from ddq_port.hooks import ResumeRefusedError, TrainingStopped
from ddq_port.training.checks.agreement import AgreementError
from ddq_port.training.checks.check_data import DataError
from ddq_port.training.checks.preflight import NotRecordedError, PreflightError
from ddq_port.training.launch import LaunchError
from ddq_port.training.loading.weights import WeightsError
from ddq_port.training.output.console import NOT_SO
from ddq_port.training.settings.options import ConfigError
from legacy_adapters.ground.console import BAD_INPUT, Failure, message
from legacy_adapters.ground.words import one_line

_BAD_INPUT = (
    ConfigError,
    AgreementError,
    OwnDataError,
    WeightsError,
    LaunchError,
    CheckpointFileError,
    ResumeRefusedError,
    NotRecordedError,
)
_RECORD = re.compile(
    r"\d\d/\d\d \d\d:\d\d:\d\d - \S+ - (WARNING - |(ERROR|CRITICAL) - (\S+ - \S+ - \d+ - )?)(?P<text>.+)", re.DOTALL
)  # mmengine's format
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NO_NEWS = (
    "is skipped since its requires_grad=False",  # a frozen parameter, one line for each
    "deprecated",
    "in an upcoming release",
    "Converting a tensor with requires_grad=True",  # mmengine logs losses so
)
_FIND_IMAGE = "`ddq-train check-data ANN --images IMAGES` names all such files and says what is wrong with them"
_OUT_OF_MEMORY = "pass --amp, or smaller batches with --cfg-options train_dataloader.batch_size=1 --auto-scale-lr"


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Turn what may go wrong in a training into one line and an exit code; let bugs pass."""
    try:
        yield
    except _BAD_INPUT as error:
        raise Failure(str(error), BAD_INPUT) from error
    except (PreflightError, TrainingStopped, DataError) as error:
        raise Failure(str(error), NOT_SO) from error
    except torch.OutOfMemoryError as error:
        raise Failure(f"{str(error).splitlines()[0]} To need less, {_OUT_OF_MEMORY}.", NOT_SO) from error
    except OSError as error:
        raise Failure(f"Cannot read or write: {_last_line(error)}", BAD_INPUT) from error
    except Exception as error:
        if _of_a_registry(error):
            raise Failure(f"The config does not fit: {str(error.args[0]).partition('. ')[0]}.", BAD_INPUT) from error
        if not _of_an_image(error):
            raise
        what = "its file is empty" if "buf.empty()" in str(error) else _last_line(error)
        raise Failure(f"An image cannot be loaded: {what}. {_FIND_IMAGE}.", BAD_INPUT) from error


def _of_a_registry(error: Exception) -> bool:
    """Tell whether mmengine raised it because it knows no class of a name that a config gives as `type`."""
    return isinstance(error, KeyError) and bool(error.args) and " registry. Please check" in str(error.args[0])


def _of_an_image(error: Exception) -> bool:
    """Tell whether mmcv's loader or OpenCV's decoder raised it, here or in a data loader's worker."""
    if type(error).__module__ == "cv2":
        return "imdecode" in str(error)
    return isinstance(error, AssertionError) and "failed to load image" in str(error)


def _last_line(error: Exception) -> str:
    """Return the line that says it; errors of a data loader's worker have its traceback before it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1]


@contextlib.contextmanager
def logs_on_stderr(quiet: bool, verbose: bool = False) -> Iterator[None]:
    """Keep stdout for results: what mmengine and pycocotools print goes to stderr if asked for.

    Args:
        quiet: print neither that nor warnings.
        verbose: print all of it; otherwise warnings only, a line each.
    """
    with contextlib.ExitStack() as stack:
        if quiet:
            target = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(warnings.catch_warnings(action="ignore"))
        elif verbose:
            target = sys.stderr
        else:
            target = _WarningsOfLog()
            stack.enter_context(warnings.catch_warnings())
            warnings.showwarning = _show_warning
        stack.enter_context(contextlib.redirect_stdout(target))
        yield


class _WarningsOfLog(io.TextIOBase):
    """Takes what is printed, and passes on the warnings and errors of mmengine's log, which writes one at a time."""

    def write(self, text: str) -> int:
        """Pass on a record of the log as a line on stderr, if it is a warning that says something to its reader."""
        record = _RECORD.match(_COLOUR.sub("", text))
        if record and not any(phrase in record["text"] for phrase in _NO_NEWS):
            _warn(record["text"])
        return len(text)


def _show_warning(
    text: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None
) -> None:
    """Show what Python's `warnings` are given, but for those that are meant for programmers."""
    for_programmers = issubclass(category, DeprecationWarning | PendingDeprecationWarning | FutureWarning)
    if not for_programmers and not any(phrase in str(text) for phrase in _NO_NEWS):
        _warn(str(text))


def _warn(text: str) -> None:
    message(f"warning: {one_line(text)}", color="yellow")


@contextlib.contextmanager
def told_in_log(runner: Runner) -> Iterator[None]:
    """Write the traceback of an error into the runner's log file, which is what is left of a long training."""
    try:
        yield
    except Exception as error:
        record = runner.logger.makeRecord(
            runner.logger.name,
            logging.ERROR,
            __file__,
            0,
            "ended by an error",
            (),
            (type(error), error, error.__traceback__),
        )
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handle(record)
        raise

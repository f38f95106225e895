"""How a training or an evaluation ends: its log on stderr, its error in one line, the traceback of a bug in the log."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

import torch
from mmengine.runner import Runner

from ddq_port.checkpoints import CheckpointFileError
from ddq_port.data.own import OwnDataError
from ddq_port.hooks import ResumeRefusedError, TrainingStopped
from ddq_port.training.agreement import AgreementError
from ddq_port.training.check_data import DataError
from ddq_port.training.config import ConfigError
from ddq_port.training.console import BAD_INPUT, NOT_SO, Failure
from ddq_port.training.launch import LaunchError
from ddq_port.training.preflight import NotRecordedError, PreflightError
from ddq_port.training.weights import WeightsError

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


def _last_line(error: Exception) -> str:
    """Return the line that says it; errors of a data loader's worker have its traceback before it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1]


@contextlib.contextmanager
def logs_on_stderr(quiet: bool) -> Iterator[None]:
    """Send what mmengine and pycocotools print to stderr, or nowhere with their warnings; stdout is for results."""
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(open(os.devnull, "w")) if quiet else sys.stderr
        stack.enter_context(contextlib.redirect_stdout(target))
        if quiet:
            stack.enter_context(warnings.catch_warnings(action="ignore"))
        yield


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

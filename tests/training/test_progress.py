"""What a person sees on stderr while a training or an evaluation runs."""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from mmengine.logging import MMLogger

from ddq_port.training.cli import cli as train
from ddq_port.training.endings import logs_on_stderr
from ddq_port.training.eval_cli import cli as evaluate
from ddq_port.training.output import progress
from legacy_adapters.ground import console, words

from . import toy


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def toy_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, **settings) -> str:
    record = toy.Record()
    run = toy.runner(tmp_path, record, hooks=[progress.ProgressHook()], **settings, **toy.validation(1))
    monkeypatch.setattr(sys, "stderr", stream)
    run.train()
    return stream.getvalue()


def test_lines_below_one_another(tmp_path, monkeypatch):
    lines = toy_lines(tmp_path, monkeypatch, io.StringIO(), by_epoch=True).splitlines()
    assert lines[0].startswith("epoch 1 of 3  step 1 of 21  loss ") and lines[0].endswith(" left")
    assert [line for line in lines if "validated" in line] == [
        f"validated after step {7 * n}  toy/score {n}.000" for n in (1, 2, 3)
    ]
    assert lines[-2].startswith("epoch 3 of 3  step 21 of 21  loss ") and "toy/score 2.000  0:00 left" in lines[-2]
    assert len(lines) == 5 and max(map(len, lines)) < 80


def test_a_line_that_is_kept_up_to_date(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_BETWEEN_UPDATES", 0.0)
    written = toy_lines(tmp_path, monkeypatch, Terminal(), by_epoch=False)
    parts = written.split("\r\x1b[K")
    assert len(re.findall(r"step \d+ of 21  loss", written)) == 21 and "epoch" not in written
    assert all("\n" not in part for part in parts if part.startswith("validating"))
    assert written.count("\n") == 22  # 21 validations and the last step
    assert not console._status_shown


def test_every_line_is_rarer_as_time_goes_by(monkeypatch):
    hook, now = progress.ProgressHook(), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    hook._start()
    told = []
    for second in range(0, 20000, 5):
        now[0] = float(second)
        if hook._due(False):
            told.append(second)
    pauses = [two - one for one, two in zip(told, told[1:])]
    assert told[0] == 15 and pauses == sorted(pauses) and pauses[-1] == 300


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (98765, "27:26:05")]
)
def test_clock(seconds, text):
    assert progress.clock(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 threads"), (1, "1 thread"), (2, "2 threads")])
def test_counted(number, text):
    assert words.counted(number, "thread") == text


@pytest.mark.parametrize(
    ("batch", "batches", "text"), [(0, 4, "2 of 7 images"), (3, 4, "7 of 7 images"), (1, 2, "7 of 7 images")]
)
def test_images(batch, batches, text):
    class Loader:
        dataset = range(7)

        def __len__(self) -> int:
            return batches

    assert progress._images(Loader(), batch) == text


@pytest.fixture
def logger(monkeypatch):
    """Return a maker of loggers that print as mmengine's do, made within the context."""
    numbers = iter(range(100))
    return lambda: MMLogger(f"progress{next(numbers)}", log_level=logging.INFO)


@pytest.mark.parametrize(
    ("quiet", "verbose", "expected"),
    [
        (False, False, ["warning: something is wrong", "warning: it broke", "warning: python warns"]),
        (True, False, []),
    ],
)
def test_warnings_are_shown_and_the_log_is_not(logger, monkeypatch, quiet, verbose, expected):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with logs_on_stderr(quiet, verbose):
        log = logger()
        log.info("System environment: ...")
        log.warning("something\nis wrong")
        log.warning("backbone.conv1.weight is skipped since its requires_grad=False")
        log.error("it broke")
        print(" Average Precision  (AP) @[ IoU=0.50:0.95 ] = 0.000")
        warnings.warn("python warns", RuntimeWarning, stacklevel=1)
        warnings.warn("of no interest", DeprecationWarning, stacklevel=1)
    assert stream.getvalue().splitlines() == expected


def test_verbose_prints_the_log(logger, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with logs_on_stderr(False, True):
        logger().info("System environment")
        print("table")
    assert "System environment" in stream.getvalue() and "table" in stream.getvalue()


def test_commands_show_progress_and_where_the_log_is(config, tmp_path):
    """In 80 columns; the environment and the config are in the log file."""
    words = [config, "--work-dir", str(tmp_path / "work"), "--no-preflight", "--no-check-data", "--seed", "1"]
    trained = CliRunner().invoke(train, words, catch_exceptions=False)
    assert trained.exit_code == 0
    lines = trained.stderr.splitlines()
    (log,) = (line.removeprefix("log ") for line in lines if line.startswith("log "))
    text = Path(log).read_text()
    assert "System environment" in text and "optim_wrapper = dict(" in text
    assert "System environment" not in trained.stderr and "Average Precision" not in trained.stderr
    assert any(line.startswith("epoch 1 of 1  step 2 of 2  loss ") for line in lines) and len(lines) <= 6, lines
    assert lines[-1].startswith("validated after step 2  AP 0.")

    evaluated = CliRunner().invoke(evaluate, [config, str(tmp_path / "work" / "epoch_1.pth")], catch_exceptions=False)
    assert evaluated.exit_code == 0 and evaluated.stderr == "evaluating: 4 of 4 images  0:00 left\n"
    assert "coco/bbox_mAP " in evaluated.stdout and "Average Precision" not in evaluated.stdout


def test_loss_is_fetched_for_lines_only():
    hook, fetched = progress.ProgressHook(), []

    class Loss(torch.Tensor):
        def __float__(self) -> float:
            fetched.append(1)
            return 1.0

    runner = SimpleNamespace(iter=0, max_iters=1000, epoch=0, train_loop=None)
    hook.before_train(runner)
    for runner.iter in range(50):
        hook.after_train_iter(runner, 0, None, dict(loss=torch.ones(()).as_subclass(Loss)))
    assert len(fetched) == 1

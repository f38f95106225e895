"""A training of the detector that SIGKILL ends five times, and that is resumed each time."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from . import children, killed

KILLS = 5
_PATIENCE = 300  # seconds, of a slow machine


def lines(work_dir: Path) -> list[str]:
    """Return what was written so far, without a line that is being written."""
    path = work_dir / killed.LOSSES
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []


def kill_at(iteration: int, delay: float, data: Path, work_dir: Path) -> None:
    """Begin or go on, and kill when the losses of ``iteration`` stand there and ``delay`` seconds have passed."""
    child = children.start(killed.train, str(data), str(work_dir))
    deadline = time.monotonic() + _PATIENCE
    while not any(line.startswith(f"{iteration} ") for line in lines(work_dir)):
        assert child.is_alive() and time.monotonic() < deadline, f"iteration {iteration} was not reached"
        time.sleep(0.005)
    time.sleep(delay)
    child.kill()
    child.join()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    killed.generate(folder)
    return folder


def test_training_killed_five_times_takes_the_steps_of_one_that_runs_through(data: Path, tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = children.start(killed.train, str(data), str(tmp_path / "whole"))
    whole.join(_PATIENCE)
    assert whole.exitcode == 0
    expected = dict(line.split(" ", 1) for line in lines(tmp_path / "whole"))
    assert list(expected) == [str(number + 1) for number in range(killed.ITERATIONS)]

    chance = random.Random(0)
    # iterations at which an epoch ends or a checkpoint is written may be among them
    moments = sorted(chance.sample(range(4, killed.ITERATIONS - 2), KILLS))
    for moment in moments:
        kill_at(moment, chance.uniform(0, 0.3), data, tmp_path / "killed")
    last = children.start(killed.train, str(data), str(tmp_path / "killed"))
    last.join(_PATIENCE)
    assert last.exitcode == 0

    found = [line.split(" ", 1) for line in lines(tmp_path / "killed")]
    # some iterations were taken twice, first by a training that was killed behind them
    assert len(found) > killed.ITERATIONS and {number for number, _ in found} == set(expected)
    assert [number for number, terms in found if terms != expected[number]] == []

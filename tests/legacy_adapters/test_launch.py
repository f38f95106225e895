"""Only what this very run reported counts: a side that dies is never taken for an earlier one that did not."""

import sys

import pytest

from legacy_adapters import launch
from legacy_adapters.job import Job
from legacy_adapters.launch import SideError, run_side

REPORT = """
import json, pathlib, sys
job = json.load(open(sys.argv[1]))
trace = pathlib.Path(job["trace"])
trace.mkdir()
(trace / "index.json").write_text("{}")
pathlib.Path(job["status"]).write_text(json.dumps(dict(ok=True, error="", traceback="")))
"""
DIE = "import os; print('out of memory', flush=True); os._exit(9)"


@pytest.fixture
def side(tmp_path, monkeypatch):
    """Return a function that runs a worker of the given code, always in the same folder."""
    worker = tmp_path / "worker.py"
    monkeypatch.setattr(launch, "WORKER", worker)
    trace, status = str(tmp_path / "toy"), str(tmp_path / "toy.status.json")
    job = Job("toy", "tiny", "", {}, "", "", trace, status, ("forward",), seed=0, threads=1, cpu_capability=None,
              device="cpu")  # fmt: skip

    def call(code, **more):
        worker.write_text(code)
        run_side("toy", job, tmp_path, sys.executable, 60.0, other_python=False, **more)

    return call


def test_side_that_dies_does_not_pass_for_an_earlier_one(side, tmp_path):
    side(REPORT)
    assert (tmp_path / "toy" / "index.json").is_file()
    with pytest.raises(SideError, match=r"The toy side ended without a report \(exit code 9\)") as caught:
        side(DIE)
    assert caught.value.details == "out of memory"
    assert not (tmp_path / "toy").exists() and not (tmp_path / "toy.status.json").exists()


def test_side_that_runs_again_starts_with_an_empty_folder(side, tmp_path):
    side(REPORT)
    (tmp_path / "toy" / "old").touch()
    side(REPORT)
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["index.json"]


def test_side_that_dies_after_its_report_crashed(side):
    with pytest.raises(SideError, match="The toy side reported success but ended with exit code 9, expected 0"):
        side(f"{REPORT}\n{DIE}")


def test_messages_name_a_side_as_they_are_told(side):
    with pytest.raises(SideError, match="^The argument-saving side ended without a report"):
        side(DIE, called="argument-saving")

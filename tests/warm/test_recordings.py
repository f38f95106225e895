"""A recording is written again for equal jobs only, and nothing that a test does to one reaches another."""

import json
import os
import shutil

import pytest

from . import recordings
from .recordings import recalled


@pytest.fixture
def side(tmp_path, monkeypatch):
    """Return a function that asks for a job's trace; it tells how often the job was really done."""
    monkeypatch.setenv(recordings.VARIABLE, str(tmp_path / "recordings"))
    (tmp_path / "recordings").mkdir()
    adapter = recordings._ROOT / "tests" / "legacy_adapters" / "toy_adapter.py"
    times = []

    def call(name, ok=True, variables=None, weights=b"w", **changes):
        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "weights").write_bytes(weights)
        fields = dict.fromkeys((*recordings._READ, *recordings._WRITTEN, *recordings._OTHERS, "states", "beside"))
        paths = dict(weights=str(folder / "weights"), inputs=str(folder / "weights"))
        written = dict(trace=str(folder / name), status=str(folder / "status"), adapter=str(adapter))
        job = {**fields, "device": "cpu", "ranks": 1, "patience": 9.0, "step_inputs": [], "foreign": ["port"], "seed": 0}
        job |= {**paths, **written, **changes}
        (folder / "job").write_text(json.dumps(job))

        def work():
            times.append(name)
            (folder / name).mkdir()
            (folder / name / "index.json").write_text(json.dumps(dict(provenance=dict(files=[str(adapter)]), by=name)))
            (folder / name / "trace-1.safetensors").write_bytes(b"numbers")
            (folder / "status").write_text(json.dumps(dict(ok=ok)))
            (folder / "log").write_text("printed")
            return 0 if ok else 1

        assert recalled(str(folder / "job"), folder / "log", variables or {}, work) == (0 if ok else 1)
        return len(times), json.loads((folder / name / "index.json").read_text())["by"]

    return call


def test_an_equal_job_is_done_once(side, tmp_path):
    assert side("one") == (1, "one")
    assert side("two", patience=5.0) == (1, "one")
    assert (tmp_path / "two" / "two" / "trace-1.safetensors").read_bytes() == b"numbers"
    assert (tmp_path / "two" / "log").read_text() == "printed"
    assert side("two", variables=dict(PYTEST_CURRENT_TEST="another")) == (1, "one")


@pytest.mark.parametrize(
    "changes",
    [dict(seed=1), dict(weights=b"v"), dict(variables=dict(THREADS="2")), dict(checkpoint_from=__file__),
     dict(adapter=str(recordings._ROOT / "parity" / "adapters" / "ddq_port.py")), dict(ranks=2)],
    ids=str,
)  # fmt: skip
def test_another_job_is_done(side, changes):
    side("one")
    assert side("two", **changes) == (2, "two")


@pytest.mark.parametrize(
    "changes", [dict(images="x"), dict(device="cuda"), dict(adapter=__file__ + "/../../faults/adapter.py")], ids=str
)
def test_what_is_not_shared_is_always_done(side, changes):
    side("one", **changes)
    assert side("two", **changes) == (2, "two")


def test_failures_are_not_kept(side):
    assert [side("one", ok=False), side("two"), side("three")] == [(1, "one"), (2, "two"), (2, "two")]


def test_outside_of_a_run_of_tests_every_job_is_done(side, monkeypatch):
    side("one")
    monkeypatch.delenv(recordings.VARIABLE)
    assert side("two") == (2, "two")


def test_what_the_recorded_process_holds_of_the_other_side_is_for_the_job_to_say(side, tmp_path):
    side("one")
    assert side("two", foreign=["port", str(tmp_path)]) == (1, "one")
    assert side("three", foreign=["port", str(recordings._ROOT / "tests")]) == (2, "three")
    assert side("four", foreign=["port", "more"]) == (3, "four")


def test_what_the_recorded_process_has_checked_itself_is_not_looked_for_again(side):
    """It may hold a file of the port that is excepted there, which its provenance lists."""
    foreign = ["port", str(recordings._ROOT / "tests")]
    side("one", foreign=foreign)
    assert side("two", foreign=foreign) == (1, "one")
    assert side("three", foreign=[*foreign, __file__]) == (1, "one")


def test_fault_that_the_environment_names_matters_to_who_plants_it(side):
    side("one", variables={recordings.FAULT: "a"})
    assert side("two", variables={recordings.FAULT: "b"}) == (1, "one")
    planting = dict(adapter=str(recordings._ROOT / "tests" / "parity" / "planted" / "fault.py"))
    side("three", variables={recordings.FAULT: "a"}, **planting)
    assert side("four", variables={recordings.FAULT: "b"}, **planting) == (3, "four")


def test_change_in_place_is_told(side, tmp_path):
    side("one")
    side("two")
    (tmp_path / "two" / "two" / "index.json").write_text("{}")  # is a file of its own
    assert side("three") == (1, "one")
    os.utime(tmp_path / "two" / "two" / "trace-1.safetensors", (1, 1))
    with pytest.raises(RuntimeError, match="changed the tensors of a recorded trace in place"):
        side("four")


def test_recordings_that_were_asked_for_longest_ago_make_room(side, monkeypatch):
    monkeypatch.setattr(recordings, "ROOM", 2 * len(b"numbers"))
    side("one", seed=1)
    side("two", seed=2)
    assert side("again", seed=1) == (2, "one")
    side("three", seed=3)
    assert [side("first", seed=1), side("third", seed=3)] == [(3, "one"), (3, "three")]
    assert side("second", seed=2) == (4, "second")

"""The engine of a rehearsal: stages, their marks, resuming after a kill, and what differing steps are put down to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from legacy_adapters.whole.steplog import Step
from parity.rehearsal.parting import CAUSES, UPDATE_BY_NORM, part
from parity.rehearsal.running import StageError, environment_of, progress, run_all
from parity.rehearsal.stages import Mark, Stage, begin, keys, read_marks, ready, write_mark

ENVIRONMENT = environment_of(1, "cpu")
STEP = Step(
    step=1, images=(3, 1), pixels="p", objects="o", rates=("0x1p-10",), before="w0", terms={"a": "0x1p+0"},
    total="0x1p+0", norm="0x1.0000000000000p+3", after="w1",
)  # fmt: skip
#: Field -> another value of it.
OTHERS = dict(
    images=(1, 3), pixels="q", objects="q", rates=("0x1p-11",), before="q", terms={"a": "0x1p+1"}, total="0x1p+1",
    norm="0x1p+2", after="q",
)  # fmt: skip
#: Counts up to 6, a step a time, and keeps where it is; says in which step it went on.
COUNTING = """
import json, pathlib, sys, time
place = pathlib.Path(sys.argv[1]); place.mkdir(exist_ok=True)
kept = place / "kept.json"
state = json.loads(kept.read_text()) if kept.is_file() else dict(step=0, sum=0)
with open(place / "begun", "a") as file: file.write(f"{state['step']}\\n")
while state["step"] < 6:
    state = dict(step=state["step"] + 1, sum=3 * state["sum"] + state["step"])
    (place / "new").write_text(json.dumps(state)); (place / "new").replace(kept)
    time.sleep(float(sys.argv[2]))
(place / "result").write_text(str(state["sum"]))
"""


def counting(folder: Path, name: str = "count", pause: float = 0.0, **more) -> Stage:
    place = folder / name
    command = (sys.executable, "-c", COUNTING, str(place), str(pause))
    return Stage(name, "count", command, writes=(place / "result",), **more)


def steps(count: int) -> list[Step]:
    return [replace(STEP, step=number) for number in range(1, count + 1)]


def test_equal_steps_are_identical():
    parting = part(steps(5), steps(5)[2:])
    assert (parting.identical, parting.compared, parting.equal, parting.step) == (True, 3, 3, None)


def test_nothing_in_common_is_not_identical():
    assert not part(steps(2), []).identical


@pytest.mark.parametrize("field", OTHERS)
def test_the_first_thing_that_differs_is_the_cause(field):
    other = steps(4)
    later = dict(OTHERS) if field == "images" else {field: OTHERS[field], "after": "q"}
    other[2] = replace(other[2], **later)
    parting = part(steps(4), other)
    assert (parting.step, parting.equal, parting.field, parting.cause) == (3, 2, field, CAUSES[field])


def test_a_norm_that_differs_in_its_last_bit_is_put_down_to_the_order_of_summing():
    other = [replace(STEP, norm="0x1.0000020000000p+3", after="q")]
    assert part([STEP], other).cause == UPDATE_BY_NORM


def test_losses_may_be_equal_for_longer_than_all_else():
    other = [replace(step, norm="0x1.0000020000000p+3") for step in steps(3)]
    other[2] = replace(other[2], terms={"a": "0x1.8p+0"})
    parting = part(steps(3), other)
    assert (parting.equal, parting.same_losses) == (0, 2)


def test_a_stage_is_done_again_if_its_command_or_what_it_needs_has_changed(tmp_path):
    first, second = Stage("a", "", ("one",)), Stage("b", "", ("two",), needs=("a",))
    before = keys([first, second])
    changed = keys([replace(first, command=("other",)), second])
    assert before["b"] != changed["b"]
    write_mark(tmp_path, second, Mark(before["b"], 0, 1.0))
    assert list(read_marks(tmp_path, [first, second])) == ["b"]
    assert read_marks(tmp_path, [replace(first, command=("other",)), second]) == {}


def test_a_file_that_is_read_counts_as_a_part_of_the_command(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("a = 1")
    stage = Stage("a", "", ("one",), reads=(config,))
    before = keys([stage])
    config.write_text("a = 2")
    assert keys([stage]) != before


def test_a_mark_without_its_files_does_not_count(tmp_path):
    stage = Stage("a", "", ("one",), writes=(tmp_path / "missing",))
    write_mark(tmp_path, stage, Mark(keys([stage])["a"], 0, 1.0))
    assert read_marks(tmp_path, [stage]) == {}


def test_what_another_command_left_is_removed_and_what_the_same_one_left_is_kept(tmp_path):
    stage = Stage("a", "", ("one",), work=tmp_path / "a")
    begin(tmp_path, stage, "key")
    (tmp_path / "a" / "checkpoint").touch()
    begin(tmp_path, stage, "key")
    assert (tmp_path / "a" / "checkpoint").exists()
    begin(tmp_path, stage, "other key")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_stage_waits_for_what_it_needs():
    stages = [Stage("a", "", ()), Stage("b", "", (), needs=("a",)), Stage("c", "", ())]
    assert [stage.name for stage in ready(stages, {}, ["a"])] == ["c"]
    with pytest.raises(ValueError, match="needs b before it"):
        keys([Stage("a", "", (), needs=("b",))])


def test_stages_run_once_and_are_skipped_afterwards(tmp_path):
    stages = [counting(tmp_path), counting(tmp_path, "again", needs=("count",))]
    run_all(tmp_path, stages, 2, ENVIRONMENT, lambda text: None)
    said: list[str] = []
    run_all(tmp_path, stages, 2, ENVIRONMENT, said.append)
    assert [line.partition(":")[0] for line in said] == ["count", "again"]
    assert all("done before" in line for line in said)
    assert (tmp_path / "again" / "begun").read_text() == "0\n"


def test_a_failing_stage_is_named_with_the_end_of_its_log(tmp_path):
    stage = Stage("broken", "", (sys.executable, "-c", "print('why'); raise SystemExit(7)"))
    with pytest.raises(StageError, match="Stage broken ended with exit code 7, expected 0") as raised:
        run_all(tmp_path, [stage], 1, ENVIRONMENT, lambda text: None)
    assert raised.value.details == "why"
    run_all(tmp_path, [replace(stage, accepts=(0, 7))], 1, ENVIRONMENT, lambda text: None)


def test_what_runs_beside_a_failing_stage_is_ended_and_goes_on_later(tmp_path):
    slow = counting(tmp_path, pause=0.5)
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'count' / 'kept.json')!r}).is_file(): time.sleep(0.05)"
    broken = Stage("broken", "", (sys.executable, "-c", f"{waits}\nraise SystemExit(7)"))
    with pytest.raises(StageError, match="Stage broken"):
        run_all(tmp_path, [slow, broken], 2, ENVIRONMENT, lambda text: None)
    kept = tmp_path / "count" / "kept.json"
    step = json.loads(kept.read_text())["step"]
    time.sleep(0.8)
    assert json.loads(kept.read_text())["step"] == step < 6
    run_all(tmp_path, [counting(tmp_path, pause=0.5)], 1, ENVIRONMENT, lambda text: None)
    assert (tmp_path / "count" / "begun").read_text() == f"0\n{step}\n"


def test_a_rehearsal_that_is_killed_goes_on_with_the_same_result(tmp_path):
    one, whole = tmp_path / "killed", tmp_path / "whole"
    one.mkdir()
    whole.mkdir()
    code = (
        "import sys, pathlib; from tests.parity.test_rehearsal import counting; "
        "from parity.rehearsal.running import run_all; folder = pathlib.Path(sys.argv[1]); "
        "run_all(folder, [counting(folder, pause=0.3)], 1, {}, lambda text: None)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(one)], cwd=Path(__file__).parents[2])
    kept = one / "count" / "kept.json"
    while not kept.is_file():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # the kernel ends the stage with it
    step = json.loads(kept.read_text())["step"]
    time.sleep(0.7)
    assert json.loads(kept.read_text())["step"] == step < 6
    run_all(one, [counting(one, pause=0.3)], 1, ENVIRONMENT, lambda text: None)
    run_all(whole, [counting(whole)], 1, ENVIRONMENT, lambda text: None)
    assert (one / "count" / "begun").read_text() == f"0\n{step}\n"
    assert (one / "count" / "result").read_text() == (whole / "count" / "result").read_text()


def test_progress_tells_steps_and_an_estimate(tmp_path):
    log = tmp_path / "steps.jsonl"
    log.write_text("".join(json.dumps(dict(step=number)) + "\n" for number in range(1, 61)))
    training = Stage("train", "", (), steps=100, follow=log)
    later = Stage("later", "", (), steps=100, first=40)
    line = progress([training, later], {}, [(training, 30, 60.0)], jobs=1)
    assert line == "train step 60 of 100; about 3 min left for all trainings"  # 30 steps a minute, 100 left
    assert os.path.exists(log)

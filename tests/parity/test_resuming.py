"""A training that is stopped in mmdet's own DDQ goes on in the port, from the converted checkpoint, and back."""

import json

import pytest
import torch

from converters.carrying import optimizer, parts
from converters.formats.stored import StoredTensor
from legacy_adapters.launch import SideError
from parity.comparing.compare import Tolerance
from parity.comparing.pairing import NEW
from parity.runs import run
from parity.sides.settings import Machine, Sources, Task
from parity.sides.sides import Sides, prepare
from parity.verdict.verdict import MATCH, MISMATCH, ended, judge
from tests.models import NEW_ADAPTER, port

from .conftest import resumed_by_legacy

RESUMED = ("--check", "train", "--steps", "4", "--epoch-length", "2", "--resume-at", "2")
TASK = Task(port("mmdet_ddq", "tiny_4scale"), ((64, 64),), None, 0, ("train",), 4, 2, resume_at=2)


def test_steps_after_the_stop_are_the_same(tiny, tmp_path):
    result = tiny(*RESUMED, "--out", tmp_path / "run", "--json", sizes="64x64")
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["verdict"] == "MATCH" and verdict["identical"] == verdict["records"]
    assert [step["step"] for step in verdict["steps"]] == [2, 3, 4]
    found = {stage["name"]: stage["records"] for stage in verdict["stages"]}
    # what the checkpoint left, then two steps
    assert found["steps: optimizer state"] == 3 * 230 * 3 and found["steps: state afterwards"] == 3 * 506
    # of each the class of optimizer and wrapper and how many gradients the wrapper gathers
    assert found["steps: settings"] == 3 * (230 * 5 + 3) and found["steps: gradients"] == 2 * 230
    told = verdict["provenance"]
    assert not told["legacy"]["resumed"] and told["new"]["resumed"] and told["new"]["resume_at"] == 2
    stopped = torch.load(tmp_path / "run" / "stopped.pth", weights_only=False)
    assert stopped["meta"]["iter"] == 2 and len(stopped["optimizer"]["state"]) == 230


def test_every_bound_of_a_derived_tolerance_holds_too(tiny, monkeypatch):
    monkeypatch.setattr(run, "REPEATS", ())
    result = tiny("--check", "train", "--steps", "2", "--resume-at", "1", "--tolerance", "derived", sizes="64x64")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith("MATCH")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Stop the legacy side's training; return a function that resumes the new side and judges it."""
    folder = tmp_path_factory.mktemp("stopped")
    machine = Machine("cpu", 1, None, 300.0)
    prepared = prepare(TASK, Sources(), machine)
    sides = Sides(TASK, Sources(), machine, prepared, folder)
    legacy = sides.legacy(checkpoint_to=sides.stopped)

    def resumed(adapter=NEW_ADAPTER):
        for path in folder.glob("resumed.new.pth*"):
            path.unlink()
        sides = Sides(TASK, Sources(new_adapter=adapter), machine, prepared, folder)
        with sides.passing(sides.new("new", twin=legacy.records, checkpoint_from=sides.resumed(NEW))) as new:
            return ended(judge(legacy, new, TASK.port.mapping, TASK.port.exclusions, Tolerance()))

    return resumed


def _changed(change):
    """Return a converter of optimizers that changes what the real one makes."""
    regroup = optimizer.regroup

    def changed(*args):
        made = regroup(*args)
        change(made.state_dict)
        return made

    return changed


def _exchanged(state_dict):
    """Give the averages of two parameters of the same shape to one another, as a wrong order would."""
    states = state_dict["state"]
    one, two = [number for number in states if list(states[number]["exp_avg"].shape) == [3, 64]][:2]
    states[one], states[two] = states[two], states[one]


def _forgotten(state_dict):
    state_dict["state"].clear()


def _shifted(state_dict):
    """Give every group the settings of the one before it."""
    groups = state_dict["param_groups"]
    settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    for group, own in zip(groups[1:], settings):
        group.update(own)


def _counted(state_dict):
    for state in state_dict["state"].values():
        state["step"] = StoredTensor.of("float32", (), bytes(4))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_exchanged, "In step 2 the optimizer's `exp_avg` of"),
        (_forgotten, "The optimizer's state of `"),
        (_shifted, "In step 2 `lr` differs for"),
        (_counted, "In step 2 the optimizer leaves 230 of 230 parameters' `step` otherwise"),
    ],
    ids=["averages of two parameters exchanged", "no averages", "settings shifted by a group", "counters from 0"],
)
def test_wrong_optimizer_state_is_named_where_it_is_taken_up(stopped, monkeypatch, change, says):
    monkeypatch.setattr(optimizer, "regroup", _changed(change))
    verdict = stopped()
    assert verdict.outcome == MISMATCH and verdict.divergence.message.startswith(says)


def test_schedule_that_starts_anew_is_named(stopped, monkeypatch):
    per_group = parts._per_group

    def anew(value, slots):
        done = per_group(value, slots)
        return {**done, "last_step": 0, "_global_step": 0} if "last_step" in done else done

    monkeypatch.setattr(parts, "_per_group", lambda value, slots: anew(value, slots) if type(value) is dict else value)
    verdict = stopped()
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "the schedule"


def test_checkpoint_of_another_step_is_refused(stopped, monkeypatch):
    meta = parts.meta
    monkeypatch.setattr(parts, "meta", lambda *args: {**meta(*args), "iter": 1})
    with pytest.raises(SideError, match="was written after step 1, expected 2"):
        stopped()


def test_adapter_without_checkpoints_is_told(stopped, tmp_path):
    (tmp_path / "plain.py").write_text(
        "from parity.adapters.ddq_port import *\n"
        "from legacy_adapters.training.steps import Training\n"
        "mmdet3.EngineTraining.resume = Training.resume\n"
    )
    with pytest.raises(SideError, match="this adapter's training cannot be resumed"):
        stopped(tmp_path / "plain.py")


def test_legacy_side_goes_on_from_the_ports_checkpoint(tmp_path):
    verdict = resumed_by_legacy(tmp_path, "mmdet_ddq")
    assert verdict.outcome == MATCH, verdict.reasons
    phases = {comparison.pair.legacy.phase for comparison in verdict.comparisons}
    assert phases == {"weights", "step 2", "step 3", "step 4"}
    assert verdict.provenance["legacy"]["resumed"] and not verdict.provenance["new"]["resumed"]


def test_training_of_another_precision_is_not_resumed(tiny):
    result = tiny(*RESUMED, "--dtype", "float64", sizes="64x64")
    assert result.exit_code == 2 and "a training of float64 cannot be resumed" in result.stderr


def test_step_to_resume_at_comes_before_the_last(tiny):
    result = tiny("--check", "train", "--steps", "3", "--resume-at", "3", sizes="64x64")
    assert result.exit_code == 2 and "Resume at 3 is not a step before the last of 3" in result.stderr


def test_training_alone_is_not_isolated(tiny):
    result = tiny(*RESUMED, "--isolate", sizes="64x64")
    assert result.exit_code == 2 and "Steps of a training cannot be isolated" in result.stderr

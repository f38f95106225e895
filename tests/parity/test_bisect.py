"""What bisect says and leaves behind; what it finds is tested with models in ``test_isolation.py``."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from converters.rules.ports import port
from legacy_adapters.job import Job
from legacy_adapters.training.phases import phase_of
from parity.cli import commands
from parity.comparing.compare import Tolerance
from parity.runs.bisect import MAY_HAVE_CHANGED, Bisection, told_if_changed
from parity.runs.reproducer import Reproducer, write
from parity.sides.settings import Machine, RunOptions, Sources, Task
from parity.verdict.verdict import with_isolation

from .synthetic import Rec, judged

RIGHT, WRONG = Rec("module_out", "m", [1.0]), Rec("module_out", "m", [2.0])
TRAINED, DRIFTED = (Rec("loss", "total", value, phase=phase_of(1)) for value in (1.0, 2.0))


def merged(folder, new, isolated, legacy=(RIGHT,), **conditions):
    """Return the verdict of a run and an isolated one."""
    verdict = judged(folder / "ordinary", list(legacy), list(new))
    alone = judged(folder / "isolated", [RIGHT], list(isolated), on_new=conditions)
    return with_isolation(verdict, alone, [c.pair.legacy for c in verdict.comparisons])


def test_mismatch_that_isolation_does_not_find_may_be_of_code_that_changed(tmp_path):
    told = told_if_changed(merged(tmp_path, [WRONG], [RIGHT]))
    assert told.reasons[-1] == MAY_HAVE_CHANGED and told.exit_code == 1


@pytest.mark.parametrize(
    ("legacy", "new", "isolated", "conditions"),
    [
        ([RIGHT], [RIGHT], [RIGHT], {}),
        ([RIGHT], [WRONG], [WRONG], {}),
        ([RIGHT], [WRONG], [RIGHT], dict(threads=8)),
        ([RIGHT, TRAINED], [RIGHT, DRIFTED], [RIGHT], {}),
    ],
    ids=["match", "found", "not comparable", "training only"],
)
def test_nothing_is_said_of_changed_code_where_something_else_explains_it(tmp_path, legacy, new, isolated, conditions):
    verdict = merged(tmp_path, new, isolated, legacy, **conditions)
    assert told_if_changed(verdict) == verdict


def kept_run(folder, *checks):
    """Make the files of a run by hand, without traces."""
    folder.mkdir()
    task = Task(port("mmdet_ddq", "tiny_1class"), ((64, 64),), None, 0, ("forward",))
    options = RunOptions(task, Sources(), Machine("cpu", 1, None, 60.0), "float32", Tolerance("exact"), replay=False)
    (folder / "run.json").write_text(json.dumps(options.as_dict()))
    job(checks=checks).save(str(folder / "new.job.json"))
    return folder


def job(**changes):
    made = Job("toy", "tiny", "", {}, "", "", "", "", ("forward",), seed=0, threads=1, cpu_capability=None,
               device="cpu")  # fmt: skip
    return replace(made, **changes)


def test_bisect_of_a_training_alone_is_one_line(parity, tmp_path):
    result = parity("bisect", kept_run(tmp_path / "run", "train"))
    assert result.exit_code == 2 and result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert "holds check train only" in result.stderr and "forward, loss or grad" in result.stderr


def test_bisect_without_a_script_leaves_no_earlier_one(parity, tmp_path, monkeypatch):
    run = kept_run(tmp_path / "run", "forward")
    (run / "reproducer").mkdir()
    (run / "reproducer" / "reproduce.py").touch()
    monkeypatch.setattr(commands, "find_first", lambda *_: Bisection(merged(tmp_path, [RIGHT], [RIGHT]), None, None))
    assert parity("bisect", run).exit_code == 2 and (run / "reproducer" / "reproduce.py").exists()
    assert parity("bisect", run, "--force").exit_code == 0 and not (run / "reproducer").exists()


@pytest.mark.parametrize("capability", ["default", None])
def test_script_computes_with_the_kernels_of_the_run(tmp_path, capability):
    adapter = tmp_path / "adapter.py"
    adapter.write_text("import torch\nbuild = lambda options, device: torch.nn.Linear(1, 1)\n")
    asks = "torch.tensor(float(torch.backends.cpu.get_cpu_capability() == 'DEFAULT'))"
    script = write(
        Reproducer("Toy.", "Differs.", job(adapter=str(adapter), cpu_capability=capability), False, asks, (),
                   {"": torch.tensor(1.0)}, {"": 0.0}, {}), tmp_path,
    )  # fmt: skip
    if capability is None:
        assert "ATEN_CPU_CAPABILITY" not in script.read_text()
        return
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_script_of_a_run_under_autocast_computes_under_autocast(tmp_path):
    adapter = tmp_path / "adapter.py"
    adapter.write_text("import torch\nbuild = lambda options, device: torch.nn.Linear(1, 1)\n")
    asks = "autocast(lambda: torch.ones(2, 2) @ torch.ones(2, 2))"
    expected = torch.full((2, 2), 2.0, dtype=torch.bfloat16)
    script = write(
        Reproducer("Toy.", "Differs.", job(adapter=str(adapter), amp="bf16"), False, asks, (), {"": expected}, {"": 0.0}, {}),
        tmp_path,
    )  # fmt: skip
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

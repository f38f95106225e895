"""Where the legacy side's own rounding could hide an error, a run tries other weights and inputs."""

from dataclasses import replace

import pytest

from parity.comparing.compare import DERIVED, Tolerance
from parity.report.report import closing_line
from parity.report.report_json import as_dict
from parity.runs import run as runs
from parity.sides.settings import Machine, RunOptions, Sources, Task
from parity.sides.sides import prepare
from tests.models import port

from .synthetic import Rec, judged

SIDE = [Rec("module_out", "m", [1.0, 2.0])]


@pytest.mark.parametrize(("loose", "tried"), [(0, [7]), (2, [7, 8, 9]), (9, [7, 8, 9, 10])])
def test_the_next_seeds_are_tried_in_an_empty_folder_and_told(tmp_path, monkeypatch, loose, tried):
    seen, told, batches = [], [], set()
    match = judged(tmp_path / "judged", SIDE, SIDE)
    folder = tmp_path / "run"
    folder.mkdir()

    def once(options, prepared, folder, progress):
        assert not list(folder.iterdir())
        (folder / "legacy").mkdir()
        (folder / "run.json").touch()
        seen.append(options.task.seed)
        batches.add(prepared.given["predict"]["images"].sum().item())
        return replace(match, is_too_loose=len(seen) <= loose)

    monkeypatch.setattr(runs, "_run", once)
    task = Task(port("mmdet_ddq", "tiny_1class"), ((64, 96),), None, 7, ("loss",))
    sources, machine = Sources(), Machine("cpu", 1, None, 60.0)
    options = RunOptions(task, sources, machine, "float32", Tolerance(DERIVED), replay=True)
    verdict = runs.run(options, prepare(task, sources, machine), folder, told.append)
    assert seen == tried and len(batches) == len(tried) and verdict.is_too_loose == (loose == 9)
    assert told == [
        f"rounding is too large for a verdict under seed {seed - 1}, trying seed {seed}" for seed in tried[1:]
    ]
    before = ", ".join(map(str, tried[:-1]))
    assert (f"because under {before} rounding is too large for a verdict" in closing_line(verdict)) is bool(before)
    assert as_dict(verdict)["seeds_before"] == tried[:-1]

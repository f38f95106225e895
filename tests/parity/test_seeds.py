"""Where the legacy side's own rounding could hide an error, a run tries other weights and inputs."""

from dataclasses import replace

import pytest

from parity.comparing.compare import DERIVED, Tolerance
from parity.golden import golden
from parity.report.captured import golden_line
from parity.report.report import closing_line
from parity.report.report_json import as_dict
from parity.runs import capture as captures
from parity.runs import run as runs
from parity.sides.settings import Machine, RunOptions, Sources, Task
from parity.sides.sides import prepare
from tests.models import port

from .golden_files import recording
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


@pytest.mark.parametrize(
    ("loose", "tried", "kept"), [([0], [7], 7), ([3, 0], [7, 8], 8), ([3, 1, 2, 1], [7, 8, 9, 10], 8)], ids=str
)
def test_a_golden_file_is_of_the_seed_with_the_fewest_loose_records(tmp_path, monkeypatch, loose, tried, kept):
    seen, told = [], []
    recorded = recording(tmp_path)
    folder = tmp_path / "capture"
    folder.mkdir()

    def once(task, sources, machine, prepared, folder, progress):
        assert not list(folder.iterdir())
        (folder / "legacy").mkdir()
        seen.append(task.seed)
        return replace(recorded, task=task), loose[len(seen) - 1]

    monkeypatch.setattr(captures, "_capture", once)
    task = Task(port("mmdet_ddq", "tiny_1class"), ((64, 96),), None, 7, ("loss",))
    sources, machine = Sources(), Machine("cpu", 1, None, 60.0)
    best = captures.capture(task, sources, machine, prepare(task, sources, machine), folder, told.append)
    assert seen == tried and best.task.seed == kept and len(told) == len(tried) - 1
    golden.save(best, tmp_path / "best.npz")
    line = golden_line(golden.load(tmp_path / "best.npz"), tmp_path / "best.npz")
    assert ("because under 7 rounding is too large for a verdict" in line) is (len(tried) == 2)
    assert ("rounding of 1 record is too large to show an error under seed 8" in line) is (len(tried) == 4)

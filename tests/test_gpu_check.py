"""The GPU check: its parts end in time, with all they started, and the report says what came of each."""

import json
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest

from tools import gpu_check, gpu_parts, gpu_run
from tools.gpu_families import Repos
from tools.gpu_run import FIGURES, Part, Phase, Report, run_phases

FAILS = f"print('{FIGURES}' + '{{\"ms\": 3}}'); print('last words'); raise SystemExit(5)"
#: Starts a process in a session of its own, tells its id, does not listen to SIGTERM.
HANGS = (
    "import subprocess, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid, flush=True); time.sleep(60)"
)


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(gpu_run, "_GRACE", 0.2)
    monkeypatch.setattr(gpu_run, "_LEAST_SECONDS", 0.5)


def outcomes(tmp_path, *parts, seconds=60.0):
    (tmp_path / "scratch").mkdir(parents=True)
    run_phases([Phase((parts,), seconds)], Report(tmp_path / "out"), [tmp_path / "scratch"], seconds)
    return json.loads((tmp_path / "out" / "report.json").read_text())


def test_a_failure_is_told_and_stops_nothing(tmp_path):
    failed, fine = outcomes(tmp_path, Part("fails", ("-c", FAILS), 30), Part("fine", ("-c", "print('yes')"), 30))
    assert (failed["exit_code"], failed["figures"], failed["tail"]) == (5, [{"ms": 3}], ["last words"])
    assert (fine["exit_code"], fine["tail"]) == (0, ["yes"])
    assert "last words" in (tmp_path / "out" / "logs.txt").read_text()
    assert not (tmp_path / "scratch" / "fine").exists()


def test_what_hangs_is_ended_with_all_it_started(tmp_path):
    start = time.monotonic()
    hung, fine = outcomes(tmp_path, Part("hangs", ("-c", HANGS), 2), Part("fine", ("-c", ""), 30))
    assert (hung["exit_code"], hung["state"], fine["exit_code"]) == (None, "time limit", 0)
    assert time.monotonic() - start < 30
    stat = Path("/proc", hung["tail"][0], "stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_no_part_starts_without_time_or_space(tmp_path):
    parts = Part("fine", ("-c", "import time; time.sleep(1)"), 30), Part("large", ("-c", ""), 30, disk=1e9)
    assert "GB free" in outcomes(tmp_path, *parts)[1]["state"]
    late = outcomes(tmp_path / "late", Part("fine", ("-c", ""), 30), seconds=0.1)
    assert late[0]["state"] == "not started: no time left"


def test_synchronisations_are_counted_where_they_happen():
    places = Counter()
    with gpu_parts._counting(places, on_gpu=False):
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert places == {"elsewhere": 1}


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("plan, least", [("ddq_detr", 10), ("families", 20), ("rehearsal", 1)])
def test_names_of_parts_are_unique(plan, least, dry):
    repos = Repos(Path("DDQ"), Path("DDQ-main"), Path("mmdet2"))
    names = [part.name for phase in gpu_check.plan(plan, dry, repos) for chain in phase.chains for part in chain]
    assert len(names) == len(set(names)) >= least


def test_without_legacy_code_golden_files_are_left(tmp_path):
    (phase,) = gpu_check.plan("families", True, Repos())
    assert all(part.name.startswith("golden-") for chain in phase.chains for part in chain)
    command = [sys.executable, "-m", "tools.gpu_check", "--plan", "rehearsal", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=gpu_run.ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 2 and "has no part for the legacy code given" in done.stderr


def test_what_is_needed_counts_parts_that_run_at_the_same_time_together():
    one, two = Part("one", (), 1, disk=20), Part("two", (), 1, disk=30)
    phases = (Phase(((one, two), (one,)), 10), Phase(((two,),), 20))
    assert gpu_check.needs(phases, 540) == "4 parts, at most 9 minutes, at most 50 GB on disk at a time"


def test_one_part_by_its_name(tmp_path):
    command = [sys.executable, "-m", "tools.gpu_check", "--dry-run", "--only", "environment", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=gpu_run.ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("at full width: 1 parts, at most 9 minutes, at most 0 GB on disk at a time")
    assert [one["name"] for one in json.loads((tmp_path / "report.json").read_text())] == ["environment-ours"]


def test_dry_run_goes_through_every_part(tmp_path):
    command = [sys.executable, "-m", "tools.gpu_check", "--dry-run", "--seconds", "2000", "--out", str(tmp_path)]
    assert subprocess.run(command, cwd=gpu_run.ROOT, check=False, capture_output=True).returncode == 0
    told = {one["name"]: one["exit_code"] for one in json.loads((tmp_path / "report.json").read_text())}
    parts = [part.name for phase in gpu_check.plan("ddq_detr", True, Repos()) for chain in phase.chains for part in chain]
    assert told == dict.fromkeys(parts, 0)
    files = list(tmp_path.iterdir())
    assert len(files) <= 8 and all(file.stat().st_size < 16e6 for file in files)

"""`rehearse`, `train-legacy` and `test-legacy`: what they refuse, what they hand on, and what they print.

The legacy code is not run here: a folder with the files that a checkout must have stands for it, and what the stages
leave is written by hand. Whole rehearsals are in docs/parity-results.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from legacy_adapters.families.ddq_detr.checkout import CHECKOUT
from legacy_adapters.job import Job
from legacy_adapters.whole import own_files
from legacy_adapters.whole.request import OUTCOME
from parity.cli.main import cli
from parity.rehearsal import legacy_runs, new_configs
from parity.rehearsal.setup import FREE, OWN, TWIN, Setup
from parity.rehearsal.stages import Mark, keys

from . import test_rehearsal_findings as finished

setup = finished.setup  # a rehearsal whose stages have left what they leave when everything holds
METRICS = {"coco/bbox_mAP": 0.5}


@pytest.fixture
def repo(tmp_path) -> Path:
    """Return a folder that looks like the official checkout."""
    folder = tmp_path / "repo"
    for name in CHECKOUT.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).mkdir() if not Path(name).suffix else (folder / name).touch()
    return folder


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_dry_run_prints_every_stage_with_its_command_and_runs_none(repo, tmp_path):
    out = tmp_path / "out"
    code, told, _ = call("rehearse", "--family", "ddq_detr", "--legacy-repo", repo, "--out", out, "--seeds", 2, "--dry-run")
    assert code == 0 and not out.exists()
    lines = told.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("# ")][:4] == ["# data", "# legacy-0", "# legacy-1", "# start"]
    assert all("-m " in line for line in lines if not line.startswith("# "))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--family", "mmdet_ddq"), "Family mmdet_ddq has no rehearsal; known are none."),
        (("--family", "ddq_detr", "--config", "other", "--legacy-repo", "REPO"), "has no rehearsal other; known are"),
        (("--family", "ddq_detr"), "needs --legacy-repo"),
        (("--family", "ddq_detr", "--legacy-repo", "REPO", "--data", "a.json", "b"), "--data and --val-data go together"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused_in_one_line(repo, tmp_path, more, says):
    given = [repo if word == "REPO" else word for word in more]
    code, told, said = call("rehearse", *given, "--out", tmp_path / "out")
    assert (code, told) == (2, "")
    assert says in said and not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(repo, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    code, _, said = call("rehearse", "--family", "ddq_detr", "--legacy-repo", repo, "--out", out)
    assert code == 2 and "is not empty and holds no rehearsal" in said
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def with_data(setup: Setup) -> None:
    """Write the annotation file that the first stage draws."""
    for name in ("train", "val"):
        (setup.folder / "data" / name).mkdir(parents=True, exist_ok=True)
        ann = setup.folder / "data" / "annotations" / f"{name}.json"
        ann.parent.mkdir(exist_ok=True)
        ann.write_text(json.dumps(dict(images=[], annotations=[], categories=[dict(id=1, name="circle")])))


@pytest.fixture
def stages_are_done(monkeypatch, setup: Setup) -> Setup:
    """Take the stages of the finished rehearsal for run."""
    from parity.cli import rehearse_command

    def run_all(folder, stages, jobs, environment, say):
        say("all stages are done")
        return {name: Mark(key, 0, 1.0) for name, key in keys(stages).items()}

    monkeypatch.setattr(rehearse_command, "run_all", run_all)
    with_data(setup)
    (setup.folder / rehearse_command.MARKER).write_text("{}")
    return setup


def rehearsed(setup: Setup, repo: Path, *more: object) -> tuple[int, str, str]:
    options = ("--seeds", setup.seeds, "--steps", setup.steps, *more)
    return call("rehearse", "--family", "ddq_detr", "--legacy-repo", repo, "--out", setup.folder, *options)


def test_what_holds_is_printed_and_written(stages_are_done, repo):
    code, told, said = rehearsed(stages_are_done, repo)
    assert code == 0, said
    assert told.splitlines()[-1].startswith("MATCH 9 claims of")
    assert "all stages are done" in said and (stages_are_done.folder / "report.html").is_file()


def test_json_is_what_the_report_holds_and_quiet_is_one_line(stages_are_done, repo):
    code, told, said = rehearsed(stages_are_done, repo, "--json")
    assert (code, json.loads(told)["verdict"]) == (0, "MATCH")
    code, told, said = rehearsed(stages_are_done, repo, "--quiet")
    assert len(told.splitlines()) == 1 and said == ""


def test_a_stage_that_does_not_hold_gives_code_1_and_its_name(stages_are_done, repo):
    finished.parted(stages_are_done, TWIN, 2, pixels="q", objects="q")
    code, told, _ = rehearsed(stages_are_done, repo)
    assert code == 1 and told.splitlines()[-1].startswith(f"MISMATCH in stage {TWIN}: ")


def test_a_failing_stage_gives_code_4_with_the_end_of_its_log(monkeypatch, stages_are_done, repo):
    from parity.cli import rehearse_command

    log = stages_are_done.folder / "legacy-0.log"
    log.write_text("ValueError: x\n")

    def fails(folder, stages, *rest):
        raise rehearse_command.StageError(stages[1] if len(stages) > 1 else stages[0], 1, log)

    monkeypatch.setattr(rehearse_command, "run_all", fails)
    code, told, said = rehearsed(stages_are_done, repo)
    assert (code, told) == (4, "")
    assert "ended with exit code 1" in said and "ValueError: x" in said


def test_data_without_classes_are_refused_in_one_line(repo, tmp_path):
    given = tmp_path / "none.json", tmp_path
    code, told, said = call(
        "rehearse", "--family", "ddq_detr", "--legacy-repo", repo, "--out", tmp_path / "out", "--data", *given, "--val-data", *given
    )
    assert (code, told) == (2, "") and "names no classes" in said and len(said.splitlines()) == 1


def test_configs_of_the_new_side_are_written_once_and_differ_in_what_they_follow(setup):
    with_data(setup)
    new_configs.write(setup)
    twin = setup.config(TWIN)
    before = twin.stat().st_mtime_ns
    assert "FollowHook" in twin.read_text() and "norm_order=[\n" in twin.read_text()
    assert "FollowHook" in setup.config(OWN).read_text() and "norm_order=[]" in setup.config(OWN).read_text()
    assert "FollowHook" not in setup.config(FREE).read_text()
    new_configs.write(setup)
    assert twin.stat().st_mtime_ns == before


def test_norms_are_summed_in_the_order_of_the_legacy_side(setup):
    order = new_configs.norm_order(setup)
    assert len(order) == len(set(order))
    # the legacy side has the branch of dense tokens behind those of the queries, the new side among the dense ones
    last = max(name.split(".")[2] for name in order if name.startswith("bbox_head.aux_cls_branches."))
    assert order.index(f"bbox_head.aux_cls_branches.{last}.weight") == 1 + order.index(f"bbox_head.cls_branches.{last}.bias")


@pytest.fixture
def legacy_jobs(monkeypatch) -> list[Job]:
    """Collect the jobs that would run the legacy code, and leave what it leaves."""
    jobs: list[Job] = []

    def run_side(side, job, folder, python, time_limit, other_python):
        jobs.append(job)
        told = dict(metrics=METRICS, steps=6 if job.whole["kind"] == "train" else 0, checkpoint="iter_6.pth", provenance={})
        (folder / OUTCOME).write_text(json.dumps(told))

    monkeypatch.setattr(legacy_runs, "run_side", run_side)
    return jobs


def trained(repo: Path, folder: Path, *more: object) -> tuple[int, str, str]:
    data = ("--data", folder / "train.json", folder, "--val-data", folder / "val.json", folder)
    return call(
        "train-legacy", "--family", "ddq_detr", "--variant", "tiny_4scale", "--legacy-repo", repo, *data,
        "--work-dir", folder / "work", *more,
    )  # fmt: skip


def test_a_training_is_asked_for_as_the_options_say(legacy_jobs, repo, tmp_path):
    code, told, said = trained(repo, tmp_path, "--seed", 3, "--stop-at", 6, "--set", "a=1")
    assert code == 0, said
    assert told.splitlines() == ["TRAINED 6 steps -> iter_6.pth", "coco/bbox_mAP          0.5"]
    request = legacy_jobs[0].whole["request"]
    assert (request["seed"], request["stop_at"], request["settings"]) == (3, 6, ("a=1",))
    assert request["data"] == (str(tmp_path / "train.json"), str(tmp_path)) and request["options"]["repo"] == str(repo.resolve())


def test_a_training_that_is_done_is_not_repeated_and_none_is_overwritten(legacy_jobs, repo, tmp_path):
    assert trained(repo, tmp_path)[0] == 0
    code, told, said = trained(repo, tmp_path, "--resume", "--json")
    assert (code, json.loads(told)["metrics"]) == (0, METRICS)
    assert "holds a training that is done" in said and len(legacy_jobs) == 1
    (tmp_path / "work" / "iter_3.pth").touch()
    code, _, said = trained(repo, tmp_path)
    assert code == 2 and "pass --resume, or choose another --work-dir" in said and len(legacy_jobs) == 1


def test_a_training_goes_on_from_its_newest_checkpoint(legacy_jobs, repo, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "iter_3.pth").touch()
    own_files.note(str(tmp_path / "work"), str(tmp_path / "work" / "iter_3.pth"))
    code, _, said = trained(repo, tmp_path, "--resume")
    request = legacy_jobs[0].whole["request"]
    assert code == 0 and "goes on from" in said
    assert request["resume"].endswith("iter_3.pth") and request["trusted"]


def test_a_test_tells_what_came_out(legacy_jobs, repo, tmp_path):
    (tmp_path / "a.pth").touch()
    code, told, said = call(
        "test-legacy", "--family", "ddq_detr", "--variant", "tiny_4scale", "--legacy-repo", repo, "--val-data",
        tmp_path / "val.json", tmp_path, "--work-dir", tmp_path / "work", "--checkpoint", tmp_path / "a.pth",
    )  # fmt: skip
    assert code == 0, said
    assert told.splitlines()[0] == "TESTED -> iter_6.pth"
    assert legacy_jobs[0].whole["request"]["checkpoint"] == str(tmp_path / "a.pth")

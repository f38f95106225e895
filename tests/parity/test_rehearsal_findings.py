"""What a finished rehearsal is judged to have shown, from the files of its stages, and its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from converters.rules.ports import port
from legacy_adapters import registry
from legacy_adapters.whole.steplog import Step
from parity.rehearsal import judging, plan, report
from parity.rehearsal.setup import FREE, MIDDLE, OWN, TWIN, Setup
from parity.rehearsal.stages import Mark, keys

FAMILY = registry.get("ddq_detr")
STEPS = 200
FIRST = Step(1, (3, 1), "p", "o", ("0x1p-10",), "w0", {"loss_cls": "0x1p+0"}, "0x1p+0", "0x1p+3", "w1")
METRICS = {"coco/bbox_mAP": 0.8, "coco/bbox_mAP_50": 0.9}


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """Return a rehearsal whose stages have all left what they leave when everything holds."""
    rehearsal = FAMILY.rehearsals[0]
    data = tmp_path / "data" / "annotations" / "train.json", tmp_path / "data" / "train"
    made = Setup(
        folder=tmp_path, port=port("ddq_detr", rehearsal.variant.name), rehearsal=rehearsal, repo=tmp_path, python=None,
        data=data, val_data=data, draws=True, seeds=2, steps=STEPS, jobs=2, threads=1, device="cpu", new_settings=(),
        expected_ap=0.75,
    )  # fmt: skip
    for name in ("legacy-0", "legacy-1", plan.BACK, plan.TEST_LEGACY):
        outcome(tmp_path / name, METRICS)
    for name, first, last in (
        ("legacy-0", 1, STEPS), (TWIN, 1, STEPS), (OWN, 1, 60), (MIDDLE, 101, STEPS), (plan.BACK, 101, STEPS)
    ):  # fmt: skip
        write_steps(tmp_path / name, [replace(FIRST, step=number) for number in range(first, last + 1)])
    for name in (TWIN, MIDDLE, FREE):
        log(tmp_path / name, 0.8)
    write(tmp_path / plan.TEST_NEW / "20260101_1" / "20260101_1.json", {**METRICS, "time": 0.1})
    write(tmp_path / plan.EVAL / "report.json", dict(verdict="MATCH", summary="MATCH 9 of 9 images bit-identical"))
    write(tmp_path / plan.CURVES / "curves.json", curves("MATCH", "MATCH 9 loss terms within the noise"))
    for name in (TWIN, MIDDLE, OWN, FREE):
        made.config(name).parent.mkdir(exist_ok=True)
        made.config(name).write_text("a = 1\n")
    return made


def curves(verdict: str, summary: str) -> dict:
    quantity = dict(kind="ap", name="bbox_mAP", end=200, mean=0.8, b=0.8, allowed=0.05, accepted=True)
    return dict(verdict=verdict, summary=summary, level=0.05, quantities=[quantity])


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def outcome(folder: Path, metrics: dict) -> None:
    provenance = dict(code_base="x<y", device="cpu", threads=1, cpu_capability="AVX2", torch="2")
    write(folder / "outcome.json", dict(metrics=metrics, steps=STEPS, checkpoint="c", provenance=provenance))


def log(folder: Path, ap: float) -> None:
    lines = [dict(loss=1.0, lr=0.1, iter=200, step=200), {"coco/bbox_mAP": ap, "step": 200}]
    path = folder / "20260101_1" / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_steps(folder: Path, steps: list[Step]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "steps.jsonl").write_text("".join(json.dumps(asdict(step)) + "\n" for step in steps))


def parted(setup: Setup, name: str, at: int, **changes: object) -> None:
    """Let a training differ from some step on."""
    steps = [replace(FIRST, step=number) for number in range(1, STEPS + 1)]
    write_steps(setup.folder / name, [replace(s, **changes) if s.step >= at else s for s in steps])


def test_all_claims_hold(setup: Setup) -> None:
    found = judging.findings(setup)
    assert {finding.outcome for finding in found} == {"MATCH"}
    assert judging.closing_line(found, {}).startswith("MATCH 9 claims of")


#: What is planted -> the stage that must be named, and words of the cause.
PLANTED: dict[str, tuple[Callable[[Setup], None], str, str]] = {
    "data order": (lambda s: parted(s, TWIN, 1, images=(1, 3), pixels="q"), TWIN, "order of the data"),
    "augmentation": (lambda s: parted(s, TWIN, 2, pixels="q", objects="q"), TWIN, "augmentation"),
    "schedule": (lambda s: parted(s, TWIN, 51, rates=("0x1p-11",), after="q"), TWIN, "schedule"),
    "model": (lambda s: parted(s, TWIN, 9, terms={"loss_cls": "0x1p+1"}), TWIN, "1 of 1 terms, loss_cls 1 and 2"),
    "optimizer": (lambda s: parted(s, TWIN, 1, after="q"), TWIN, "optimizer"),
    "early rounding": (lambda s: parted(s, TWIN, 7, norm="0x1.0000020000000p+3"), TWIN, "6 steps identical, then step 7"),
    "average": (lambda s: log(s.folder / TWIN, 0.7), TWIN, "an average of weights"),
    "norm on one side only": (lambda s: parted(s, TWIN, 1, norm=None), TWIN, "8 and none"),
    "nothing in common": (lambda s: write_steps(s.folder / TWIN, []), TWIN, "no step is in both logs"),
    "no log of a step": (lambda s: write_steps(s.folder / OWN, []), OWN, "no step is in both logs"),
    "own order": (lambda s: parted(s, OWN, 3, terms={"loss_cls": "0x1p+1"}), OWN, "the model"),
    "middle": (lambda s: log(s.folder / MIDDLE, 0.79), MIDDLE, "AP 0.800 and 0.790"),
    "back": (lambda s: parted(s, plan.BACK, 150, before="q"), plan.BACK, "the weights that the step begins with"),
    "test": (lambda s: outcome(s.folder / plan.TEST_LEGACY, dict(METRICS, extra=1.0)), plan.TEST_NEW, "extra 1.0 and None"),
    "legacy": (lambda s: outcome(s.folder / "legacy-1", {"coco/bbox_mAP": 0.6}), "legacy-1", "AP 0.800, 0.600"),
    "new": (lambda s: log(s.folder / FREE, 0.5), FREE, "AP 0.500"),
    "curves": (
        lambda s: write(s.folder / plan.CURVES / "curves.json", curves("MISMATCH", "MISMATCH 3 terms outside")),
        plan.CURVES, "3 terms outside",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_what_does_not_hold_is_named_by_stage(setup: Setup, name: str) -> None:
    plant, stage, words = PLANTED[name]
    plant(setup)
    line = judging.closing_line(judging.findings(setup), {})
    assert line.startswith(f"MISMATCH in stage {stage}: ")
    assert words in line


def test_rounding_after_many_equal_steps_is_no_mismatch(setup: Setup) -> None:
    parted(setup, TWIN, 150, norm="0x1.0000020000000p+3")
    parted(setup, plan.BACK, 150, norm="0x1.0000020000000p+3")  # which goes on from there
    parted(setup, OWN, 3, norm="0x1.0000020000000p+3")
    found = judging.findings(setup)
    assert judging.outcome(found) == "MATCH"
    assert "149 steps identical, then step 150 parts by the order in which the norm" in judging.closing_line(
        [replace(finding, outcome="MISMATCH") for finding in found if finding.stage == TWIN], {}
    )


def test_what_cannot_be_compared_is_no_match(setup: Setup) -> None:
    write(setup.folder / plan.CURVES / "curves.json", curves("INCOMPARABLE", "INCOMPARABLE too few"))
    assert judging.closing_line(judging.findings(setup), {}).startswith("INCOMPARABLE in stage curves")


def test_the_page_holds_everything_and_escapes_text(setup: Setup) -> None:
    stages = plan.stages(setup)
    marks = {name: Mark(key, 0, 1.0) for name, key in keys(stages).items()}
    report.write(setup, stages, marks, judging.findings(setup))
    page = (setup.folder / report.PAGE).read_text()
    assert all(stage.name in page for stage in stages)
    assert "x&lt;y" in page and "x<y" not in page
    assert "src=" not in page.replace('src="data:', "")  # nothing is loaded from elsewhere
    assert json.loads((setup.folder / report.DATA).read_text())["verdict"] == "MATCH"


def test_the_page_tells_changed_settings_and_shows_detections(setup: Setup) -> None:
    picture = setup.folder / plan.EVAL / "worst-1.png"
    picture.write_bytes(b"\x89PNG")
    changed = replace(setup, new_settings=("model.eps=<1>",))
    stages = plan.stages(changed)
    marks = {name: Mark(key, 0, 1.0) for name, key in keys(stages).items()}
    report.write(changed, stages, marks, judging.findings(changed))
    page = (setup.folder / report.PAGE).read_text()
    assert "The new side&#x27;s config was changed" in page or "The new side's config was changed" in page
    assert "<code>model.eps=&lt;1&gt;</code>" in page
    assert '<img src="data:image/png;base64,iVBORw=="' in page and "Legacy side left, new side right" in page


def test_a_test_without_a_log_is_no_result(setup: Setup) -> None:
    next((setup.folder / plan.TEST_NEW).glob("*/*.json")).unlink()
    with pytest.raises(FileNotFoundError, match="holds no log of a test"):
        judging.findings(setup)


def test_every_stage_has_what_it_needs_and_a_command_of_this_toolkit(setup: Setup) -> None:
    stages = plan.stages(setup)
    assert len(keys(stages)) == len(stages)
    assert all(stage.command[1] == "-m" for stage in stages)
    assert [stage.name for stage in stages if stage.steps] == [
        "legacy-0",
        "legacy-1",
        TWIN,
        OWN,
        FREE,
        MIDDLE,
        plan.BACK,
    ]

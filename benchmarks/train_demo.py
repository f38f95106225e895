"""Training from scratch on two CPU cores: ``python -m benchmarks.train_demo --folder EMPTY [--part PART ...]``.

demo: `ddq-train demo`, twice with one seed and once with another; the losses must be the same twice, bit for bit.
mmdet: MMDetection 3.3.0's own DDQDETR with the same config, images and seeds; its AP must lie within 0.03.
tune: mmdet's DDQDETR trained on two of the three classes, its checkpoint converted by `ddq-convert --num-classes 3
--class-map`, and from there the demo; it must come to AP 0.70 in fewer steps than from scratch. Every 50 steps are
evaluated.

Each training is a process of its own. Prints a table in Markdown; exit code 1 if a figure is not good enough. A part is
about 15 minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PARTS = ("demo", "mmdet", "tune")
#: What must be: AP of the demo, seconds of it, AP between the two models, AP of fine-tuning.
AP, SECONDS, APART, TUNED_AP = 0.80, 600, 0.03, 0.70
EVERY = 50  # steps between two evaluations of fine-tuning


@dataclass(frozen=True)
class Training:
    """What a process is to train.

    Attributes:
        folder: for everything.
        code: `ddq_port` or `mmdet`.
        seed: of the training.
        steps: None takes the config's.
        classes: names of the classes; None takes all of the demo.
        load_from: checkpoint to begin with.
        every: steps between two evaluations; None takes the config's.
    """

    folder: str
    code: str = "ddq_port"
    seed: int = 0
    steps: int | None = None
    classes: tuple[str, ...] | None = None
    load_from: str | None = None
    every: int | None = None


@dataclass(frozen=True)
class Trained:
    """What it came to.

    Attributes:
        aps: AP by step, the last one last.
        losses: SHA-256 of the losses of all steps.
        checkpoint: the last one.
        wall: seconds of the process, data and imports included.
        cpu: its CPU seconds.
    """

    aps: dict[int, float]
    losses: str
    checkpoint: str
    wall: float
    cpu: float

    @property
    def ap(self) -> float:
        """AP after the last step."""
        return list(self.aps.values())[-1]

    def steps_to(self, ap: float) -> int | None:
        """Return the first evaluated step with that AP; None if there is none."""
        return next((step for step, value in self.aps.items() if value >= ap), None)


@dataclass(frozen=True)
class Row:
    """A line of the table; `good` is None where nothing is asked."""

    what: str
    figure: str
    must: str = ""
    good: bool | None = None

    def __str__(self) -> str:
        verdict = "" if self.good is None else f"{self.must}: {'yes' if self.good else 'NO'}"
        return f"| {self.what} | {self.figure} | {verdict} |"


def main() -> None:
    arguments = _arguments()
    if arguments.worker:
        print(json.dumps(_train(Training(**json.loads(arguments.worker)))))
        return
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True)
    rows = []
    for part in arguments.part or PARTS:
        rows += globals()[f"_{part}"](folder, arguments.steps)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| what | figure | must be |\n|---|---|---|")
    for row in rows:
        print(row)
    sys.exit(any(row.good is False for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for everything; must not exist")
    parser.add_argument("--part", action="append", choices=PARTS, help="[default: all]")
    parser.add_argument("--steps", type=int, help="of every training [default: the demo's]")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.folder and not arguments.worker:
        parser.error("--folder is missing")
    return arguments


def _demo(folder: Path, steps: int | None) -> list[Row]:
    first, again, other = (
        _run(Training(str(folder / name), seed=seed, steps=steps))
        for name, seed in (("demo0", 0), ("demo0_again", 0), ("demo1", 1))
    )
    return [
        Row("demo, seed 0", _told(first), f"at least {AP:.2f}", first.ap >= AP),
        Row("its time", f"{first.wall:.0f} s", f"at most {SECONDS} s", first.wall <= SECONDS),
        Row("demo, seed 0 again", _told(again), "same losses", again.losses == first.losses),
        Row("demo, seed 1", _told(other), f"AP at least {AP:.2f}, other losses", _good(other, first)),
    ]


def _good(other: Trained, first: Trained) -> bool:
    return other.ap >= AP and other.losses != first.losses


def _mmdet(folder: Path, steps: int | None) -> list[Row]:
    rows = []
    for seed in (0, 1):
        ours = _run(Training(str(folder / f"demo{seed}"), seed=seed, steps=steps))
        theirs = _run(Training(str(folder / f"mmdet{seed}"), code="mmdet", seed=seed, steps=steps))
        apart = abs(ours.ap - theirs.ap)
        rows += [
            Row(f"ddq_port, seed {seed}", _told(ours)),
            Row(f"mmdet 3.3.0, seed {seed}", _told(theirs)),
            Row("apart", f"AP {apart:.3f}", f"at most {APART}", apart <= APART),
        ]
    return rows


def _tune(folder: Path, steps: int | None) -> list[Row]:
    legacy = _run(Training(str(folder / "two_classes"), code="mmdet", steps=steps, classes=("ellipse", "rectangle")))
    class_map, new = folder / "map.json", folder / "three_classes.pth"
    class_map.write_text(json.dumps({"ellipse": "ellipse", "rectangle": "rectangle", "triangle": None}))
    convert = [sys.executable, "-m", "converters", "convert", legacy.checkpoint, str(new), "--keep", "model"]
    subprocess.run([*convert, "--num-classes", "3", "--class-map", str(class_map)], cwd=ROOT, check=True)
    scratch = _run(Training(str(folder / "scratch"), steps=steps, every=EVERY))
    tuned = _run(Training(str(folder / "tuned"), steps=steps, every=EVERY, load_from=str(new)))
    slow, fast = scratch.steps_to(TUNED_AP), tuned.steps_to(TUNED_AP)
    return [
        Row("mmdet 3.3.0 on two classes", _told(legacy)),
        Row(f"from scratch to AP {TUNED_AP:.2f}", f"{slow} steps; {_told(scratch)}"),
        Row(
            f"from its conversion to AP {TUNED_AP:.2f}",
            f"{fast} steps; {_told(tuned)}",
            "fewer steps",
            fast is not None and (slow is None or fast < slow),
        ),
    ]


def _told(trained: Trained) -> str:
    return f"AP {trained.ap:.3f}, {trained.wall:.0f} s, CPU {trained.cpu:.0f} s, losses {trained.losses[:8]}"


def _run(training: Training) -> Trained:
    """Train in a process, or read what it came to in this run of the benchmark."""
    kept = Path(f"{training.folder}.json")
    if not kept.exists():
        command = _command(training)
        print(f"{Path(training.folder).name} ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            said = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):  # 1: the demo missed its AP
            sys.exit(f"training {training} failed")
        cost = dict(wall=time.monotonic() - began, cpu=usage.ru_utime + usage.ru_stime)
        kept.write_text(json.dumps(dict(_result(json.loads(said)), **cost)))
    read = json.loads(kept.read_text())
    return Trained(**dict(read, aps={int(step): ap for step, ap in read["aps"].items()}))


def _command(training: Training) -> list[str]:
    """Return the command of a training: `ddq-train demo` itself where that can do it."""
    if training == Training(training.folder, seed=training.seed, steps=training.steps):
        command = [sys.executable, "-m", "ddq_port.training", "demo", "--json", "--work-dir", training.folder]
        steps = [] if training.steps is None else ["--steps", str(training.steps)]
        return [*command, "--seed", str(training.seed), *steps]
    return [sys.executable, "-m", "benchmarks.train_demo", "--worker", json.dumps(vars(training))]


def _result(said: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of what a training printed."""
    if "files" not in said:
        return said
    return dict(aps=said["aps"], losses=said["losses_sha256"], checkpoint=said["files"]["checkpoint"])


def _train(training: Training) -> dict[str, Any]:
    """Train in this process; `ddq-train demo`, but that another model may be trained, or other classes."""
    import torch

    from ddq_port.data.shapes import CLASSES
    from ddq_port.training import demo, run
    from ddq_port.training.endings import logs_on_stderr
    from ddq_port.training.output import curves
    from ddq_port.training.settings.options import TrainOptions

    torch.set_num_threads(2)
    folder = Path(training.folder)
    demo.write_data(folder / "data", classes=tuple(training.classes or CLASSES))
    cfg = demo.config(folder / "data", training.steps)
    if training.every:
        cfg.train_cfg.val_interval = training.every
    if training.code == "mmdet":
        as_mmdets(cfg.model)
        if training.classes:
            cfg.model.test_cfg.max_per_img = 10  # mmdet fails where distinct queries times classes are fewer
    file = folder / "config.py"
    cfg.dump(file)
    options = TrainOptions(str(file), folder, load_from=training.load_from, seed=training.seed, deterministic=True)
    with logs_on_stderr(True):
        done = run.train(options, check=False, quiet=True)
    logged = curves.read(folder)
    ap = logged.validation["coco/bbox_mAP"]
    losses = demo.losses_sha256([float(loss) for loss in logged.training["loss"].values])
    return dict(aps=dict(zip(ap.steps, ap.values)), losses=losses, checkpoint=done.checkpoint)


def as_mmdets(model: Any) -> None:
    """Change the model of a config of this package into mmdet 3.3.0's own."""
    model.type = model.type.removeprefix("ddq_port.")
    model.bbox_head.type = model.bbox_head.type.removeprefix("ddq_port.")
    if model.pop("distinct_mask") != "legacy":
        raise ValueError("mmdet 3.3.0 has distinct_mask='legacy' only.")


if __name__ == "__main__":
    main()

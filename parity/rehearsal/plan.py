"""The stages of a rehearsal, as data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from legacy_adapters.ground.names import LEGACY
from legacy_adapters.whole.request import OUTCOME, STEPS

from .setup import FREE, MIDDLE, OWN, TWIN, Setup
from .stages import Stage

#: Names of stages that others ask for, beside those of :mod:`.setup`, which the new side's trainings have.
DATA, START, CONVERT, TEST_LEGACY, TEST_NEW, EVAL = "data", "start", "convert", "test-legacy", "test-new", "eval"
TO_NEW, TO_LEGACY, BACK, CURVES = "middle-to-new", "middle-to-legacy", "legacy-middle", "curves"
#: Steps after which the training with the new side's own order of norms is stopped: it parts long before.
OWN_STEPS = 60
_VERDICTS = (0, 1, 3)
_MODULES = {"ddq-train": "ddq_port.training", "ddq-convert": "converters", "ddq-parity": "parity"}


def legacy_name(seed: int) -> str:
    """Return the name of a legacy training."""
    return f"legacy-{seed}"


def checkpoint(folder: Path, step: int) -> Path:
    """Return the checkpoint of a training after a step."""
    return folder / f"iter_{step}.pth"


def stages(setup: Setup) -> tuple[Stage, ...]:
    """Return all stages in an order in which they can be done.

    Legacy trainings come first, and of these the one that everything is compared with.
    """
    return (*_data(setup), *_legacy_trainings(setup), *_conversion(setup), *_new_trainings(setup), *_middle(setup), _curves(setup))


def _data(setup: Setup) -> Iterator[Stage]:
    if setup.draws:
        place = setup.data[0].parents[1]
        yield Stage(DATA, "draw the images", _command("ddq-train", "shapes", place), writes=(setup.data[0], setup.val_data[0]))


def _first(setup: Setup) -> tuple[str, ...]:
    return (DATA,) if setup.draws else ()


def _legacy_trainings(setup: Setup) -> Iterator[Stage]:
    for seed in range(setup.seeds):
        folder = setup.folder / legacy_name(seed)
        start = ("--start-to", setup.folder / "start.pth") if seed == 0 else ()
        yield Stage(
            legacy_name(seed),
            f"train the legacy side, seed {seed}",
            _legacy(setup, "train-legacy", folder, "--seed", seed, "--resume", *start),
            needs=_first(setup),
            writes=(folder / OUTCOME, checkpoint(folder, setup.middle), checkpoint(folder, setup.steps)),
            steps=setup.steps,
            work=folder,
            follow=folder / STEPS,
        )


def _conversion(setup: Setup) -> Iterator[Stage]:
    """Yield the stages that carry the trained weights over and test them on both sides."""
    legacy, trained = legacy_name(0), checkpoint(setup.folder / legacy_name(0), setup.steps)
    converted = setup.folder / "converted.pth"
    yield _convert(setup, START, "convert the weights before the first step", setup.folder / "start.pth", setup.folder / "start-new.pth", legacy)
    yield _convert(setup, CONVERT, "convert the trained checkpoint", trained, converted, legacy)
    test = setup.folder / TEST_LEGACY
    yield Stage(
        TEST_LEGACY, "test the trained checkpoint by the legacy side's own test loop",
        _legacy(setup, "test-legacy", test, "--checkpoint", trained, "--trust-checkpoint", train=False),
        needs=(legacy,), writes=(test / OUTCOME,),
    )  # fmt: skip
    predictions = setup.folder / TEST_NEW / "predictions.bbox.json"
    yield Stage(
        TEST_NEW, "test the converted checkpoint by the new side's own test loop",
        (*_python("ddq_port.training.eval_cli"), str(setup.config(FREE)), str(converted), "--work-dir", str(predictions.parent),
         "--out", str(predictions), "--force", "--no-check-data"),
        needs=(CONVERT,), writes=(predictions,), reads=(setup.config(FREE),),
    )  # fmt: skip
    place = setup.folder / EVAL
    yield Stage(
        EVAL, "compare all detections of both sides, one to one",
        _command("ddq-parity", "eval", *_model(setup), *_repo(setup), "--ann", setup.val_data[0], "--images",
                 setup.val_data[1], "--checkpoint", trained, "--threads", setup.threads, "--out", place, "--force", "-q"),
        needs=(legacy,), writes=(place / "report.json",), accepts=_VERDICTS,
    )  # fmt: skip


def _new_trainings(setup: Setup) -> Iterator[Stage]:
    begins = ("--load-from", setup.folder / "start-new.pth")
    yield _new(setup, TWIN, "train the new side from the same weights, with the same data and draws", (START,), setup.steps, *begins)
    short = min(OWN_STEPS, setup.steps)
    stop = ("--cfg-options", f"train_cfg.max_iters={short}", f"train_cfg.val_interval={short}")
    yield _new(setup, OWN, "the same with the new side's own order of norms", (START,), short, *begins, *stop)
    yield _new(setup, FREE, "train the new side from its own weights, with its own data order and draws", _first(setup),
               setup.steps, seed=setup.seeds)  # fmt: skip


def _middle(setup: Setup) -> Iterator[Stage]:
    """Yield the stages of trainings that begin on one side and end on the other."""
    step = setup.middle
    new, back = (checkpoint(setup.folder / name, step) for name in (MIDDLE, BACK))
    legacy = checkpoint(setup.folder / legacy_name(0), step)
    yield _convert(setup, TO_NEW, "convert the legacy side's checkpoint of the middle", legacy, new, legacy_name(0))
    yield Stage(
        MIDDLE, "the new side goes on from the middle",
        _train(setup, MIDDLE, 0, "--resume", new),
        needs=(TO_NEW,), writes=(checkpoint(new.parent, setup.steps),), steps=setup.steps, first=step,
        reads=(setup.config(MIDDLE),), follow=new.parent / STEPS,
    )  # fmt: skip
    twin = checkpoint(setup.folder / TWIN, step)
    yield _convert(setup, TO_LEGACY, "convert the new side's checkpoint of the middle", twin, back, TWIN, "--to", "legacy")
    yield Stage(
        BACK, "the legacy side goes on from the middle",
        _legacy(setup, "train-legacy", back.parent, "--seed", 0, "--resume-from", back),
        needs=(TO_LEGACY,), writes=(back.parent / OUTCOME,), steps=setup.steps, first=step, follow=back.parent / STEPS,
    )  # fmt: skip


def _curves(setup: Setup) -> Stage:
    place = setup.folder / CURVES
    others = [part for seed in range(1, setup.seeds) for part in ("--band", setup.folder / legacy_name(seed))]
    return Stage(
        CURVES, "compare the curves of the new side's training with those of all legacy trainings",
        _command("ddq-parity", "curves", setup.folder / legacy_name(0), setup.folder / FREE, *others, "--out", place, "--force", "-q"),
        needs=(*(legacy_name(seed) for seed in range(setup.seeds)), FREE), writes=(place / "curves.json",),
        accepts=_VERDICTS,
    )  # fmt: skip


def _new(setup: Setup, name: str, title: str, needs: tuple[str, ...], steps: int, *more: object, seed: int = 0) -> Stage:
    folder = setup.folder / name
    follow = folder / STEPS if name != FREE else None
    command = _train(setup, name, seed, "--resume", *more)
    return Stage(
        name, title, command, needs, (checkpoint(folder, steps),), steps=steps, reads=(setup.config(name),), work=folder,
        follow=follow,
    )  # fmt: skip


def _train(setup: Setup, name: str, seed: int, *more: object) -> tuple[str, ...]:
    return _command(
        "ddq-train", "run", setup.config(name), "--work-dir", setup.folder / name, "--seed", seed, "--deterministic",
        "--no-preflight", "--no-check-data", *more,
    )  # fmt: skip


def _convert(setup: Setup, name: str, title: str, source: Path, target: Path, needs: str, *more: object) -> Stage:
    command = _command("ddq-convert", "convert", source, target, *_model(setup), "--force", "-q", *more)
    work = target.parent if target.parent != setup.folder else None  # of the training that goes on from it
    return Stage(name, title, command, (needs,), (target,), work=work)


def _legacy(setup: Setup, command: str, folder: Path, *more: object, train: bool = True) -> tuple[str, ...]:
    data = ("--data", *setup.data) if train else ()
    settings = [part for text in setup.rehearsal.settings(LEGACY, setup.steps) for part in ("--set", text)]
    return _command(
        "ddq-parity", command, *_model(setup), *_repo(setup), *data, "--val-data", *setup.val_data, "--work-dir", folder,
        "--threads", setup.threads, "--device", setup.device, *more, *settings,
    )  # fmt: skip


def _model(setup: Setup) -> tuple[object, ...]:
    return ("--family", setup.port.family.reference, "--variant", setup.port.variant.name)


def _repo(setup: Setup) -> tuple[object, ...]:
    return (
        *(("--legacy-repo", setup.repo) if setup.repo else ()),
        *(("--legacy-python", setup.python) if setup.python else ()),
    )


def _command(program: str, *arguments: object) -> tuple[str, ...]:
    """Return a command of this toolkit, run by the interpreter of this process."""
    return (*_python(_MODULES[program]), *map(str, arguments))


def _python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module)

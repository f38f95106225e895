"""Train the official code and the port from the same weights on the same batches, and compare what comes out.

``DDQ_LEGACY_MAIN_REPO=DDQ python -m tests.ddq_main.training FAMILY FOLDER [--steps N] [--stop-after N]``

The official code trains itself, with its own runner (:mod:`legacy_adapters.targets.ddq_main.whole`), the port by
`ddq-train`. Both begin with the weights that the official code initialises, and see the images that `ddq-train` draws up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from converters.rules.ports import port
from ddq_port import configs
from ddq_port.data import own
from ddq_port.training import demo
from legacy_adapters import worker
from legacy_adapters.job import Job
from legacy_adapters.whole import steplog
from legacy_adapters.whole.request import OUTCOME, STEPS, TRAIN

VARIANT = "tiny_shapes"
SEED = 0
#: Steps that must have the same losses, lowest AP of the official code, largest distance of the port's AP from it.
SAME, LEAST_AP, NEAR = 50, 0.5, 0.05
AP = "coco/bbox_mAP"


def source(folder: Path, name: str) -> tuple[str, str]:
    """Return annotation file and images of a part of the data."""
    return str(folder / "data" / "annotations" / f"{name}.json"), str(folder / "data" / name)


def write_config(family: str, folder: Path, steps: int) -> None:
    """Write the port's config, with the hook that makes data and draws those of the official code's training."""
    cfg = configs.load(f"{family.replace('_', '-')}_{VARIANT}")
    own.use(cfg, *(own.Source(*map(Path, source(folder, name))) for name in ("train", "val")))
    cfg.train_cfg.update(max_iters=steps, val_interval=steps)
    cfg.custom_imports.imports = [*cfg.custom_imports.imports, "legacy_adapters.whole.following"]
    cfg.custom_hooks = [dict(type="FollowHook", seed=SEED, file=str(folder / "new" / STEPS))]
    cfg.dump(folder / "config.py")


def train_official(family: str, repo: Path, folder: Path, **request: Any) -> None:
    """Run the official code's process; ``request`` are fields of its training."""
    of, place = port(family, VARIANT), folder / "legacy"
    place.mkdir(exist_ok=True)
    plain = dict(
        options=dict(of.variant.legacy, repo=str(repo)),
        work_dir=str(place),
        data=source(folder, "train"),
        val_data=source(folder, "val"),
        seed=SEED,
        **request,
    )
    job = Job(
        family=family, variant=VARIANT, adapter=str(of.family.folder / of.family.legacy.adapter), options={}, weights="",
        inputs="", trace="", status=str(place / "status.json"), checks=(), seed=SEED, threads=1, cpu_capability=None,
        device="cpu", whole=dict(kind=TRAIN, request=plain),
    )  # fmt: skip
    job.save(str(place / "job.json"))
    with (place / "log.txt").open("a") as log:
        subprocess.run([sys.executable, worker.__file__, "job.json"], cwd=place, check=True, stdout=log, stderr=log)


def train_port(family: str, folder: Path) -> None:
    """Convert the initial weights and train the port with them."""
    start = folder / "start-new.pth"
    _command("ddq-convert", "convert", folder / "start.pth", start, "--family", family, "--force", "--quiet")
    _command("ddq-train", folder / "config.py", "--work-dir", folder / "new", "--load-from", start, "--seed", SEED,
             "--deterministic", "--no-check-data", "--no-preflight", "--quiet")  # fmt: skip
    scores = folder / "eval.json"
    last = max(folder.glob("new/iter_*.pth"), key=lambda path: int(path.stem.removeprefix("iter_")))
    _command("ddq-eval", folder / "config.py", last, "--no-check-data", "--json", "--quiet", stdout=scores.open("w"))


def compare(folder: Path) -> bool:
    """Print what came out of both; return whether it is what it must be."""
    legacy, new = (steplog.read(str(folder / side / STEPS)) for side in ("legacy", "new"))
    pairs = list(zip(legacy, new))
    same, whole = (_first(pairs, what) for what in (lambda step: (step.terms, step.total), lambda step: step))
    aps = [json.loads((folder / "legacy" / OUTCOME).read_text())["metrics"][AP], _logged_ap(folder / "new")]
    print(f"{len(legacy)} steps of the official code, {len(new)} of the port: the losses of the first {same} have the same "
          f"bits, and so has all of the first {whole} (images, objects, rates, norm, weights)")  # fmt: skip
    if whole < len(pairs):
        one, other = pairs[whole]
        print(f"step {one.step}:", {name: (value, vars(other)[name]) for name, value in vars(one).items()
                                    if vars(other)[name] != value})  # fmt: skip
    print(f"AP of the official code {aps[0]:.3f}, of the port {aps[1]:.3f}")
    return len(legacy) == len(new) and same >= SAME and aps[0] >= LEAST_AP and abs(aps[0] - aps[1]) <= NEAR


def _first(pairs: list, what: Any) -> int:
    """Return how many steps, from the first on, are equal in ``what``."""
    return next((at for at, (one, other) in enumerate(pairs) if what(one) != what(other)), len(pairs))


def _logged_ap(folder: Path) -> float:
    lines = max(folder.glob("*/vis_data/scalars.json")).read_text().splitlines()
    return [told[AP] for told in map(json.loads, lines) if AP in told][-1]


def _command(*words: Any, **options: Any) -> None:
    subprocess.run([Path(sys.executable).with_name(words[0]), *map(str, words[1:])], check=True, **options)


def main() -> int:
    """Train both, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--stop-after", type=int, help="end the official code's process there, and resume in another")
    parser.add_argument("--only", choices=["legacy", "new", "compare"], help="do a part, in a folder that is there")
    given = parser.parse_args()
    repo = os.environ.get("DDQ_LEGACY_MAIN_REPO")
    if not repo:
        sys.exit("DDQ_LEGACY_MAIN_REPO is not set: a checkout of jshilong/DDQ, branch main.")
    family, folder, stop = given.family, given.folder.absolute(), given.stop_after
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data").exists():
        demo.write_data(folder / "data")
    write_config(family, folder, given.steps)
    if given.only in (None, "legacy"):
        of_length = tuple(f"{name}={given.steps}" for name in ("runner.max_iters", "evaluation.interval"))
        settings = (*of_length, f"checkpoint_config.interval={stop or given.steps}")
        begin = dict(settings=settings, start_to=str(folder / "start.pth"))
        train_official(family, Path(repo), folder, stop_at=stop, **begin)
        if stop:
            train_official(family, Path(repo), folder, settings=settings, resume=str(folder / "legacy" / f"iter_{stop}.pth"))
    if given.only in (None, "new"):
        train_port(family, folder)
    return 0 if given.only in ("legacy", "new") else int(not compare(folder))


if __name__ == "__main__":
    sys.exit(main())

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

from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner

from converters.rules.ports import port
from ddq_port import configs
from ddq_port.data import own
from ddq_port.hooks.data_stream import EndlessBatches, seeded_loader
from ddq_port.training import demo
from ddq_port.training.output import curves
from legacy_adapters.targets.ddq_main import whole

VARIANT = "tiny_shapes"
SEED = 0
#: Steps that must have the same losses, lowest AP of the official code, largest distance of the port's AP from it.
SAME, LEAST_AP, NEAR = 50, 0.5, 0.05


def prepare(family: str, folder: Path, steps: int | None) -> Config:
    """Draw the images; write the port's config and the batches that it asks for. Return the config."""
    data = folder / "data"
    if not data.exists():
        demo.write_data(data)
    cfg = configs.load(f"{family.replace('_', '-')}_{VARIANT}")
    own.use(cfg, *(own.Source(data / "annotations" / f"{name}.json", data / name) for name in ("train", "val")))
    if steps is not None:
        cfg.train_cfg.update(max_iters=steps, val_interval=steps)
        cfg.default_hooks.checkpoint.interval = steps
    cfg.default_hooks.logger.interval = cfg.log_processor.window_size = 1
    cfg.dump(folder / "config.py")
    (folder / "batches.json").write_text(json.dumps(batches(cfg)))
    return cfg


def batches(cfg: Config) -> list[list[tuple[str, bool]]]:
    """Return name and whether it is mirrored of the images of each step, as `ddq-train` with this seed draws them."""
    register_all_modules()
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=SEED)
    loader = seeded_loader(loader, cfg.train_dataloader, SEED, SEED, 0)
    drawn = EndlessBatches(loader, loader.batch_sampler, 0)
    return [
        [(Path(sample.img_path).name, bool(sample.flip)) for sample in next(drawn)["data_samples"]]
        for _ in range(cfg.train_cfg.max_iters)
    ]


def train_official(family: str, repo: Path, folder: Path, **what: Any) -> None:
    """Run the official code's process; ``what`` are further fields of its job."""
    job = dict(
        options=dict(port(family, VARIANT).variant.legacy, repo=str(repo)),
        work_dir=str(folder / "legacy"),
        data=str(folder / "data"),
        seed=SEED,
        threads=1,
        **what,
    )
    (folder / "legacy").mkdir(exist_ok=True)
    file = folder / "legacy" / "job.json"
    file.write_text(json.dumps(job))
    with (folder / "legacy" / "log.txt").open("a") as log:
        subprocess.run([sys.executable, whole.__file__, file], check=True, stdout=log, stderr=log)


def train_port(family: str, folder: Path) -> None:
    """Convert the initial weights and train the port with them."""
    start = folder / "start.pth"
    _command("ddq-convert", "convert", folder / "legacy" / whole.START, start, "--family", family, "--force")
    _command("ddq-train", folder / "config.py", "--work-dir", folder / "new", "--load-from", start, "--seed", SEED,
             "--deterministic", "--no-check-data", "--no-preflight", "--quiet")  # fmt: skip


def compare(folder: Path) -> bool:
    """Print what came out of both; return whether it is what it must be."""
    told = map(json.loads, (folder / "legacy" / whole.LOSSES).read_text().splitlines())
    legacy = [terms["loss"] for terms in told]
    logged = curves.read(folder / "new")
    new = [float(loss) for loss in logged.training["loss"].values]
    same = next((step for step, both in enumerate(zip(legacy, new)) if both[0] != both[1]), min(len(legacy), len(new)))
    metrics = json.loads((folder / "legacy" / whole.METRICS).read_text())
    aps = metrics["bbox_mAP"], logged.validation["coco/bbox_mAP"].values[-1]
    print(f"{len(legacy)} and {len(new)} steps, the first {same} with the same losses; loss {legacy[0]:.6g} -> "
          f"{legacy[-1]:.6g} and {new[-1]:.6g}; AP of the official code {aps[0]:.4f}, of the port {aps[1]:.4f}")  # fmt: skip
    return len(legacy) == len(new) and same >= SAME and aps[0] >= LEAST_AP and abs(aps[0] - aps[1]) <= NEAR


def _command(*words: Any) -> None:
    subprocess.run([Path(sys.executable).with_name(words[0]), *map(str, words[1:])], check=True)


def main() -> int:
    """Train both, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--stop-after", type=int, help="end the official code's process there, and resume in another")
    parser.add_argument("--only", choices=["legacy", "new", "compare"], help="go on with a folder that is there")
    given = parser.parse_args()
    repo = os.environ.get("DDQ_LEGACY_MAIN_REPO")
    if not repo:
        sys.exit("DDQ_LEGACY_MAIN_REPO is not set: a checkout of jshilong/DDQ, branch main.")
    folder = given.folder.absolute()
    if given.only is None:
        folder.mkdir(parents=True, exist_ok=True)
        prepare(given.family, folder, given.steps)
        train_official(given.family, Path(repo), folder)
    length = len(json.loads((folder / "batches.json").read_text()))
    if given.only in (None, "legacy"):
        parts = [given.stop_after, length] if given.stop_after else [length]
        for before, stop in zip([None, *parts], parts):
            resume = before and str(folder / "legacy" / f"iter_{before}.pth")
            train_official(given.family, Path(repo), folder, batches=str(folder / "batches.json"), stop=stop, resume=resume)
    if given.only in (None, "new"):
        train_port(given.family, folder)
    return int(not compare(folder))


if __name__ == "__main__":
    sys.exit(main())

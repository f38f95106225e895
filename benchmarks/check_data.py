"""Measure ``ddq-train check-data`` on images of COCO's size: ``python -m benchmarks.check_data --folder EMPTY``.

Writes smoothed noise as JPEG (about 0.1 MB each, like COCO's) with 7 objects of 80 classes per image, checks it as a
whole, with ``--fast``, and without images, each in a process of its own, and prints the table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 640, 480
_OBJECTS, _CLASSES = 7, 80
_DIFFERENT = 50  # images; the others are copies of them, which take as long to decode


@dataclass(frozen=True)
class Measured:
    """What a check took.

    Attributes:
        what: the arguments.
        seconds: of wall time, imports included.
        cpu: seconds of CPU time of all processes.
        memory: of the largest process, in bytes.
        verdict: its last line.
        progress: the lines that it wrote to stderr.
    """

    what: str
    seconds: float
    cpu: float
    memory: int
    verdict: str
    progress: tuple[str, ...]


def main() -> None:
    """Write the data, check them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new one, removed afterwards")
    parser.add_argument("--images", type=int, default=5000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    try:
        size = write(given.folder, given.images)
        runs = [measure(given.folder, *options) for options in ((), ("--fast",), ("--no-read-images",))]
    finally:
        shutil.rmtree(given.folder)
    print(f"{given.images} images of {WIDTH} x {HEIGHT}, {size / given.images / 1e6:.2f} MB each; {machine()}\n")
    print("| command | wall | CPU time | memory of the largest process |\n|---|---|---|---|")
    for run in runs:
        print(f"| `{run.what}` | {run.seconds:.1f} s | {run.cpu:.1f} s | {run.memory / 1e9:.2f} GB |")
    print(f"\n{runs[0].verdict}\nprogress of the first:", *runs[0].progress, sep="\n")


def write(folder: Path, number: int) -> int:
    """Write images and annotations; return the bytes of the images."""
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    encoded = []
    for _ in range(_DIFFERENT):
        coarse = random.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        pixels += random.integers(-12, 13, pixels.shape, dtype=np.int16)
        data = cv2.imencode(".jpg", pixels.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        encoded.append(data.tobytes())
    images, annotations = [], []
    for key in range(1, number + 1):
        (folder / "images" / f"{key:06}.jpg").write_bytes(encoded[key % _DIFFERENT])
        images.append(dict(id=key, file_name=f"{key:06}.jpg", width=WIDTH, height=HEIGHT))
        for _ in range(_OBJECTS):
            w, h = map(int, random.integers(10, 200, 2))
            x, y = int(random.integers(0, WIDTH - w)), int(random.integers(0, HEIGHT - h))
            category = int(random.integers(1, _CLASSES + 1))
            box = dict(bbox=[x, y, w, h], area=w * h, iscrowd=0)
            annotations.append(dict(id=len(annotations) + 1, image_id=key, category_id=category, **box))
    categories = [dict(id=key, name=f"class {key}") for key in range(1, _CLASSES + 1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / "ann.json").write_text(json.dumps(content))
    return sum(len(encoded[key % _DIFFERENT]) for key in range(1, number + 1))


def measure(folder: Path, *options: str) -> Measured:
    """Check the data in a process of its own.

    Raises:
        RuntimeError: if they are not usable, which they are.
    """
    words = ["check-data", str(folder / "ann.json"), "--images", str(folder / "images"), *options]
    begin, before = time.monotonic(), os.times()
    process = subprocess.Popen(
        [sys.executable, "-m", "ddq_port.training", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate()
    seconds, after = time.monotonic() - begin, os.times()
    if process.returncode:
        raise RuntimeError(f"check-data ended with {process.returncode}: {out}{err}")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    what = " ".join(["ddq-train check-data ann.json --images images", *options])
    return Measured(what, seconds, cpu, memory, out.splitlines()[-1], tuple(err.splitlines()))


def machine() -> str:
    """Return processor, its cores that may be used, and the commit, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {models[0] if models else platform.machine()}, OpenCV {cv2.__version__}, commit {commit}"


if __name__ == "__main__":
    main()

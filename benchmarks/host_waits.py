"""Count how often the host waits for a GPU, on any machine: ``python -m benchmarks.host_waits [--legacy-repo DDQ]``.

A detector at full width runs on tensors that call themselves ``cuda:0`` (:mod:`tools.cuda_standin`), each side in a
process of its own: inference, and the forward pass with losses. Prints the table in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from tools.cuda_standin.waits import TO_GPU

ROOT = Path(__file__).resolve().parents[1]
#: Of the repository, of mmdet's DDQ, of the official code.
OURS, MMDET, OFFICIAL = "ddq_port", "mmdet_ddq", "ddq_detr"
NAMES = {OURS: "this package", MMDET: "MMDetection 3.3.0", OFFICIAL: "official code"}
STAGES = {"predict": "inference", "loss": "forward with losses"}
_MOST_PLACES = 12


def main() -> None:
    """Count, then print the table and, with ``--places``, where one image makes this package wait."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--legacy-repo", type=Path, help="checkout of jshilong/DDQ, branch ddq_detr")
    parser.add_argument("--variant", default="r50_4scale")
    parser.add_argument("--size", default="320x480", help="HxW of every image")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4], help="of a batch")
    parser.add_argument("--objects", type=int, default=7, help="of every image; COCO has 7 on average")
    parser.add_argument("--places", action="store_true", help="tell where, too")
    given = parser.parse_args()
    sides = [OURS, MMDET, *([OFFICIAL] if given.legacy_repo else [])]
    counted = {side: count(side, given) for side in sides}
    print(f"{given.variant}, images of {given.size} with {given.objects} objects each; {machine()}\n")
    print("\n".join(table(counted, given.images)))
    if given.places:
        print("\n" + "\n".join(places(counted[OURS])))


def count(side: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run a side; return the lines of ``tools.cuda_standin``.

    Raises:
        RuntimeError: if the side fails.
    """
    arguments = [side, "--variant", given.variant, "--size", given.size, "--objects", str(given.objects)]
    arguments += ["--images", *map(str, given.images), "--no-gradients"]
    arguments += ["--legacy-repo", str(given.legacy_repo)] if side == OFFICIAL else []
    command = [sys.executable, "-m", "tools.cuda_standin", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {ran.returncode}: {ran.stdout[-1000:]}{ran.stderr[-2000:]}")
    return [json.loads(line) for line in ran.stdout.splitlines()]


def table(counted: dict[str, list[dict[str, Any]]], images: list[int]) -> list[str]:
    """Return the lines of a table: all waits, in brackets those for copies to the GPU."""
    sides = list(counted)
    lines = ["| during | images | " + " | ".join(NAMES[side] for side in sides) + " |", "|---" * (2 + len(sides)) + "|"]
    for stage, name in STAGES.items():
        for number in images:
            cells = [
                f"{line['waits']} ({line['kinds'].get(TO_GPU, 0)})"
                for side in sides
                for line in counted[side]
                if (line["stage"], line["images"]) == (stage, number)
            ]
            lines.append(f"| {name} | {number} | " + " | ".join(cells) + " |")
    return lines


def places(lines: list[dict[str, Any]]) -> list[str]:
    """Return a list for each stage of the smallest batch: where the host waits, the most frequent first."""
    told = []
    for line in lines[: len(STAGES)]:
        told.append(f"{STAGES[line['stage']]}, {line['images']} image:")
        counts = Counter(line["places"])
        told += [f"{count:5} {place}" for place, count in counts.most_common(_MOST_PLACES)]
    return told


def machine() -> str:
    """Tell what the table was made with."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    python = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{platform.machine()}, {os.cpu_count()} cores; {python}; commit {commit.stdout.strip() or 'unknown'}"


if __name__ == "__main__":
    main()

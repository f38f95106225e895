"""Compare both ports with the official code on batches of every kind, without a fault: no run may raise an alarm.

``DDQ_LEGACY_MAIN_REPO=DDQ python -m tests.ddq_main.clean [ddq_fcn ddq_rcnn:3 ...]``: all, those of a family, or that of a
family and a seed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from parity.verdict.verdict import MATCH

from ..warm.execute import use_forks
from .bench import Bench
from .fault import FCN, RCNN

#: Sizes (h, w) and objects of each image of a batch; the number of the batch, counted from 1, is its seed.
BATCHES = (
    (((64, 96),), (2,)),
    (((96, 64),), (1,)),
    (((48, 160),), (5,)),
    (((33, 47),), (1,)),
    (((64, 96), (80, 64)), (0, 3)),
    (((96, 96), (64, 64)), (1, 1)),
    (((70, 50), (61, 93)), (12, 2)),
    (((64, 64), (64, 64), (64, 64)), (2, 3, 4)),
    (((83, 77), (57, 91), (61, 93)), (4, 0, 7)),
    (((40, 56), (64, 48), (48, 64), (56, 40)), (1, 2, 0, 3)),
)


def main(chosen: list[str]) -> int:
    """Compare; return 0 if every run matches."""
    repo = os.environ.get("DDQ_LEGACY_MAIN_REPO")
    if not repo:
        sys.exit("DDQ_LEGACY_MAIN_REPO is not set: a checkout of jshilong/DDQ, branch main.")
    use_forks()
    runs = alarms = 0
    for family in (FCN, RCNN):
        for seed, (sizes, objects) in enumerate(BATCHES, 1):
            if chosen and not {family, f"{family}:{seed}"} & {*chosen}:
                continue
            start = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="ddq-main-clean-") as made:
                bench = Bench(family, Path(made, family), Path(repo), seed, sizes, objects)
                seen = bench.see()
            runs += 1
            alarms += seen.outcome != MATCH
            print(f"{seen.outcome} {family} seed {seed}, sizes {sizes}, objects {objects}: {seen.where} {seen.message} "
                  f"({time.monotonic() - start:.0f} s)", flush=True)  # fmt: skip
    print(f"{runs} runs, {alarms} alarms")
    return int(alarms > 0 or not runs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

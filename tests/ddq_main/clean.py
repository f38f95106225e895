"""Compare both ports with the official code on batches of every kind, without a fault: no run may raise an alarm.

``DDQ_LEGACY_MAIN_REPO=DDQ python -m tests.ddq_main.clean``
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

#: Sizes (h, w) and objects of each image of a batch; the number of the batch is its seed, less one.
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


def main() -> int:
    """Compare; return 0 if every run matches."""
    repo = os.environ.get("DDQ_LEGACY_MAIN_REPO")
    if not repo:
        sys.exit("DDQ_LEGACY_MAIN_REPO is not set: a checkout of jshilong/DDQ, branch main.")
    use_forks()
    alarms = 0
    for family in (FCN, RCNN):
        for seed, (sizes, objects) in enumerate(BATCHES, 1):
            start = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="ddq-main-clean-") as made:
                bench = Bench(family, Path(made, family), Path(repo), seed, sizes, objects)
                seen = bench.see()
            alarms += seen.outcome != MATCH
            print(f"{seen.outcome} {family} seed {seed}, sizes {sizes}, objects {objects}: {seen.where} {seen.message} "
                  f"({time.monotonic() - start:.0f} s)", flush=True)  # fmt: skip
    print(f"{2 * len(BATCHES)} runs, {alarms} alarms")
    return int(alarms > 0)


if __name__ == "__main__":
    sys.exit(main())

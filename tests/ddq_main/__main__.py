"""Plant all faults, print what was said of each: ``DDQ_LEGACY_MAIN_REPO=DDQ python -m tests.ddq_main [NAME ...]``."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from parity.verdict.verdict import MATCH

from ..warm.execute import use_forks
from .bench import MISSED, NAMED, Bench
from .catalogue import ALL
from .fault import FCN, RCNN

#: Least share that must be named.
_NAMED = 0.95


def main(names: list[str]) -> int:
    """Measure; return 0 if all were detected, enough named, and the sides match without a fault."""
    repo = os.environ.get("DDQ_LEGACY_MAIN_REPO")
    if not repo:
        sys.exit("DDQ_LEGACY_MAIN_REPO is not set: a checkout of jshilong/DDQ, branch main.")
    use_forks()
    judged, alarms = Counter(), 0
    with tempfile.TemporaryDirectory(prefix="ddq-main-faults-") as made:
        for family in (FCN, RCNN):
            chosen = [fault for fault in ALL if fault.family == family and (not names or fault.name in names)]
            if not chosen:
                continue
            bench = Bench(family, Path(made, family), Path(repo))
            clean = bench.see()
            alarms += clean.outcome != MATCH
            print(f"clean {family}: {clean.outcome} {clean.where} {clean.message}", flush=True)
            for fault in chosen:
                start = time.monotonic()
                found = bench.see(fault.name)
                said = found.judged(fault)
                judged[said] += 1
                seconds = time.monotonic() - start
                print(f"{said:<9} {fault.name}: {found.outcome} {found.where}: {found.message[:200]} ({seconds:.0f} s)",
                      flush=True)  # fmt: skip
    total = sum(judged.values())
    print(f"{total} faults, {total - judged[MISSED]} detected, {judged[NAMED]} named; {alarms} alarms without a fault")
    return int(bool(alarms or judged[MISSED] or judged[NAMED] < _NAMED * total))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

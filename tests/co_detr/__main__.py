"""Plant all faults, print what was said of each: ``DDQ_LEGACY_CODETR_REPO=CODETR python -m tests.co_detr [NAME ...]``.

A name is that of a fault, or of a small model for all of its faults.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from parity.verdict.verdict import MATCH

from ..ddq_main.bench import MISSED, NAMED, Bench
from ..warm.execute import use_forks
from .bench import OF_ZERO_SCORES, bench
from .catalogue import ALL

#: Least share that must be named.
_NAMED = 0.95


def main(names: list[str]) -> int:
    """Measure; return 0 if all were detected, enough named, and the sides match without a fault."""
    repo = os.environ.get("DDQ_LEGACY_CODETR_REPO")
    if not repo:
        sys.exit("DDQ_LEGACY_CODETR_REPO is not set: a checkout of Sense-X/Co-DETR.")
    use_forks()
    judged, alarms = Counter(), 0
    chosen = [fault for fault in ALL if not names or fault.name in names or fault.family in names]
    with tempfile.TemporaryDirectory(prefix="ddq-co-detr-faults-") as made:
        benches: dict[tuple[str, bool], Bench] = {}
        for fault in chosen:
            start, key = time.monotonic(), (fault.family, fault.name == OF_ZERO_SCORES)
            if key not in benches:
                benches[key] = bench(Path(made), Path(repo), *key)
                clean = benches[key].see()
                alarms += clean.outcome != MATCH
                print(f"clean {fault.family}: {clean.outcome} {clean.where} {clean.message}", flush=True)
            found = benches[key].see(fault.name)
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

"""Make all mistakes and print what was said of each: ``DDQ_MMDET2_REPO=FOLDER python -m tests.mistakes [NAME ...]``."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from ..warm.execute import use_forks
from .bench import MISSED, NAMED, Bench, repo
from .catalogue import ALL

#: Least share that must be named.
_NAMED = 0.95


def main(names: list[str]) -> int:
    """Measure; return 0 if all were detected, enough named, and the sides match without a mistake."""
    if repo() is None:
        sys.exit("DDQ_MMDET2_REPO is not set: a folder with mmdet 2.x and mmcv 1.x.")
    use_forks()
    chosen = [mistake for mistake in ALL if not names or mistake.name in names or mistake.setting in names]
    judged, clean = Counter(), {}
    with tempfile.TemporaryDirectory(prefix="ddq-mistakes-") as made:
        bench = Bench(Path(made), repo())
        for mistake in chosen:
            start, key = time.monotonic(), (mistake.detector, mistake.setting)
            if key not in clean:
                clean[key] = bench.clean(mistake)
                print(f"clean {' '.join(key)}: {clean[key].outcome} {clean[key].where} {clean[key].message}", flush=True)
            found = bench.see(mistake)
            said = found.judged(mistake)
            judged[said] += 1
            seconds = time.monotonic() - start
            print(f"{said:<9} {mistake.name}: {found.outcome} {found.where}: {found.message[:300]} ({seconds:.0f} s)", flush=True)
    alarms = [key for key, finding in clean.items() if finding.outcome != "MATCH"]
    print(f"{len(chosen)} mistakes, {len(chosen) - judged[MISSED]} detected, {judged[NAMED]} named; "
          f"{len(alarms)} of {len(clean)} clean runs no match")  # fmt: skip
    return int(bool(alarms or judged[MISSED] or judged[NAMED] < _NAMED * len(chosen)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

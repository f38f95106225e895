"""Plant all faults, print what was said of each: ``DDQ_LEGACY_CODETR_REPO=CODETR python -m tests.co_detr [NAME ...]``."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from safetensors.torch import save_file

from parity.verdict.verdict import MATCH

from ..ddq_main.bench import MISSED, NAMED, Bench
from ..models import weights_of
from ..warm.execute import use_forks
from .catalogue import ALL

ADAPTER = Path(__file__).with_name("adapter.py")
#: Least share that must be named.
_NAMED = 0.95
#: A fault that only weights show with which every score of a class is 0.
_OF_ZERO_SCORES = "zero_scores_kept"


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
            start, key = time.monotonic(), (fault.family, fault.name == _OF_ZERO_SCORES)
            if key not in benches:
                benches[key] = _bench(Path(made), repo, *key)
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


def _bench(made: Path, repo: str, variant: str, of_zero_scores: bool) -> Bench:
    """Make the bench of a small model, on images of two shapes; the second one has more objects."""
    name, checkpoint = variant, None
    if of_zero_scores:
        name, checkpoint = f"{variant}_zero", made / "zero.safetensors"
        weights = weights_of(variant, 0, "co_detr", "legacy")
        for layer in range(3):
            weights[f"query_head.cls_branches.{layer}.bias"][:] = -200.0
        save_file(weights, checkpoint)
    sizes = ((48, 70), (61, 57))
    return Bench("co_detr", made / name, Path(repo), sizes=sizes, variant=variant, adapter=ADAPTER, checkpoint=checkpoint)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

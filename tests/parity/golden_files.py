"""Golden recordings of hand-written traces, for tests that run no model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from converters.rules.ports import port
from legacy_adapters.inputs import Batch
from parity.comparing.evidence import spreads
from parity.comparing.pairing import LEGACY, NEW
from parity.golden import golden
from parity.golden.golden import Golden
from parity.golden.sketches import Sketches
from parity.sides.prepared import Prepared
from parity.sides.settings import Task
from parity.traces.trace import Trace, decisions

from .synthetic import INF, NAN, Rec, write_trace

TASK = Task(port("mmdet_ddq", "tiny_1class"), ((64, 96), (32, 32)), (3, 0), 7, ("forward", "loss"))
BATCH = Batch(
    torch.zeros(1, 3, 32, 32), ((32, 32),), ((32, 32),), ((0.5, 0.75),), [torch.ones(1, 4)], [torch.tensor([2])]
)
PREPARED = Prepared(TASK.port, {LEGACY: {"fc.weight": torch.ones(2)}, NEW: {"fc.weight": torch.ones(2)}}, {phase: BATCH.to_tensors() for phase in ("predict", "train")})


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Return the same normal noise every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


RECORDS = [
    Rec("param", "fc.weight", [1.0, 1.0], phase="weights"),
    Rec("module_in", "neck", noise(100), "x", scope="backbone"),
    Rec("module_out", "neck", noise(5, 60, seed=1), "0.1", call=2),
    Rec("module_in", "head", noise(5, 60, seed=1), "feats"),
    Rec("module_out", "mask", [True, False]),
    Rec("module_out", "odd", [NAN, INF, -INF, -0.0, 1e-30]),
    Rec("module_out", "none", torch.empty(0, 4)),
    Rec("basis", "dense", [0.75, 0.5, 0.25], "scores"),
    Rec("tap", "dense", [0, 2], "keep"),
    Rec("tap", "noise.rand", [0.125], "draw", phase="predict"),
    Rec("loss", "total", 2.5),
]
PROVENANCE = dict(
    commit="80c7d5f",
    numpy="2.0.0",
    python="3.11.2",
    repo="/somewhere/DDQ",
    config="/somewhere/DDQ/projects/config.py",
    executable="/opt/venv/bin/python",
    mmcv_ops="/opt/venv/lib/mmcv/_ext.so",
    modules=dict(mmdet=dict(file="/somewhere/DDQ/mmdet/__init__.py", version="3.0.0rc6")),
)


def widened(record: Rec) -> Rec:
    """Return the float64 twin of ``record``."""
    return replace(record, values=record.tensor.double()) if record.tensor.is_floating_point() else record


def legacy_trace(folder: Path) -> Trace:
    """Write ``RECORDS`` as the trace of a legacy side, with provenance that holds paths."""
    coverage = dict(leaf_calls={"neck": 2}, without_gradient=("a.weight",), never_executed=("b",))
    return write_trace(folder / "legacy", *RECORDS, **coverage, **PROVENANCE)


def recording(folder: Path) -> Golden:
    """Distil ``RECORDS``; another run of theirs has a loss that is 0.5 larger."""
    legacy = legacy_trace(folder)
    reference = write_trace(folder / "reference", *map(widened, RECORDS), dtype="float64")
    run = [replace(r, values=r.tensor + 0.5) if r.kind == "loss" else r for r in RECORDS]
    spread = spreads([legacy, write_trace(folder / "run", *run)], reference, Sketches().of)
    return golden.distil(TASK, PREPARED, legacy, reference, spread, decisions(legacy), Sketches())


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a golden file."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def header_of(path: Path) -> dict[str, Any]:
    """Read the header of a golden file."""
    return json.loads(arrays_of(path)["header"].tobytes())


def rewritten(path: Path, target: Path, change: Callable[[dict, dict], Any], seal: bool = True) -> Path:
    """Write ``path`` again as ``target``, its parts changed by ``change(arrays, header)``; return ``target``.

    With ``seal`` it is sealed anew, as by one who means it.
    """
    arrays = arrays_of(path)
    header = json.loads(arrays["header"].tobytes())
    change(arrays, header)
    if "header" in arrays:
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    if seal:
        arrays[golden.SEAL] = np.frombuffer(bytes.fromhex(golden.seal_of(arrays)), np.uint8)
    np.savez_compressed(target, **arrays)
    return target

"""The port with the fault or rewrite that the environment variable ``DDQ_FAULT`` names, or several, joined by ``+``.

By hand, from the root of the repository::

    DDQ_FAULT=swapped_norms_encoder ddq-parity demo --new-adapter tests/faults/adapter.py
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from parity.adapters import ddq_port as right
from parity.adapters.ddq_port import *  # noqa: F403

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.faults.catalogue import PLANTED  # noqa: E402
from tests.faults.fault import CODE, MODEL, TRAINING, VARIABLE, Fault, Rewrite  # noqa: E402


def build(options: dict[str, Any], device: str) -> torch.nn.Module:
    """Build the detector and plant the faults in it, or in its classes before."""
    faults = _named()
    for fault in faults:
        if fault.place == CODE:
            fault.apply(None)
    model = right.build(options, device)
    for fault in faults:
        if fault.place == MODEL:
            fault.apply(model)
    return model


def training(model: torch.nn.Module, *arguments: Any) -> Any:
    """Make the training and plant the faults in it."""
    made = right.training(model, *arguments)
    for fault in _named():
        if fault.place == TRAINING:
            fault.apply(made)
    return made


def _named() -> list[Fault | Rewrite]:
    return [PLANTED[name] for name in os.environ[VARIABLE].split("+")]

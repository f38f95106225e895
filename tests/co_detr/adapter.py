"""The new side of Co-DETR with the fault that the environment variable ``DDQ_MAIN_FAULT`` names."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from legacy_adapters.targets.co_detr.new import PortedCoDETR  # noqa: E402
from tests.co_detr.catalogue import FAULTS  # noqa: E402
from tests.ddq_main.fault import VARIABLE  # noqa: E402


class FaultyCoDETR(PortedCoDETR):
    """Build the model and plant the fault."""

    def build(self, options: Mapping[str, Any], device: str) -> nn.Module:
        """Build it."""
        model = super().build(options, device)
        if os.environ.get(VARIABLE):
            FAULTS[os.environ[VARIABLE]].plant(model)
        return model


ADAPTER = FaultyCoDETR()

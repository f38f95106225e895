"""The new side, on the operators of ddq_port and computing as 2.x does, with the mistake that the environment variable ``DDQ_MISTAKE`` names."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from legacy_adapters import mmdet3  # noqa: E402
from legacy_adapters.families.mmdet2.as_2x import As2xDetector  # noqa: E402
from tests.mistakes.catalogue import MISTAKES  # noqa: E402
from tests.mistakes.mistake import VARIABLE  # noqa: E402

MISTAKE = MISTAKES.get(os.environ.get(VARIABLE, ""))
ADAPTER = As2xDetector()
_right = mmdet3.load_config


def _load_config(path: str) -> Any:
    config = _right(path)
    if MISTAKE is not None and MISTAKE.change is not None:
        MISTAKE.change(config)
    return config


mmdet3.load_config = _load_config
if MISTAKE is not None and MISTAKE.adapt is not None:
    MISTAKE.adapt(ADAPTER)

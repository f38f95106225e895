"""The new side of a small model, made of its config of 2.x as `ddq-convert config` translates it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from mmengine.config import Config  # noqa: E402

from legacy_adapters import mmdet3  # noqa: E402
from legacy_adapters.families.mmdet2.as_2x import As2xDetector  # noqa: E402
from legacy_adapters.families.mmdet2.migration import whole  # noqa: E402
from legacy_adapters.families.mmdet2.migration.reading import read  # noqa: E402

ADAPTER = As2xDetector()


def _load_config(path: str) -> Any:
    old = Path(path).parents[1] / "legacy" / Path(path).name
    return Config(whole.translate(read(str(old), "2.x")).config)


mmdet3.load_config = _load_config

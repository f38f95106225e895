"""A family with one model of 1 GB, to measure conversions with.

The model is r50_4scale with the largest weights made longer, so that everything of it is read, checked and written as it
is of the others.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from converters.rules.ports import Port, port
from legacy_adapters import registry

NAME, BYTES = "enlarged", 1_000_000_000
_FAMILY, _MODEL = "ddq_detr", "r50_4scale"
_LARGE = 500_000  # elements
_FILE = f"""
from dataclasses import replace
from pathlib import Path

from legacy_adapters import registry
from legacy_adapters.family import Variant

BASE = registry.get({_FAMILY!r})
VARIANT = Variant({NAME!r}, settings=BASE.variant({_MODEL!r}).settings)
FAMILY = replace(BASE, variants=(VARIANT,), layouts=Path("layouts"), demo=None)
"""


def write_family(folder: Path) -> Port:
    """Write the family's folder, with a layout of at least `BYTES`, and return its model."""
    (folder / "layouts").mkdir(parents=True)
    entries = json.loads((registry.get(_FAMILY).layouts / f"{_MODEL}.json").read_text())
    large = [entry for entry in entries.values() if math.prod(entry[1]) >= _LARGE]
    rest = sum(math.prod(entry[1]) for entry in entries.values()) - sum(math.prod(entry[1]) for entry in large)
    factor = math.ceil((BYTES / 4 - rest) / sum(math.prod(entry[1]) for entry in large))
    for entry in large:
        entry[1][0] *= factor
    (folder / "layouts" / f"{NAME}.json").write_text(json.dumps(entries))
    (folder / registry.FILE).write_text(_FILE)
    return port(str(folder))

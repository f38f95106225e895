"""`ddq-convert` with one more variant, of 1 GB: ``python -m benchmarks.enlarged LAYOUTS convert SRC DST``.

The variant is r50_4scale with the largest weights made longer, so that everything of it is read, checked and written as
it is of the others. LAYOUTS is a folder that `write_layouts` has filled.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from converters.cli.main import main
from converters.rules import families, layout
from converters.rules.families import Variant

NAME, BYTES = "enlarged", 1_000_000_000
_MODEL = "r50_4scale"
_LARGE = 500_000  # elements


def write_layouts(folder: Path) -> None:
    """Copy the package's layouts, and add that of the variant: of at least `BYTES`."""
    shutil.copytree(layout._FOLDER, folder)
    entries = json.loads((folder / f"ddq_detr.{_MODEL}.json").read_text())
    large = [entry for entry in entries.values() if math.prod(entry[1]) >= _LARGE]
    rest = sum(math.prod(entry[1]) for entry in entries.values()) - sum(math.prod(entry[1]) for entry in large)
    factor = math.ceil((BYTES / 4 - rest) / sum(math.prod(entry[1]) for entry in large))
    for entry in large:
        entry[1][0] *= factor
    (folder / f"ddq_detr.{NAME}.json").write_text(json.dumps(entries))


def register(layouts: Path) -> None:
    """Make the variant known to this process."""
    layout._FOLDER = layouts
    for name, family in families._FAMILIES.items():
        families._FAMILIES[name] = replace(family, variants=(*family.variants, Variant(NAME, decoder_layers=6)))


if __name__ == "__main__":
    register(Path(sys.argv.pop(1)))
    main()

"""Store the layouts of a family's models beside it, so that `ddq-convert` need not build them.

``python -m converters.layouts FAMILY [VARIANT ...]`` builds the new side of each variant and writes
``layouts/VARIANT.json`` into the family's folder, in place of what is there. Do so again when a model changes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from converters.errors import ConversionError
from converters.rules import built, ports
from legacy_adapters import registry
from legacy_adapters.family import FamilyError
from legacy_adapters.ground.files import write_whole

_FOLDER = "layouts"


def store(family: str, variants: list[str]) -> list[Path]:
    """Write the layouts of some variants, or of all, and return the files.

    Raises:
        ConversionError: If a model cannot be built.
        FamilyError: If there is no such family or variant.
        OSError: If a file cannot be written.
    """
    found = registry.get(family)
    models = [ports.port(family, name) for name in variants] or list(ports.ports(found))
    folder = found.layouts or Path(found.folder, _FOLDER)
    folder.mkdir(exist_ok=True)
    files = []
    for model in models:
        files.append(folder / f"{model.variant.name}.json")
        write_whole(files[-1], built.layout_of_new_model(model).to_json())
    return files


def main(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    if not arguments:
        sys.stderr.write("usage: python -m converters.layouts FAMILY [VARIANT ...]\n")
        return 2
    try:
        files = store(arguments[0], arguments[1:])
    except (ConversionError, FamilyError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write("".join(f"wrote {file}\n" for file in files))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

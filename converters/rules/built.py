"""Layouts of a family that has none stored: the model of the new side is built for them, in a process of its own."""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path

from converters.errors import ConversionError
from converters.rules.layout import Layout
from converters.rules.ports import Port
from legacy_adapters.ground.names import LEGACY, NEW
from legacy_adapters.launch import RefusedError, SideError, layout_of_side

_TIME_LIMIT = 600.0  # seconds


@cache
def with_layouts(port: Port) -> Port:
    """Return a model whose layouts are known; the legacy one follows from the new one by the inverse mapping.

    Raises:
        ConversionError: If the model of the new side cannot be built.
        FamilyError: If the rules cannot be used.
    """
    if port.has_layouts:
        return port
    with tempfile.TemporaryDirectory(prefix="ddq-convert-") as made:
        adapter = port.family.new.adapter
        try:
            entries = layout_of_side(NEW, adapter, port.variant.new, Path(made), sys.executable, _TIME_LIMIT, False)
        except (RefusedError, SideError) as error:
            raise ConversionError(f"The layout of {port} is taken from its model, which cannot be built: {error}") from error
    new = Layout.from_entries(port.variant.name, entries)
    return port.with_layouts({NEW: new, LEGACY: new.mapped(port.mapping.inverse())})

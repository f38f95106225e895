"""Models of families that have no stored layouts: the new side is built for them, in a process of its own."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from converters.errors import ConversionError, FamilyError
from converters.options import Options
from converters.rules import detect, ports
from converters.rules.layout import Layout
from converters.rules.ports import Port
from converters.rules.values import AnyTensor
from legacy_adapters import registry
from legacy_adapters.ground.names import LEGACY, NEW
from legacy_adapters.launch import Description, RefusedError, SideError, describe_side

_TIME_LIMIT = 600.0  # seconds


@cache
def with_new_layout(port: Port) -> Port:
    """Return a model whose layouts are known; the legacy one follows from the new one by the inverse mapping.

    Raises:
        ConversionError: If the model of the new side cannot be built.
        FamilyError: If the rules cannot be used.
    """
    if port.has_layouts:
        return port
    new = layout_of_new_model(port)
    return port.with_layouts({NEW: new, LEGACY: new.mapped(port.mapping.inverse())})


def layout_of_new_model(port: Port) -> Layout:
    """Build the model of the new side, in a process of its own, and return its layout.

    Raises:
        ConversionError: If it cannot be built.
    """
    return Layout.from_entries(port.variant.title or port.variant.name, _described(port).layout)


def optimizer_of_new_model(port: Port) -> dict[str, Any] | None:
    """Return the groups of the optimizer that the config of the new side makes; None if it makes none.

    Raises:
        ConversionError: If it cannot be built.
    """
    return _described(port).optimizer


@cache
def _described(port: Port) -> Description:
    trains = port.family.resumption is not None
    with tempfile.TemporaryDirectory(prefix="ddq-convert-") as made:
        adapter = port.family.new.adapter
        try:
            where = (Path(made), sys.executable, _TIME_LIMIT, False)
            return describe_side(NEW, adapter, port.variant.new, *where, trains=trains)
        except (RefusedError, SideError) as error:
            raise ConversionError(f"The layout of {port} is taken from its model, which cannot be built: {error}") from error


def candidates(family: str | None, variant: str | None) -> tuple[Port, ...] | None:
    """Return the models that a checkpoint may be of; None for all that are known by their keys.

    Args:
        family: By name or folder; None for every one.
        variant: Of the family; None for every one.

    Raises:
        FamilyError: If there is no such family or variant.
    """
    if family is None:
        return None
    return ports.ports(registry.get(family)) if variant is None else (ports.port(family, variant),)


def asked(options: Options) -> tuple[Port, ...] | None:
    """Return the models that the options allow; None for all that are known by their keys.

    Raises:
        FamilyError: If there is no such family or variant, or options contradict each other.
    """
    if options.rules is None and options.like is not None:
        raise FamilyError("--like says what rules of a file lead to; pass --rules, too.")
    if options.rules is not None and (options.family is not None or options.variant is not None):
        raise FamilyError("--rules stands in place of a family; pass either --rules or --family.")
    return candidates(options.family, options.variant)


def detected(
    state_dict: Mapping[str, AnyTensor], among: tuple[Port, ...] | None, variant: str | None
) -> detect.Detection:
    """Find the model among candidates, and the side, that a state dict is of.

    Raises:
        ConversionError: If the model of the new side is needed and cannot be built.
        DetectionError: If none fits.
    """
    if among is None:
        return detect.detect(state_dict, variant=variant)
    return detect.detect_among(state_dict, tuple(map(with_new_layout, among)), variant)

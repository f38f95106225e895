"""Rules of a file without a family: a model whose layouts are taken from the checkpoints themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from converters.errors import FamilyError, MappingError
from converters.rules import rule_file
from converters.rules.layout import Layout, TensorSpec
from converters.rules.mapping import Mapping as KeyMapping
from converters.rules.ports import Port
from legacy_adapters.family import Family, Side, Variant
from legacy_adapters.ground.names import LEGACY, NEW

_VARIANT = "rules"
_NOWHERE = Path("no_adapter.py")  # nothing of such a model is run


def port(rules: str, source: Mapping[str, TensorSpec], side: str, target: Mapping[str, TensorSpec] | None) -> Port:
    """Return the model that a file of rules is for.

    Args:
        rules: The file.
        source: The tensors of the checkpoint to convert.
        side: Which side that is, `legacy` or `new`; rules go from legacy to new.
        target: The tensors that the other side has to have; None for what the rules make.

    Raises:
        FamilyError: If the rules cannot be used.
        ConversionError: If the tensors do not fit them.
    """
    path = Path(rules)
    try:
        table = rule_file.load(path)
        KeyMapping(path.name, table)
    except (MappingError, OSError) as error:
        raise FamilyError(f"The rules cannot be used: {error}") from error
    sides = (Side("what the rules begin with", _NOWHERE), Side("what the rules lead to", _NOWHERE))
    family = Family(path.name, (Variant(_VARIANT),), *sides, rules=table)
    bare = Port(family, family.variant(None))
    to_target = bare.mapping if side == LEGACY else bare.mapping.inverse()
    known = {key: spec for key, spec in source.items() if to_target.match(key) is not None}
    held = Layout(_VARIANT, known)
    other = held.mapped(to_target) if target is None else Layout(_VARIANT, dict(target))
    return bare.with_layouts({side: held, NEW if side == LEGACY else LEGACY: other})

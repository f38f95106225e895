"""The models of the built-in families, for tests that want one by name."""

from __future__ import annotations

from pathlib import Path

import torch

from converters.rules.layout import Layout
from converters.rules.mapping import Mapping
from converters.rules.ports import port, ports
from legacy_adapters import registry
from legacy_adapters.family import Exclusion
from legacy_adapters.tasks.describing import entries

NEW_ADAPTER = registry.get("ddq_detr").new.adapter
LAYOUTS = registry.get("ddq_detr").layouts
GOLDENS = registry.get("ddq_detr").folder / "goldens"
GOLDEN = GOLDENS / "tiny_4scale.npz"


def families() -> tuple[str, ...]:
    """Name the families that come with the package."""
    return registry.own()


def variants(family: str) -> tuple[str, ...]:
    """Name the variants of a family."""
    return tuple(model.variant.name for model in ports(registry.get(family)))


def mapping(family: str, variant: str) -> Mapping:
    """Return the mapping of a variant."""
    return port(family, variant).mapping


def layout_of(variant: str, family: str = "ddq_detr", side: str = "new") -> Layout:
    """Return the layout of a side of a variant."""
    return port(family, variant).layout(side)


def described(model: torch.nn.Module, variant: str) -> Layout:
    """Return the layout of a model, as it is taken from one on the spot."""
    return Layout.from_entries(variant, entries(model))


def exclusions(family: str) -> tuple[Exclusion, ...]:
    """Return the exclusions of a family."""
    return registry.get(family).exclusions


def weights_of(variant: str, seed: int, family: str = "ddq_detr", side: str = "new") -> dict:
    """Return seeded weights of a side of a variant."""
    from parity.sides.prepare import seeded_weights

    model = port(family, variant)
    return seeded_weights(model.layout(side), seed, model.family.seeding)


def golden(name: str) -> Path:
    """Return a golden file of the package, by the variant it was recorded of."""
    return GOLDENS / f"{name}.npz"

"""A model of a family and what carries its weights: rules, and the layouts of both sides."""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from converters.errors import MappingError
from converters.rules import rule_file
from converters.rules.layout import Layout
from converters.rules.mapping import Mapping, Rule
from legacy_adapters import registry
from legacy_adapters.correspondence import Exclusion
from legacy_adapters.family import Family, FamilyError, Seeding, Variant
from legacy_adapters.ground.names import NEW


@dataclass(frozen=True)
class Port:
    """One model of a family.

    Attributes:
        family: that it is of.
        variant: of the family.
        layouts: of both sides, where they were taken from the models; None for the stored ones.
        from_both_models: each side's layout was taken from its own model.
        told_classes: how many classes that model tells apart, as far as it says so.
    """

    family: Family
    variant: Variant
    layouts: AnyMapping[str, Layout] | None = field(default=None, compare=False, repr=False)
    from_both_models: bool = field(default=False, compare=False, repr=False)
    told_classes: int | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.family.name} {self.variant.title or self.variant.name}"

    @cached_property
    def mapping(self) -> Mapping:
        """The mapping from the legacy layout to the new one.

        Raises:
            FamilyError: if the rules cannot be used.
        """
        try:
            rules = _rules(self.family, self.variant)
            more = {name: _listed(self.family, name, self.variant) for name in ("aliases", "forms", "former", "paddings", "hints")}
            return Mapping(self.family.name, rules, self.family.class_keys, **more)
        except (MappingError, OSError) as error:
            raise FamilyError(f"The rules of family `{self.family.name}` cannot be used: {error}") from error

    @property
    def exclusions(self) -> tuple[Exclusion, ...]:
        """Records that one side has and the other has no use for.

        Raises:
            FamilyError: if they cannot be used.
        """
        try:
            return _listed(self.family, "exclusions", self.variant)
        except MappingError as error:
            raise FamilyError(f"The exclusions of family `{self.family.name}` cannot be used: {error}") from error

    @property
    def classes(self) -> int | None:
        """How many classes the model tells apart; None if only its tensors say so."""
        return self.told_classes if self.variant.classes is None else self.variant.classes

    @property
    def seeding(self) -> Seeding:
        """What seeded weights of the model need."""
        return self.variant.seeding or self.family.seeding

    @property
    def has_layouts(self) -> bool:
        """Whether the layouts are known without building the models."""
        return self.layouts is not None or _file(self) is not None

    @property
    def has_tested_order(self) -> bool:
        """Whether the legacy layout is known to be in the order in which the legacy model makes its parameters."""
        return self.from_both_models or (self.family.name in registry.own() and _file(self) is not None)

    def layout(self, side: str) -> Layout:
        """Return the layout of a side. Of stored ones the legacy layout follows from the new one by the inverse mapping.

        Raises:
            FamilyError: if the family has no stored layouts, and none were taken from the models.
        """
        if self.layouts is not None:
            return self.layouts[side]
        return _stored(self, side)

    def with_layouts(
        self, layouts: AnyMapping[str, Layout], from_both_models: bool = False, classes: int | None = None
    ) -> Port:
        """Return the same model with layouts, and classes, taken from the models, or from that of the new side alone."""
        return replace(self, layouts=layouts, from_both_models=from_both_models, told_classes=classes)


@cache
def port(family: str, variant: str | None = None) -> Port:
    """Return a model by the family's name or folder and the variant's name; the family's first without one.

    Raises:
        FamilyError: if there is no such family or variant.
    """
    found = registry.get(family)
    return Port(found, found.variant(variant))


def ports(family: Family) -> tuple[Port, ...]:
    """Return all models of a family."""
    return tuple(port(family.reference, variant.name) for variant in family.variants)


def detectable() -> tuple[Family, ...]:
    """Return the families whose checkpoints are told by their keys, in the order in which detection prefers them."""
    return tuple(family for family in registry.every() if family.layouts is not None and family.markers)


def same_layout(family: Family) -> tuple[Family, ...]:
    """Return the other families whose checkpoints cannot be told apart from this one's."""
    return tuple(
        other
        for other in detectable()
        if other.name != family.name and (other.layouts, other.rules) == (family.layouts, family.rules)
    )


def _rules(family: Family, variant: Variant) -> tuple[Rule, ...]:
    rules = registry.called(family, "rules", variant) if callable(family.rules) else family.rules
    if isinstance(rules, (str, Path)):
        return rule_file.load((family.folder or Path()) / rules)
    if not isinstance(rules, Sequence):
        raise MappingError(f"expected a tuple of rules, found a {type(rules).__name__}.")
    wrong = [rule for rule in rules if not isinstance(rule, Rule)]
    if wrong:
        raise MappingError(f"expected rules of converters.rules.mapping, found {wrong[0]!r}.")
    return tuple(rules)


def _file(of: Port) -> Path | None:
    """Return the file of a model's stored layout, None if there is none."""
    name = of.variant.name
    if of.family.layouts is None or Path(name).name != name:
        return None
    file = of.family.layouts / f"{name}.json"
    return file if file.is_file() else None


def _listed(family: Family, name: str, variant: Variant) -> tuple[Any, ...]:
    """Return the aliases, forms, exclusions or former names of a variant."""
    listed = getattr(family, name)
    listed = registry.called(family, name, variant) if callable(listed) else listed
    if not isinstance(listed, Sequence):
        raise MappingError(f"expected a tuple of {name}, found a {type(listed).__name__}.")
    return tuple(listed)


@cache
def _stored(of: Port, side: str) -> Layout:
    if side != NEW:
        return _stored(of, NEW).mapped(of.mapping.inverse())
    file = _file(of)
    if file is None:
        raise FamilyError(f"Family `{of.family.name}` has no stored layout of variant `{of.variant.name}`.")
    return Layout.from_json(of.variant.name, file.read_text(encoding="utf-8"))

"""Rules that pair the keys of two layouts, as data, and the table that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import ClassVar

from converters.errors import MappingError, UnmappedKeyError
from converters.rules.pattern import Cut, Pattern, fill_segments, intersect

_HEAD = 3  # segments that rules are looked up by; enough to tell the branches of one list from those of another


@dataclass(frozen=True)
class Rename:
    """Give every key that matches `source` the name that `target` makes of it."""

    source: str
    target: str
    action: ClassVar[str] = "rename"

    def inverse(self) -> Rename:
        return Rename(self.target, self.source)


@dataclass(frozen=True)
class Keep:
    """Keep the name of every key that matches `pattern`."""

    pattern: str
    action: ClassVar[str] = "keep"

    @property
    def source(self) -> str:
        return self.pattern

    @property
    def target(self) -> str:
        return self.pattern

    def inverse(self) -> Keep:
        return self


@dataclass(frozen=True)
class Drop:
    """Leave out every key that matches `pattern`, for a written reason."""

    pattern: str
    reason: str
    action: ClassVar[str] = "drop"
    target: ClassVar[None] = None

    @property
    def source(self) -> str:
        return self.pattern

    def inverse(self) -> None:
        """Return None: what was dropped cannot be made again."""


@dataclass(frozen=True)
class DropDuplicateOf:
    """Leave out every key that repeats its `twin`, another key of the same source, bit by bit."""

    pattern: str
    twin: str
    reason: str
    action: ClassVar[str] = "drop_duplicate"
    target: ClassVar[None] = None

    @property
    def source(self) -> str:
        return self.pattern

    def inverse(self) -> None:
        """Return None: a duplicate is not made again, for its twin carries the weights."""


Rule = Rename | Keep | Drop | DropDuplicateOf


@dataclass(frozen=True)
class Match:
    """The one rule that takes a key, and what becomes of the key.

    Attributes:
        rule: Index of the rule in its mapping.
        action: `rename`, `keep`, `drop` or `drop_duplicate`.
        target: The key on the other side; None where the key is dropped.
        twin: The source key that a duplicate repeats; None for every other action.
    """

    rule: int
    action: str
    target: str | None
    twin: str | None = None


@dataclass(frozen=True)
class Mapping:
    """A validated table of rules from the legacy layout of a family to the new one.

    Attributes:
        family: The family's name, for messages.
        rules: The rules; no two of them may match, or produce, the same key.
        class_keys: Patterns, good for both sides, of the tensors whose first dimension is the number of classes.

    Raises:
        MappingError: If a pattern is malformed, wildcards differ, rules repeat or overlap, or a duplicate is dropped
            together with its twin.
    """

    family: str
    rules: tuple[Rule, ...]
    class_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for index, rule in enumerate(self.rules):
            _check_rule(index, rule)
        _check_overlaps("source", [(index, rule.source) for index, rule in enumerate(self.rules)])
        _check_overlaps(
            "target", [(index, rule.target) for index, rule in enumerate(self.rules) if rule.target is not None]
        )
        _check_twins(self.rules)

    @cached_property
    def _sources(self) -> tuple[Pattern, ...]:
        return tuple(Pattern(rule.source) for rule in self.rules)

    @cached_property
    def _targets(self) -> tuple[Pattern | None, ...]:
        return tuple(None if rule.target is None else Pattern(rule.target) for rule in self.rules)

    @cached_property
    def _by_head(self) -> dict[tuple[str, ...], list[int]]:
        """The rules by the literal segments that their patterns begin with, up to `_HEAD` of them."""
        found: dict[tuple[str, ...], list[int]] = {}
        for index, pattern in enumerate(self._sources):
            found.setdefault(pattern.head[:_HEAD], []).append(index)
        return found

    def match(self, key: str) -> Match | None:
        """Find the rule that takes `key`; None where no rule does."""
        segments = tuple(key.split(".", _HEAD)[:_HEAD])
        heads = (segments[:length] for length in range(len(segments) + 1))
        for index in (index for head in heads for index in self._by_head.get(head, ())):
            bindings = self._sources[index].match(key)
            if bindings is not None:
                rule = self.rules[index]
                target = self._targets[index]
                target = None if target is None else target.fill(bindings)
                twin = Pattern(rule.twin).fill(bindings) if isinstance(rule, DropDuplicateOf) else None
                return Match(index, rule.action, target, twin)
        return None

    def target_of(self, key: str) -> str | None:
        """Name `key` as the other side does; use it for state-dict keys, parameters and gradients alike.

        Returns:
            The other side's key, or None where a rule drops the key.

        Raises:
            UnmappedKeyError: If no rule matches `key`.
        """
        match = self.match(key)
        if match is None:
            raise UnmappedKeyError(
                f"Key `{key}` of the source is matched by no rule of mapping `{self.family}`; add a rule."
            )
        return match.target

    def inverse(self) -> Mapping:
        """Return the mapping from the new layout to the legacy one; dropped keys stay away."""
        turned = tuple(rule.inverse() for rule in self.rules)
        return Mapping(self.family, tuple(rule for rule in turned if rule is not None), self.class_keys)

    def canonical(self) -> Mapping:
        """Return the mapping from the source's layout to itself: it drops what this one drops and renames nothing."""
        rules = (rule if rule.target is None else Keep(rule.source) for rule in self.rules)
        return Mapping(self.family, tuple(rules), self.class_keys)

    def map_module(self, path: str) -> str | None:
        """Name a module as the other side does, by the same rules that rename its keys.

        A module with no keys of its own (an activation, a loss) follows the module that holds it.

        Returns:
            The other side's module path, or None where the module's keys are all dropped or go to several
            modules (as a ModuleList does when one of its branches moves to another list).
        """
        if path not in self._modules:
            self._modules[path] = self._map_module(path)
        return self._modules[path]

    @cached_property
    def _modules(self) -> dict[str, str | None]:
        """What `map_module` found, by path; many records have the same."""
        return {"": ""}

    def _map_module(self, path: str) -> str | None:
        places = [
            place
            for index, pattern in enumerate(self._sources)
            for cut in pattern.cuts(path)
            for place in self._places(index, cut)
        ]
        if not places and self._touches(path):
            return self._twin_module(path)
        if not places:
            parent, _, name = path.rpartition(".")
            above = self.map_module(parent)
            return None if above is None else f"{above}.{name}".lstrip(".")
        exact = {place.path for place in places if place.exact}
        candidate = min(exact, key=len) if exact else path
        return candidate if all(place.inside(candidate) for place in places) else None

    def _places(self, index: int, cut: Cut) -> Iterator[_Place]:
        """Yield where rule `index` puts the keys of a module that stands at `cut`."""
        target = self.rules[index].target
        if target is None:
            return
        segments = tuple(target.split("."))
        head, rest = segments[: len(segments) - len(cut.rest)], segments[len(segments) - len(cut.rest) :]
        if len(cut.rest) > len(segments) or rest != cut.rest:
            bindings = (*cut.bindings[:-1], f"{cut.bindings[-1]}.**") if cut.goes_on else cut.bindings
            yield _Place(".".join(fill_segments(segments, bindings)), exact=False)
            return
        if cut.goes_on:
            head = segments[: len(head) + 1]
        yield _Place(".".join(fill_segments(head, cut.bindings)), exact=True)

    def _touches(self, path: str) -> bool:
        """Tell whether some rule takes keys below the module `path`."""
        return any(True for pattern in self._sources for _ in pattern.cuts(path))

    def _twin_module(self, path: str) -> str | None:
        """Name the module whose keys the dropped module `path` repeats, on the other side."""
        for index, rule in enumerate(self.rules):
            if not isinstance(rule, DropDuplicateOf):
                continue
            twins = tuple(rule.twin.split("."))
            for cut in self._sources[index].cuts(path):
                kept = len(twins) - len(cut.rest) + cut.goes_on
                if twins[len(twins) - len(cut.rest) :] == cut.rest and kept > 0:
                    return self.map_module(".".join(fill_segments(twins[:kept], cut.bindings)))
        return None


@dataclass(frozen=True)
class _Place:
    """Where one rule puts the keys of a module: right below `path`, or, where not exact, at the pattern `path`."""

    path: str
    exact: bool

    def inside(self, module: str) -> bool:
        return self.path.startswith(f"{module}.") or (self.exact and self.path == module)


def _check_rule(index: int, rule: Rule) -> None:
    others = {"target": rule.target, "twin": getattr(rule, "twin", None)}
    for text in (rule.source, *others.values()):
        problem = None if text is None else Pattern(text).problem
        if problem is not None:
            raise MappingError(f"Pattern `{text}` in rule {index} {problem}.")
    if isinstance(rule, (Drop, DropDuplicateOf)) and not rule.reason.strip():
        raise MappingError(f"Rule {index} drops `{rule.source}` without a reason; write one.")
    source = Pattern(rule.source).wildcards
    for name, text in others.items():
        other = source if text is None else Pattern(text).wildcards
        if len(other) != len(source):
            raise MappingError(
                f"Wildcard count mismatch in rule {index}: source has {len(source)}, {name} has {len(other)}."
            )
        if other != source:
            raise MappingError(
                f"Wildcard kind mismatch in rule {index}: source has {' '.join(source)}, {name} has {' '.join(other)}."
            )


def _check_overlaps(side: str, patterns: list[tuple[int, str]]) -> None:
    # one object per pattern, which then takes its text apart once
    for (i, first), (j, second) in combinations([(index, Pattern(text)) for index, text in patterns], 2):
        if first.text == second.text:
            raise MappingError(f"Duplicate rule {j}: its {side} `{second.text}` already stands in rule {i}.")
        if intersect(first, second):
            raise MappingError(
                f"Rules {i} and {j} overlap: their {side}s `{first.text}` and `{second.text}` have keys in common."
            )


def _check_twins(rules: tuple[Rule, ...]) -> None:
    """Refuse a duplicate whose twin is dropped, too: of the two, one has to stay."""
    drops = [(index, rule) for index, rule in enumerate(rules) if rule.target is None]
    for i, copy in drops:
        for j, rule in drops:
            if isinstance(copy, DropDuplicateOf) and intersect(Pattern(copy.twin), Pattern(rule.source)):
                raise MappingError(
                    f"Rule {i} drops `{copy.source}` as a duplicate of `{copy.twin}`, which rule {j} drops; "
                    "name the key that is kept."
                )

"""Rules that pair the keys of two layouts, as data, and the table that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations

from converters.errors import MappingError, NotOneToOneError, UnmappedKeyError
from converters.rules.aliases import Aliases, checked_forms, checked_hints, checked_paddings
from converters.rules.kinds import (
    Concat,
    Drop,
    DropDuplicateOf,
    Keep,
    Pad,
    Permute,
    Rename,
    Reshape,
    Rule,
    Slice,
    Split,
    fault_of,
)
from converters.rules.pattern import Cut, Pattern, fill_segments, intersect
from legacy_adapters.correspondence import MODULE, Alias, Form, Hint, Padding

__all__ = [
    "Application", "Concat", "Drop", "DropDuplicateOf", "Keep", "Mapping", "Match", "Pad", "Permute", "Rename",
    "Reshape", "Rule", "Slice", "Split",
]  # fmt: skip

_HEAD = 3  # segments that rules are looked up by; enough to tell the branches of one list from those of another


@dataclass(frozen=True)
class Match:
    """The one rule that takes a key, and what becomes of the key.

    Attributes:
        rule: Index of the rule in its mapping.
        action: What the rule does, such as `rename` or `split`.
        targets: The keys on the other side that it becomes, or a part of which; none where it is dropped.
        twin: The source key that a duplicate repeats; None for every other action.
        sources: All keys that the rule takes together with this one, in its order; the key alone unless it joins them.
    """

    rule: int
    action: str
    targets: tuple[str, ...]
    twin: str | None = None
    sources: tuple[str, ...] = ()

    @property
    def target(self) -> str | None:
        """The one key on the other side; None where there is none, or are several."""
        return self.targets[0] if len(self.targets) == 1 else None


@dataclass(frozen=True)
class Application:
    """A rule that is applied to the keys it takes together: to one key, or to all that it joins.

    Attributes:
        index: Of the rule in its mapping.
        rule: The rule.
        sources: The keys it takes, in its order.
        targets: The keys it produces, in its order; none if it drops the source.
        missing: Those of `sources` that are not there.
        twin: The source key that a duplicate repeats; None for every other action.
    """

    index: int
    rule: Rule
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    missing: tuple[str, ...] = ()
    twin: str | None = None


@dataclass(frozen=True)
class Mapping:
    """A validated table of rules from the legacy layout of a family to the new one.

    Attributes:
        family: The family's name, for messages.
        rules: The rules; no two of them may match, or produce, the same key.
        class_keys: Patterns, good for both sides, of the tensors whose first dimension is the number of classes.
        aliases: Names of what has no key, from the legacy side to the new one.
        forms: Of what the legacy side records in another form.
        paddings: Places of a batch that hold no image.
        hints: What is known of differences and errors that come from the two code bases themselves.
        former: From names that the legacy code base has given up to those that it has now.
        containers: Paths of modules of both sides that are one, though the rules do not tell; an alias goes before them.

    Raises:
        MappingError: If a pattern is malformed, wildcards differ, rules, former names or aliases repeat or overlap, the
            numbers of a rule or form contradict each other, or a duplicate is dropped together with its twin.
    """

    family: str
    rules: tuple[Rule, ...]
    class_keys: tuple[str, ...] = ()
    aliases: tuple[Alias, ...] = ()
    forms: tuple[Form, ...] = ()
    former: tuple[Rename, ...] = ()
    paddings: tuple[Padding, ...] = ()
    hints: tuple[Hint, ...] = ()
    containers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for index, rule in enumerate(self.rules):
            fault = fault_of(rule, index)
            if fault is not None:
                raise MappingError(fault)
        known = (*self.rules, *self.former)
        _check_overlaps("source", [(index, text) for index, rule in enumerate(known) for text in rule.sources])
        _check_overlaps("target", [(index, text) for index, rule in enumerate(self.rules) for text in rule.targets])
        _check_twins(self.rules)
        _ = self.other_names
        checked_forms(self.forms)
        checked_paddings(self.paddings)
        checked_hints(self.hints)

    @cached_property
    def other_names(self) -> Aliases:
        """The aliases, by which names are looked up."""
        return Aliases(self.aliases)

    @cached_property
    def changes_tensors(self) -> bool:
        """Tell whether some rule does more than to name, keep or drop tensors."""
        return any(rule.changes_tensors for rule in self.rules)

    @cached_property
    def _sources(self) -> tuple[tuple[int, Pattern], ...]:
        """The patterns of source keys, each with the index of its rule."""
        return tuple((index, Pattern(text)) for index, rule in enumerate(self.rules) for text in rule.sources)

    @cached_property
    def _patterns(self) -> tuple[tuple[tuple[Pattern, ...], tuple[Pattern, ...]], ...]:
        """The patterns of sources and targets of every rule."""
        return tuple((tuple(map(Pattern, rule.sources)), tuple(map(Pattern, rule.targets))) for rule in self.rules)

    @cached_property
    def _by_head(self) -> dict[tuple[str, ...], list[tuple[int, Pattern]]]:
        """The rules by the literal segments that their patterns begin with, up to `_HEAD` of them."""
        found: dict[tuple[str, ...], list[tuple[int, Pattern]]] = {}
        for index, pattern in self._sources:
            found.setdefault(pattern.head[:_HEAD], []).append((index, pattern))
        return found

    def match(self, key: str) -> Match | None:
        """Find the rule that takes `key`, or what that is called now; None where no rule does."""
        if key not in self._matches:
            self._matches[key] = self._matched(key)
        return self._matches[key]

    @cached_property
    def _matches(self) -> dict[str, Match | None]:
        """What was asked for before: a conversion asks for every key several times."""
        return {}

    def _matched(self, key: str) -> Match | None:
        current = self.current(key)
        segments = tuple(current.split(".", _HEAD)[:_HEAD])
        heads = (segments[:length] for length in range(len(segments) + 1))
        for index, pattern in (entry for head in heads for entry in self._by_head.get(head, ())):
            bindings = pattern.match(current)
            if bindings is not None:
                rule = self.rules[index]
                action = Rename.action if current != key and isinstance(rule, Keep) else rule.action
                sources, targets = self._patterns[index]
                twin = Pattern(rule.twin).fill(bindings) if isinstance(rule, DropDuplicateOf) else None
                together = (key,) if len(sources) == 1 else tuple(pattern.fill(bindings) for pattern in sources)
                return Match(index, action, tuple(target.fill(bindings) for target in targets), twin, together)
        return None

    def current(self, key: str) -> str:
        """Name a key of the source as the code base does now; most have had no other name."""
        match = self._former.match(key) if self.former else None
        return key if match is None else match.targets[0]

    @cached_property
    def _former(self) -> Mapping:
        return Mapping(self.family, self.former)

    def applications(self, keys: Iterable[str]) -> Iterator[Application]:
        """Yield every rule that takes some of `keys`, once for those it takes together, in the order of the first.

        Keys that no rule matches are passed over.
        """
        keys = dict.fromkeys(keys)
        joined: set[tuple[int, tuple[str, ...]]] = set()
        for key in keys:
            match = self.match(key)
            if match is None or (match.rule, match.sources) in joined:
                continue
            if len(match.sources) > 1:
                joined.add((match.rule, match.sources))
            missing = tuple(source for source in match.sources if source not in keys)
            rule = self.rules[match.rule]
            yield Application(match.rule, rule, match.sources, match.targets, missing, match.twin)

    def target_of(self, key: str) -> str | None:
        """Name `key` as the other side does; use it for state-dict keys, parameters and gradients alike.

        Returns:
            The other side's key, or None where a rule drops the key.

        Raises:
            UnmappedKeyError: If no rule matches `key`.
            NotOneToOneError: If it becomes several keys, or one together with others; see `targets_of`.
        """
        match = self._match(key)
        if len(match.targets) > 1 or len(match.sources) > 1:
            raise NotOneToOneError(
                f"Key `{key}` is not one key on the other side: rule {match.rule} of mapping `{self.family}` is "
                f"`{self.rules[match.rule].text}`."
            )
        return match.target

    def targets_of(self, key: str) -> tuple[str, ...]:
        """Name the keys on the other side that `key` becomes, or becomes a part of; none where a rule drops it.

        Raises:
            UnmappedKeyError: If no rule matches `key`.
        """
        return self._match(key).targets

    def _match(self, key: str) -> Match:
        match = self.match(key)
        if match is None:
            raise UnmappedKeyError(
                f"Key `{key}` of the source is matched by no rule of mapping `{self.family}`; add a rule."
            )
        return match

    def inverse(self) -> Mapping:
        """Return the mapping from the new layout to the legacy one; dropped keys stay away.

        It has every shape, but not every value: what `Slice` leaves out, its inverse does not know, and a conversion
        by that is refused.
        """
        turned = tuple(rule.inverse() for rule in self.rules)
        return Mapping(self.family, tuple(rule for rule in turned if rule is not None), self.class_keys)

    def canonical(self) -> Mapping:
        """Return the mapping from the source's layout to itself: it drops what this one drops.

        It renames former names only.
        """
        rules = ([rule] if not rule.targets else map(Keep, rule.sources) for rule in self.rules)
        return Mapping(self.family, tuple(chain.from_iterable(rules)), self.class_keys, former=self.former)

    def map_module(self, path: str) -> str | None:
        """Name a module as the other side does, by the same rules that rename its keys.

        A module with no keys of its own (an activation, a loss) follows the module that holds it, unless an alias names
        it.

        Returns:
            The other side's module path, or None where the module's keys are all dropped or go to several
            modules (as a ModuleList does when one of its branches moves to another list).
        """
        if path not in self._modules:
            self._modules[path] = self._map_module(path)
        return self._modules[path]

    def drops_module(self, path: str) -> bool:
        """Tell whether rules drop all keys of the module `path`; not so of one that has no keys."""
        if path not in self._dropped:
            taking = (self.rules[index] for index, pattern in self._sources if any(True for _ in pattern.cuts(path)))
            targets = [rule.targets for rule in taking]
            self._dropped[path] = bool(path and targets) and not any(targets)
        return self._dropped[path]

    @cached_property
    def _dropped(self) -> dict[str, bool]:
        """What `drops_module` found, by path."""
        return {}

    @cached_property
    def _modules(self) -> dict[str, str | None]:
        """What `map_module` found, by path; many records have the same."""
        return {"": ""}

    def _map_module(self, path: str) -> str | None:
        alias = self.other_names.new_name(MODULE, path)
        if alias is not None:
            return alias
        for legacy, new in self.containers:
            if legacy == path:
                return new
        places = [
            place
            for index, pattern in self._sources
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
        rule = self.rules[index]
        one_to_one = len(rule.sources) == len(rule.targets) == 1
        for target in rule.targets:
            segments = tuple(target.split("."))
            head, rest = segments[: len(segments) - len(cut.rest)], segments[len(segments) - len(cut.rest) :]
            if not one_to_one or len(cut.rest) > len(segments) or rest != cut.rest:
                bindings = (*cut.bindings[:-1], f"{cut.bindings[-1]}.**") if cut.goes_on else cut.bindings
                yield _Place(".".join(fill_segments(segments, bindings)), exact=False)
                continue
            if cut.goes_on:
                head = segments[: len(head) + 1]
            yield _Place(".".join(fill_segments(head, cut.bindings)), exact=True)

    def _touches(self, path: str) -> bool:
        """Tell whether some rule takes keys below the module `path`."""
        return any(True for _, pattern in self._sources for _ in pattern.cuts(path))

    def _twin_module(self, path: str) -> str | None:
        """Name the module whose keys the dropped module `path` repeats, on the other side."""
        for index, rule in enumerate(self.rules):
            if not isinstance(rule, DropDuplicateOf):
                continue
            twins = tuple(rule.twin.split("."))
            for cut in Pattern(rule.source).cuts(path):
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


def _check_overlaps(side: str, patterns: list[tuple[int, str]]) -> None:
    # one object per pattern, which then takes its text apart once
    for (i, first), (j, second) in combinations([(index, Pattern(text)) for index, text in patterns], 2):
        if i == j and intersect(first, second):
            raise MappingError(
                f"Rule {i} has two {side}s with keys in common: `{first.text}` and `{second.text}`."
            )
        if first.text == second.text:
            raise MappingError(f"Duplicate rule {j}: its {side} `{second.text}` already stands in rule {i}.")
        if intersect(first, second):
            raise MappingError(
                f"Rules {i} and {j} overlap: their {side}s `{first.text}` and `{second.text}` have keys in common."
            )


def _check_twins(rules: tuple[Rule, ...]) -> None:
    """Refuse a duplicate whose twin is dropped, too: of the two, one has to stay."""
    drops = [(index, rule) for index, rule in enumerate(rules) if not rule.targets]
    for i, copy in drops:
        for j, rule in drops:
            if isinstance(copy, DropDuplicateOf) and intersect(Pattern(copy.twin), Pattern(rule.source)):
                raise MappingError(
                    f"Rule {i} drops `{copy.source}` as a duplicate of `{copy.twin}`, which rule {j} drops; "
                    "name the key that is kept."
                )

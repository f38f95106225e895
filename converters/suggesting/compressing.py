"""Put links between single keys together into rules with wildcards that say the same and no more."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any

from converters.rules.kinds import DropDuplicateOf, Keep, Rename, Rule
from converters.rules.pattern import Pattern, intersect
from converters.suggesting.links import Link

_KEY_FIELDS = ("source", "target", "sources", "targets", "pattern", "twin")
_MOST_NUMBERS = 4  # of one key that may become wildcards


@dataclass(frozen=True)
class Proposal:
    """A rule and the links that it stands for.

    Attributes:
        rule: The rule, with wildcards.
        links: What it says of single keys, one or more.
    """

    rule: Rule
    links: tuple[Link, ...]

    @property
    def evidence(self) -> str:
        """Say in a phrase how the rule is known, the most frequent reasons first."""
        counts = Counter(link.known for link in self.links)
        texts = []
        for known, count in counts.most_common():
            reasons = Counter(link.reason for link in self.links if link.known == known)
            (first, _), *others = reasons.most_common()
            more = " or the like" if others else ""
            number = "" if len(counts) == 1 else f"{count} "
            texts.append(f"{number}by {known}: {first}{more}")
        return "; ".join(texts)

    @property
    def is_certain(self) -> bool:
        """Tell whether more than names says so, of each of its keys."""
        return all(link.is_certain for link in self.links)


def compress(links: Collection[Link], keys: Collection[str]) -> tuple[Proposal, ...]:
    """Return rules that say what the links say, of every key of the source, and nothing of the other keys.

    Args:
        links: Of single keys, each in at most one of them.
        keys: All keys of the source.
    """
    of_key = {key: link for link in links for key in link.rule.sources}
    candidates: dict[Rule, None] = {}
    for link in links:
        for rule in _generalised(link.rule):
            candidates.setdefault(rule)
    of_target = {key: link for link in links for key in link.rule.targets}
    index, targets = _Index(keys), _Index(of_target)
    covered = {
        rule: found
        for rule in candidates
        if (found := _covered(rule, of_key, index)) is not None
        and _produced(rule, of_target, targets) <= set(map(id, found))
    }
    order = sorted(covered, key=lambda rule: (-len(covered[rule]), _wildness(rule), str(rule)))
    chosen: list[Proposal] = []
    taken: set[int] = set()
    for rule in order:
        found = covered[rule]
        if taken.isdisjoint(map(id, found)) and not any(_overlap(rule, other.rule) for other in chosen):
            chosen.append(Proposal(rule, tuple(found)))
            taken |= set(map(id, found))
    left = [Proposal(link.rule, (link,)) for link in links if id(link) not in taken]
    return tuple(sorted((*chosen, *left), key=lambda proposal: index.place(proposal.links[0].rule.sources[0])))


class _Index:
    """Keys by their first part, so that patterns are not tried on all of them."""

    def __init__(self, keys: Collection[str]) -> None:
        self._order = {key: number for number, key in enumerate(keys)}
        self._by_head: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            self._by_head[key.partition(".")[0]].append(key)

    def place(self, key: str) -> int:
        return self._order[key]

    def matching(self, text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the keys that match a pattern, each with what its wildcards stand for."""
        pattern = Pattern(text)
        head = pattern.segments[0]
        for key in self._order if "*" in head else self._by_head.get(head, ()):
            bindings = pattern.match(key)
            if bindings is not None:
                yield key, bindings


def _covered(rule: Rule, of_key: Mapping[str, Link], index: _Index) -> list[Link] | None:
    """Return the links that a rule stands for; None where it says something that no link says."""
    found: dict[int, Link] = {}
    for source in rule.sources:
        for key, bindings in index.matching(source):
            link = of_key.get(key)
            if link is None or filled(rule, bindings) != _plain(link.rule):
                return None
            found[id(link)] = link
    return list(found.values()) if len(found) > 1 else None


def _produced(rule: Rule, of_target: Mapping[str, Link], targets: _Index) -> set[int]:
    """Return the links that produce what the patterns of a rule's targets match."""
    return {id(of_target[key]) for text in rule.targets for key, _ in targets.matching(text)}


def filled(rule: Rule, bindings: tuple[str, ...]) -> Rule:
    """Return the rule between keys that a rule with wildcards says of what its wildcards stand for."""
    changed = {}
    for name, value in _key_fields(rule).items():
        texts = (value,) if isinstance(value, str) else value
        made = tuple(Pattern(text).fill(bindings) for text in texts)
        changed[name] = made[0] if isinstance(value, str) else made
    return _plain(replace(rule, **changed))


def _plain(rule: Rule) -> Rule:
    """Return `keep` as `rename`, for a pattern may stand for both."""
    return Rename(rule.pattern, rule.pattern) if isinstance(rule, Keep) else rule


def _key_fields(rule: Rule) -> dict[str, Any]:
    return {field.name: getattr(rule, field.name) for field in fields(rule) if field.name in _KEY_FIELDS}


def _generalised(rule: Rule) -> Iterator[Rule]:
    """Yield the rules with wildcards that a rule between keys may be a case of."""
    held = _key_fields(rule)
    keys = [text for value in held.values() for text in ((value,) if isinstance(value, str) else value)]
    split = [key.split(".") for key in keys]
    common = 0
    while common < min(map(len, split)) - 1 and len({segments[-1 - common] for segments in split}) == 1:
        common += 1
    is_same = len({*keys}) == 1
    for tail in range(common + 1):
        heads = [segments[: len(segments) - tail] for segments in split]
        stars = ("*", "**") if tail == 1 else ("**",) if tail > 1 else ("",)
        for star in stars:
            for made in _numbered(heads):
                texts = iter(".".join([*head, *([star] if star else [])]) for head in made)
                yield _with(rule, held, texts)
    if is_same and isinstance(rule, Keep):
        yield Keep("**")


def _with(rule: Rule, held: Mapping[str, Any], texts: Iterator[str]) -> Rule:
    changed = {
        name: next(texts) if isinstance(value, str) else tuple(next(texts) for _ in value)
        for name, value in held.items()
    }
    made = replace(rule, **changed)
    return Keep(made.source) if isinstance(made, Rename) and made.source == made.target else made


def _numbered(heads: list[list[str]]) -> Iterator[list[list[str]]]:
    """Yield the heads of keys with the numbers that all of them share, in one order, as wildcards: all, some, none."""
    first = [at for at, segment in enumerate(heads[0]) if segment.isdecimal()][:_MOST_NUMBERS]
    for count in range(len(first), -1, -1):
        for chosen in combinations(first, count):
            numbers = [heads[0][at] for at in chosen]
            places = [_placed(head, numbers) for head in heads[1:]]
            if all(places_of is not None for places_of in places):
                yield [
                    ["*" if at in set(where) else segment for at, segment in enumerate(head)]
                    for head, where in zip(heads, (chosen, *places))
                ]


def _placed(head: list[str], numbers: list[str]) -> list[int] | None:
    """Return where numbers stand in a key, one after the other, the last ones of several; None if nowhere."""
    where: list[int] = []
    end = len(head)
    for number in reversed(numbers):
        at = next((at for at in range(end - 1, -1, -1) if head[at] == number), None)
        if at is None:
            return None
        where.append(at)
        end = at
    return where[::-1]


def _wildness(rule: Rule) -> tuple[int, int]:
    texts = rule.sources[0].split(".")
    return texts.count("**"), texts.count("*")


def _overlap(one: Rule, other: Rule) -> bool:
    """Tell whether two rules may match, or produce, one key."""
    return any(
        intersect(Pattern(first), Pattern(second))
        for texts in ((one.sources, other.sources), (one.targets, other.targets))
        for first in texts[0]
        for second in texts[1]
    )


__all__ = ["DropDuplicateOf", "Proposal", "compress", "filled"]

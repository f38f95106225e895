"""Pair keys by what their names, sizes and places say, as far as that leaves one possibility."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from converters.suggesting import tokens as said
from converters.suggesting.tensors import Side, common_module
from converters.suggesting.tokens import Token

Pairs = dict[str, str]
Flows = tuple[Mapping[str, Iterable[str]], Mapping[str, Iterable[str]]]
FLOWING = "in both runs its module is given or gives the same"
_ROUNDS = 50


@dataclass
class Group:
    """Keys of both sides that may belong together, and what was used to tell them from others."""

    a: list[str]
    b: list[str]
    why: tuple[str, ...] = ()


@dataclass
class Pairing:
    """What is paired, and why, and the groups that are left.

    Attributes:
        pairs: Key of A to key of B.
        why: For every paired key of A the reason.
        groups: What is not told apart, with keys of both sides.
    """

    pairs: Pairs = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)


def pair(
    a: Side, b: Side, left_a: Sequence[str], left_b: Sequence[str], known: Mapping[str, Iterable[str]],
    tell: Callable[[Side, str], Hashable], is_same_network: bool, flows: Flows = ({}, {}),
) -> Pairing:  # fmt: skip
    """Pair keys.

    Args:
        a, b: The sides.
        left_a, left_b: The keys to pair.
        known: Keys of A to keys of B that are known to belong together.
        tell: What keys that belong together have in common in any case.
        is_same_network: Both sides have tensors of the same sizes, as many of each, so that what is alone is a pair.
        flows: For keys of A, and of B, what flows through their modules when both are run.
    """
    worker = _Worker(a, b, {key: tuple(targets) for key, targets in known.items()}, is_same_network, flows)
    groups: dict[Hashable, Group] = defaultdict(lambda: Group([], []))
    for key in left_a:
        groups[tell(a, key)].a.append(key)
    for key in left_b:
        groups[tell(b, key)].b.append(key)
    return worker.run([group for group in groups.values() if group.a and group.b])


class _Worker:
    def __init__(
        self, a: Side, b: Side, known: dict[str, tuple[str, ...]], is_same_network: bool, flows: Flows
    ) -> None:  # fmt: skip
        self.a, self.b, self.known, self.is_same_network = a, b, known, is_same_network
        self.done = Pairing()
        self.said_a = {key: said.tokens(a, key) | _flowing(flows[0], key) for key in a.tensors}
        self.said_b = {key: said.tokens(b, key) | _flowing(flows[1], key) for key in b.tensors}
        self.refused: set[tuple[str, str]] = set()
        self.trusts_names = True

    def run(self, groups: list[Group]) -> Pairing:
        for _ in range(_ROUNDS):
            before = len(self.done.pairs)
            places_a, places_b, together = self._places()
            self.trusts_names = self.trusts_names and not self._are_swapped(together)
            groups = [part for group in groups for part in self._refined(group, places_a, places_b)]
            groups = [group for group in groups if not self._settled(group)]
            groups = self._as_elsewhere(groups)
            groups += self._contradicting()
            if len(self.done.pairs) == before:
                break
        self.done.groups = [group for group in groups if group.a and group.b]
        return self.done

    def _refined(self, group: Group, places_a: _Places, places_b: _Places) -> list[Group]:
        """Take a group apart until nothing tells its keys from each other any more."""
        kinds: tuple[tuple[str, ...], ...] = (
            (said.WORD, said.NUMBER, said.STRUCTURE, said.PLACE, said.FLOW),
            (said.PLACE, said.STRUCTURE, said.FLOW),
            (said.FLOW,),
        )
        if not self.trusts_names:
            kinds = kinds[1:]
        for kind in kinds:
            told_a = {key: self._tokens(self.said_a[key], places_a.get(key, ()), kind) for key in group.a}
            told_b = {key: self._tokens(self.said_b[key], places_b.get(key, ()), kind) for key in group.b}
            tokens = said.usable(told_a.values(), told_b.values())
            parts = _split(group, {key: told & tokens for key, told in told_a.items()},
                           {key: told & tokens for key, told in told_b.items()}, _words)  # fmt: skip
            if len(parts) > 1:
                return [piece for part in parts for piece in self._refined(part, places_a, places_b)]
        numbered = self._numbered(group) if self.trusts_names else None
        return (
            [group] if numbered is None else [p for part in numbered for p in self._refined(part, places_a, places_b)]
        )

    @staticmethod
    def _tokens(own: frozenset[Token], places: Iterable[str], kinds: tuple[str, ...]) -> frozenset[Token]:
        found = own | {(said.PLACE, place) for place in places}
        return frozenset(token for token in found if token[0] in kinds)

    def _numbered(self, group: Group) -> list[Group] | None:
        """Take a group apart by numbers of blocks in lists, or in words, of other names, if both sides number alike."""
        if len(group.a) != len(group.b) or len(group.a) < 2:
            return None
        of_a = _varying({key: said.numbering(self.a, key) for key in group.a})
        of_b = _varying({key: said.numbering(self.b, key) for key in group.b})
        if of_a is not None and of_b is not None and sorted(of_a.values()) == sorted(of_b.values()):
            parts = _split(group, of_a, of_b, lambda numbers: f"the number {'.'.join(numbers)} of their blocks")
            if len(parts) > 1:
                return parts
        of_a, of_b = ({key: said.digits(key) for key in keys} for keys in (group.a, group.b))
        is_one_name = all(len({bare for bare, _ in side.values()}) == 1 for side in (of_a, of_b))
        one, other = (_varying({key: numbers for key, (_, numbers) in side.items()}) for side in (of_a, of_b))
        if not is_one_name or one is None or other is None or sorted(one.values()) != sorted(other.values()):
            return None
        return _split(group, one, other, lambda numbers: f"the number {'.'.join(numbers)} in their names")

    def _settled(self, group: Group) -> bool:
        """Pair the keys of a group that has one of each side, if there is reason to."""
        if len(group.a) != 1 or len(group.b) != 1 or (group.a[0], group.b[0]) in self.refused:
            return False
        one, other = group.a[0], group.b[0]
        shared = said.shared_words(one, other) if self.trusts_names else []
        why = [*(f"`{word}`" for word in shared if one != other), *dict.fromkeys(group.why)]
        is_placed = self.is_same_network or any(text.startswith(("beside", FLOWING)) for text in group.why)
        if one == other and self.trusts_names:
            why = ["the same name"]
        elif not is_placed and not (shared and said.is_within(one, other)):
            return False
        self.done.pairs[one] = other
        self.done.why[one] = ", ".join(why[:5]) or "the only tensor of its sizes on either side"
        return True

    def _are_swapped(self, together: Mapping[str, str]) -> bool:
        """Tell whether a module of B has the name, or the number, of another one beside its own counterpart in A."""
        children = [{path.rpartition(".")[0]: set() for path in side.modules} for side in (self.a, self.b)]  # by parent
        for side, named in zip((self.a, self.b), children):
            for path in side.modules:
                if path:
                    named.setdefault(_module(path), set()).add(path.rpartition(".")[2])
        for key, others in self.known.items():
            one, two = key.split("."), others[0].split(".")
            while one and two and one[-1] == two[-1]:
                del one[-1], two[-1]
            if len(others) > 1 or not one or not two:
                continue
            above, beside = ".".join(one[:-1]), ".".join(two[:-1])
            if above == beside or together.get(above) == beside:
                names = children[0].get(above, set()), children[1].get(beside, set())
                if two[-1] in names[0] or one[-1] in names[1] or _renumbered(one[-1], two[-1], *names):
                    return True
        return False

    def _places(self) -> tuple[_Places, _Places, dict[str, str]]:
        """Say of which modules that belong together a key is in one: those whose paired keys are all in each other."""
        targets = {**self.known, **{key: (target,) for key, target in self.done.pairs.items()}}
        sources: dict[str, list[str]] = defaultdict(list)
        for key, others in targets.items():
            for other in others:
                sources[other].append(key)
        places_a: _Places = defaultdict(list)
        places_b: _Places = defaultdict(list)
        together: dict[str, str] = {}
        for path, keys in self.a.modules.items():
            paired = [key for key in keys if key in targets]
            if not paired or common_module(paired) != path:
                continue
            other = common_module(target for key in paired for target in targets[key])
            back = {source for key in self.b.modules[other] for source in sources.get(key, ())}
            if path and other and back == set(paired):
                together[path] = other
                for key in keys:
                    places_a[key].append(f"{path} = {other}")
                for key in self.b.modules[other]:
                    places_b[key].append(f"{path} = {other}")
        return places_a, places_b, together

    def _as_elsewhere(self, groups: list[Group]) -> list[Group]:
        """Pair what is called as keys of other blocks that are paired, where that names one key of the group."""
        known = {key: others[0] for key, others in self.known.items() if len(others) == 1} | self.done.pairs
        learned: dict[str, set[str]] = defaultdict(set)
        counted: dict[str, int] = defaultdict(int)
        for key, other in known.items():
            if _numbers(key) == _numbers(other):
                learned[_pattern(key)].add(_pattern(other))
                counted[_pattern(key)] += 1
            else:
                learned[_pattern(key)].add(f"as {other}")
        for group in groups:
            for key in list(group.a):
                patterns = learned.get(_pattern(key), set())
                target = _filled(next(iter(patterns)), _numbers(key)) if len(patterns) == 1 else None
                if target in group.b and counted[_pattern(key)] > 1 and (key, target) not in self.refused:
                    self.done.pairs[key] = target
                    self.done.why[key] = f"called as {counted[_pattern(key)]} others that are known"
                    group.a.remove(key)
                    group.b.remove(target)
        return [group for group in groups if group.a and group.b]

    def _contradicting(self) -> list[Group]:
        """Take back pairs by which one module's tensors would go to several modules, or come from several."""
        targets = {**self.known, **{key: (target,) for key, target in self.done.pairs.items()}}
        homes: dict[tuple[str, str], set[str]] = defaultdict(set)
        for key, others in targets.items():
            for other in others if len(others) == 1 else ():
                homes["a", _module(key)].add(_module(other))
                homes["b", _module(other)].add(_module(key))
        learned = self._learned_surely()
        bad = [
            key
            for key, other in self.done.pairs.items()
            if learned.get(_pattern(key), {_pattern(other)}) != {_pattern(other)}
            or len(homes["a", _module(key)]) > 1
            or len(homes["b", _module(other)]) > 1
        ]
        groups = []
        for key in bad:
            other = self.done.pairs.pop(key)
            del self.done.why[key]
            self.refused.add((key, other))
            groups.append(Group([key], [other], ("its module's tensors would go to several modules",)))
        return groups

    def _learned_surely(self) -> dict[str, set[str]]:
        """Return what keys of blocks are called on the other side, by the keys that are known from elsewhere."""
        learned: dict[str, set[str]] = defaultdict(set)
        for key, others in self.known.items():
            if len(others) == 1 and _numbers(key) == _numbers(others[0]) and "*" in _pattern(key):
                learned[_pattern(key)].add(_pattern(others[0]))
        return learned


_Places = dict[str, list[str]]


def _renumbered(one: str, other: str, beside_one: Iterable[str], beside_other: Iterable[str]) -> bool:
    """Tell whether two names have other numbers, though the modules beside them have the same numbers on both sides."""
    (stem, number), (other_stem, other_number) = said.digits(f"{one}.x"), said.digits(f"{other}.x")
    used, other_used = (
        {said.digits(f"{name}.x")[1] for name in names if said.digits(f"{name}.x")[0] == bare}
        for names, bare in ((beside_one, stem), (beside_other, other_stem))
    )
    return number != other_number and used == other_used


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def _flowing(flows: Mapping[str, Iterable[str]], key: str) -> frozenset[Token]:
    return frozenset((said.FLOW, flow) for flow in flows.get(key, ()))


def _split(
    group: Group, of_a: Mapping[str, Hashable], of_b: Mapping[str, Hashable], words: Callable[[Hashable], str]
) -> list[Group]:
    """Take a group apart by an attribute; keys of which the sides have unequal numbers stay together."""
    parts: dict[Hashable, Group] = defaultdict(lambda: Group([], []))
    for key in group.a:
        parts[of_a[key]].a.append(key)
    for key in group.b:
        parts[of_b[key]].b.append(key)
    rest = Group([], [], group.why)
    even = []
    for value, part in parts.items():
        if len(part.a) == len(part.b):
            text = words(value)
            even.append(Group(part.a, part.b, (*group.why, text) if text else group.why))
        else:
            rest.a += part.a
            rest.b += part.b
    return [*even, *([rest] if rest.a or rest.b else [])]


def _words(tokens: Hashable) -> str:
    """Say in words what tells keys from others."""
    places = sorted((token[1] for token in tokens if token[0] == said.PLACE), key=len)
    is_numbered = any(token[0] == said.NUMBER for token in tokens)
    structure = any(token[0] == said.STRUCTURE for token in tokens)
    texts = [FLOWING] if any(token[0] == said.FLOW for token in tokens) else []
    texts += [f"beside what is known of {places[-1]}"] if places else []
    texts += ["its numbers"] if is_numbered else []
    texts += ["the sizes around it"] if structure and not places else []
    return " and ".join(texts)


def _varying(numbers: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]] | None:
    """Return the numbers that are not the same for all keys; None where keys have unequal counts of them."""
    rows = list(numbers.values())
    if len({len(row) for row in rows}) != 1:
        return None
    vary = [at for at in range(len(rows[0])) if len({row[at] for row in rows}) > 1]
    return {key: tuple(row[at] for at in vary) for key, row in numbers.items()} if vary else None


def _pattern(key: str) -> str:
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", key)


def _numbers(key: str) -> tuple[str, ...]:
    return tuple(segment for segment in key.split(".") if segment.isdecimal())


def _filled(pattern: str, numbers: tuple[str, ...]) -> str | None:
    if pattern.count("*") != len(numbers):
        return None
    left = iter(numbers)
    return ".".join(next(left) if segment == "*" else segment for segment in pattern.split("."))

"""Put together what numbers, names, sizes and places tell of two sides."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import replace

from converters.rules.kinds import DropDuplicateOf, Keep, Permute, Rename
from converters.suggesting import fitting, numbers, pairing
from converters.suggesting.links import NAMES, NUMBERS, Findings, Link, Open, without
from converters.suggesting.tensors import Side

_SHARE = 0.5  # of B's telling tensors that must be found in A to say that both hold the same weights
_SWAPPED = "another tensor of its module is in another order along an axis as long, and its own numbers do not tell"
_MERGED = "it joins the channels of four places, whose order is another one in other code bases"


def find(a: Side, b: Side, flows: pairing.Flows = ({}, {}), assumed: Iterable[Link] = ()) -> Findings:
    """Tell which keys of two sides belong together.

    Args:
        a, b: The sides.
        flows: For keys of A, and of B, what flows through their modules when both are run.
        assumed: Links that are known from elsewhere.

    What the numbers tell is certain. What they do not tell, such as norms that are all ones, is told by names, sizes
    and places if these leave one possibility, and is open otherwise.
    """
    assumed = tuple(assumed)
    direct = numbers.equal(a, b)
    rest = [without(side.tensors, taken) for side, taken in ((a, direct.linked_a), (b, direct.linked_b))]
    moved = numbers.changed(*([side.tensors[key] for key in keys] for side, keys in zip((a, b), rest)))
    sure = Findings((*direct.links, *moved.links), moved.opens)
    sure = _with_followers(a, b, replace(sure, links=(*sure.links, *assumed)))
    found, telling = _share(a, b, sure)
    is_same = telling > 0 and found >= _SHARE * telling
    if not is_same:  # where it is, the numbers told it
        sure = replace(sure, opens=(*sure.opens, *_fused(a, b, sure)))
    named = _named(a, b, sure, is_same, flows)
    pairs = tuple(item for item in named.opens if len(item.a) == len(item.b))
    taken = Findings((*sure.links, *named.links), (*sure.opens, *pairs))
    parted = [] if is_same else _fused(a, b, taken, with_more=True)
    if parted:  # what is a part of a whole is no pair with something else
        sure = replace(sure, opens=(*sure.opens, *parted))
        named = _named(a, b, sure, is_same, flows)
    links = (*sure.links, *named.links)
    links = (*links, *_duplicates(a, b, links))
    return Findings(links, (*sure.opens, *named.opens), _notes(found, telling, is_same))


def _with_followers(a: Side, b: Side, sure: Findings) -> Findings:
    """Add the biases that go with weights whose rows are known to be elsewhere."""
    free_a, free_b = set(a.tensors) - sure.linked_a, set(b.tensors) - sure.linked_b
    added = []
    for link in sure.links:
        follower = fitting.following(a, b, link, free_a, free_b)
        if follower is not None:
            added.append(follower)
            free_a -= set(follower.rule.sources)
            free_b -= set(follower.rule.targets)
    return replace(sure, links=(*sure.links, *added))


def _share(a: Side, b: Side, sure: Findings) -> tuple[int, int]:
    """Return how many of B's telling tensors have their numbers in A, and how many it has."""
    telling = [held for held in b.tensors.values() if held.is_telling]
    held_by_a = {(held.shape, held.digest) for held in a.tensors.values()}
    found = [held for held in telling if held.key in sure.linked_b or (held.shape, held.digest) in held_by_a]
    return len(found), len(telling)


def _named(a: Side, b: Side, sure: Findings, is_same: bool, flows: pairing.Flows) -> Findings:
    """Pair by names, sizes and places what the numbers do not pair."""
    open_a = {key for item in sure.opens for key in item.a}
    open_b = {key for item in sure.opens for key in item.b}
    left_a, left_b = without(a.tensors, sure.linked_a | open_a), without(b.tensors, sure.linked_b | open_b)
    unlike: list[str] = []
    if is_same:
        shared = {_content(a, key) for key in left_a} & {_content(b, key) for key in left_b}
        unlike = [key for key in left_b if _content(b, key) not in shared]
        left_a = [key for key in left_a if _content(a, key) in shared]
        left_b = [key for key in left_b if _content(b, key) in shared]
    known = {key: link.rule.targets for link in sure.links for key in link.rule.sources}
    tell = _content if is_same else _sizes
    all_a, all_b = (Counter(side.tensors[key].sizes for key in left) for side, left in ((a, left_a), (b, left_b)))
    paired = pairing.pair(a, b, left_a, left_b, known, tell, all_a == all_b and not unlike, flows)
    turning = _Turning(a, b, sure.links, paired.pairs)
    links, opens = [], []
    merging = set() if is_same or a.tensors.keys() == b.tensors.keys() else _merging(a)
    for one, other in paired.pairs.items():
        held, target = a.tensors[one], b.tensors[other]
        if one in merging:
            options = fitting.merged(held, target)
            opens.append(Open((one,), (other,), f"a pair by their names, but {_MERGED}", options))
            continue
        rules = fitting.rules_of_sizes(held, target)
        is_equal = is_same and held.digest is not None and held.digest == target.digest
        unseen = fitting.turns_unseen(held, target) if turning.is_open(one, other) and not is_equal else []
        swapped = _swapped(a, sure.links, one)
        if len(rules) == 1 and not unseen and not swapped:
            links.append(Link(rules[0], NAMES, paired.why[one]))
        else:
            reason = "a pair by their names, but their sizes do not tell the order of their axes"
            reason = f"a pair by their names, but {_SWAPPED}" if swapped and not unseen else reason
            options = tuple((rule,) for rule in (*rules, *unseen, *swapped))
            opens.append(Open((one,), (other,), reason, _renamed(options, one, other)))
    opens += [_open(a, b, group, "numbers and sizes" if is_same else "sizes") for group in paired.groups]
    return Findings(tuple(links), tuple(opens))


class _Turning:
    """Of which pairs it is open whether their axes are in another order, which their sizes do not tell.

    What names say of a square matrix does not tell whether it is turned. What tells it of others of its kind is what
    their numbers, their sizes or a run say; two tensors are of one kind if modules of one class hold them under one
    name, on either side. Without modules every square matrix is open. Of tensors with more dimensions, those of as
    many tell it.
    """

    def __init__(self, a: Side, b: Side, links: Iterable[Link], pairs: Mapping[str, str]) -> None:
        self._a, self._b = a, b
        self._straight: set[Hashable] = set()
        self._turned: set[Hashable] = set()
        rules = [link.rule for link in links if link.known != NAMES]
        for rule in rules:
            if isinstance(rule, (Keep, Rename)):
                self._straight.add(self._kind(rule.source, rule.targets[0]))
            elif isinstance(rule, Permute) and rule.axes:
                self._turned.add(self._kind(rule.source, rule.target))
        self._has_same_keys = a.tensors.keys() == b.tensors.keys()
        for one, other in pairs.items():
            held, target = a.tensors[one], b.tensors[other]
            if any(isinstance(rule, Permute) for rule in fitting.rules_of_sizes(held, target)):
                self._turned.add(self._kind(one, other))
            elif held.shape == target.shape and not fitting.turns_unseen(held, target):
                self._straight.add(self._kind(one, other))

    def is_open(self, one: str, other: str) -> bool:
        """Tell whether nothing tells the order of the axes of a pair of tensors of one shape."""
        kind = self._kind(one, other)
        if len(self._a.tensors[one].shape) == 2 and not self._a.kinds:
            return True
        if len(self._a.tensors[one].shape) != 2 and self._has_same_keys:
            return kind in self._turned
        return kind in self._turned or kind not in self._straight

    def _kind(self, one: str, other: str) -> Hashable:
        dimensions = len(self._a.tensors[one].shape)
        if dimensions != 2:
            return dimensions
        return dimensions, self._a.kinds.get(one), self._b.kinds.get(other)


def _merging(side: Side) -> set[str]:
    """Return the keys of modules that join the channels of four neighbouring places and halve them.

    Such a module holds a norm and a linear layer, [2 * width, 4 * width], and nothing else.
    """
    found: set[str] = set()
    for path, keys in side.modules.items():
        shapes = [side.tensors[key].shape for key in keys]
        matrices = {shape for shape in shapes if len(shape) == 2}
        vectors = {shape for shape in shapes if len(shape) == 1}
        halves = len(matrices) == 1 and all(2 * rows == columns and columns % 4 == 0 for rows, columns in matrices)
        if path and halves and len(shapes) == sum(len(shape) in (1, 2) for shape in shapes) <= 4:
            ((_, columns),) = matrices
            if (columns,) in vectors and vectors <= {(columns,), (columns // 2,)}:
                found |= set(keys)
    return found


def _renamed(options: Iterable[tuple[object, ...]], source: str, target: str) -> tuple[tuple[object, ...], ...]:
    """Return options with the pair's own keys."""
    return tuple(
        tuple(replace(rule, source=source, target=target) if isinstance(rule, Permute) else rule for rule in option)
        for option in options
    )


def _swapped(a: Side, links: Iterable[Link], key: str) -> list[Permute]:
    """Return the orders along an axis that are known of tensors beside a key, and that would fit it as well."""
    shape = a.tensors[key].shape
    above = key.rpartition(".")[0].rpartition(".")[0]
    orders = {}
    for link in links:
        rule = link.rule
        if isinstance(rule, Permute) and rule.index is not None and len(rule.index) in shape:
            near = rule.source.rpartition(".")[0]
            is_own = near == key.rpartition(".")[0] and rule.axis == 0
            if is_own or (near != key.rpartition(".")[0] and near.rpartition(".")[0] == above):
                axis = shape.index(len(rule.index))
                orders[rule.index] = Permute(key, key, index=rule.index, axis=axis)
    return list(orders.values())


def _content(side: Side, key: str) -> Hashable:
    held = side.tensors[key]
    return (held.dtype, held.shape, held.digest) if held.is_telling else (held.dtype, held.sizes, held.amount)


def _sizes(side: Side, key: str) -> Hashable:
    held = side.tensors[key]
    return ("float" in held.dtype, held.sizes)


def _open(a: Side, b: Side, group: pairing.Group, alike: str) -> Open:
    few = len(group.a) == len(group.b) == 1
    reason = f"of the same {alike}, and no name tells which is which"
    if len(group.a) != len(group.b):
        counts = f"{len(group.a)} tensor{'s' if len(group.a) > 1 else ''} in A and {len(group.b)} in B"
        reason = f"{counts} of the same {alike}, and no name tells which is which"
    if few:
        reason = f"of the same {alike}, but too little else speaks for it"
    rules = []
    if few:
        one, other = a.tensors[group.a[0]], b.tensors[group.b[0]]
        unseen = fitting.turns_unseen(one, other)
        rules = [*fitting.rules_of_sizes(one, other), *(replace(rule, target=other.key) for rule in unseen)]
    return Open(tuple(group.a), tuple(group.b), reason, tuple((rule,) for rule in rules))


def _duplicates(a: Side, b: Side, links: Iterable[Link]) -> list[Link]:
    """Return rules for tensors of A that repeat another one, which B has once."""
    links = list(links)
    taken = {key: link for link in links for key in link.rule.sources}
    by_content: dict[Hashable, list[str]] = defaultdict(list)
    for key, held in a.tensors.items():
        if held.is_telling:
            by_content[held.dtype, held.shape, held.digest].append(key)
    twins: dict[str, str] = {}
    for keys in by_content.values():
        linked = [key for key in keys if key in taken]
        if len(linked) == 1:
            twins |= {key: linked[0] for key in keys if key != linked[0]}
    modules: dict[str, set[str]] = defaultdict(set)
    for key, twin in twins.items():
        modules[key.rpartition(".")[0]].add(twin.rpartition(".")[0])
    for key, held in a.tensors.items():  # what a repeated module holds beside, such as a bias of zeros
        home, _, name = key.rpartition(".")
        if key not in taken and key not in twins and len(modules.get(home, ())) == 1:
            twin = f"{next(iter(modules[home]))}.{name}"
            other = a.tensors.get(twin)
            if other is not None and twin in taken and (other.shape, other.digest) == (held.shape, held.digest):
                twins[key] = twin
    reason = "it repeats the other bit by bit, and B has it once"
    return [Link(DropDuplicateOf(key, twin, reason), NUMBERS, reason) for key, twin in twins.items()]


def _fused(a: Side, b: Side, sure: Findings, with_more: bool = False) -> list[Open]:
    """Return what one side has as one layer, for the other has none of its sizes, and the other in parts.

    With `with_more`, the parts may have more siblings of their sizes than the layer has parts.
    """
    taken = [
        linked | {key for item in sure.opens for key in (item.a if side is a else item.b)}
        for side, linked in ((a, sure.linked_a), (b, sure.linked_b))
    ]
    left = [without(side.tensors, gone) for side, gone in zip((a, b), taken)]
    sizes = [{side.tensors[key].sizes for key in keys} for side, keys in zip((a, b), left)]
    found = list(fitting.fused(a, b, *left, sizes, with_more))
    times = Counter((side, key) for item in found for side, keys in enumerate((item.a, item.b)) for key in keys)
    alone = [
        item
        for item in found
        if all(times[side, key] == 1 for side, keys in enumerate((item.a, item.b)) for key in keys)
    ]
    return alone


def _notes(found: int, telling: int, is_same: bool) -> tuple[str, ...]:
    if is_same:
        return ()
    what = f"Numbers could tell {telling} of B's tensors, and {found or 'none'} of these have them in A"
    what = what if telling else "No tensor of B has numbers that could tell it from others"
    return (
        f"{what}; so names, sizes and places decide the rest. They tell which tensors belong together, "
        "not whether what is in them stands in the same order.",
    )


def unmatched(side: Side, linked: Collection[str], opens: Iterable[Open]) -> tuple[str, ...]:
    """Return the keys of a side that nothing of the other side may belong to."""
    in_question = {key for item in opens for key in (item.a if side.name == "A" else item.b)}
    return tuple(without(side.tensors, {*linked, *in_question}))

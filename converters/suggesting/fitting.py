"""The rules that a pair of keys may need, by their sizes, and those of a tensor that goes with another one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from math import perm

from converters.formats.stored import StoredTensor
from converters.rules.changing import UnfitShapeError
from converters.rules.kinds import Concat, Keep, Pad, Permute, Reshape, Rule, Slice, Split
from converters.rules.values import applied
from converters.suggesting.links import Link, Open
from converters.suggesting.numbers import named
from converters.suggesting.tensors import Held, Side

_MOST_AXES = 5
WEIGHT, BIAS = "weight", "bias"
_ENDS = (lambda rule: rule.sources, lambda rule: rule.targets)
_MOST_SIBLINGS = 6  # of which some may be the parts of a fused layer
MOST_ORDERS = 120  # of parts that are written down and tried


def rules_of_sizes(one: Held, other: Held) -> list[Rule]:
    """Return every rule that makes the sizes of the one tensor those of the other, which is of as many elements."""
    if one.shape == other.shape:
        return [named(one.key, other.key)]
    long = tuple(size for size in one.shape if size != 1)
    if long == tuple(size for size in other.shape if size != 1):
        return [Reshape(one.key, other.key, other.shape, one.shape)]
    if len(one.shape) != len(other.shape) or len(one.shape) > _MOST_AXES:
        return []
    orders = permutations(range(len(one.shape)))
    return [
        Permute(one.key, other.key, axes=axes)
        for axes in orders
        if tuple(one.shape[axis] for axis in axes) == other.shape
    ]


def turns_unseen(one: Held, other: Held) -> list[Rule]:
    """Return the orders of axes that the sizes of two tensors do not tell from none."""
    if one.shape != other.shape or len(one.shape) > _MOST_AXES:
        return []
    axes = [order for order in permutations(range(len(one.shape))) if order != tuple(sorted(order))]
    return [
        Permute(one.key, other.key, axes=order)
        for order in axes
        if tuple(one.shape[axis] for axis in order) == other.shape
        and all(one.shape[axis] != 1 or order[axis] == axis for axis in range(len(order)))
    ]


def following(a: Side, b: Side, link: Link, free_a: Collection[str], free_b: Collection[str]) -> Link | None:
    """Return the rule of the biases that go with the rows of a weight that is split, joined, cut or put in order.

    What a layer adds to a row is in the order of its rows. None where there is no bias, or it is another matter.
    """
    rule = link.rule
    if not isinstance(rule, (Split, Concat, Slice, Pad, Permute)) or getattr(rule, "axis", None) != 0:
        return None
    try:
        moved = _renamed(rule)
    except ValueError:
        return None
    if not set(moved.sources) <= set(free_a) or not set(moved.targets) <= set(free_b):
        return None
    if not fits(a, b, moved):
        return None
    return Link(moved, link.known, f"as the weight beside it, {link.reason}")


def _renamed(rule: Rule) -> Rule:
    """Return the rule of the biases beside the weights of a rule."""
    if isinstance(rule, Keep):
        return Keep(_bias(rule.pattern))
    fields = ("source", "target") if hasattr(rule, "source") and hasattr(rule, "target") else ()
    fields = fields or (("source", "targets") if isinstance(rule, Split) else ("sources", "target"))
    changed = {}
    for field in fields:
        value = getattr(rule, field)
        changed[field] = _bias(value) if isinstance(value, str) else tuple(map(_bias, value))
    return replace(rule, **changed)


def _bias(key: str) -> str:
    head, found, tail = key.rpartition(WEIGHT)
    if not found or "." in tail:
        raise ValueError(key)
    return f"{head}{BIAS}{tail}"


def fits(a: Side, b: Side, rule: Rule, with_numbers: bool = True) -> bool:
    """Tell whether a rule makes of tensors of A ones with the sizes of B, and with its numbers, if these count."""
    sources = [a.tensors[key] for key in rule.sources]
    targets = [b.tensors[key] for key in rule.targets]
    try:
        shapes = rule.shapes([held.shape for held in sources])
    except UnfitShapeError:
        return False
    if shapes != tuple(held.shape for held in targets) or len({held.dtype for held in (*sources, *targets)}) != 1:
        return False
    if not with_numbers or any(held.bits is None for held in (*sources, *targets)):
        return True
    stored = [StoredTensor.of(held.dtype, held.shape, held.bits.tobytes()) for held in sources]
    made = applied(rule, stored, rest=None if not isinstance(rule, (Slice, Pad)) or rule.rest is None else rule.rest)
    return all(tensor.data() == held.bits.tobytes() for tensor, held in zip(made, targets))


def fused(
    a: Side, b: Side, left_a: Collection[str], left_b: Collection[str], sizes: Sequence[Collection[tuple[int, ...]]],
    with_more: bool = False,
) -> Iterator[Open]:  # fmt: skip
    """Yield layers that one side may have as one and the other in parts: sizes allow it, but the order is not told.

    Args:
        a, b: The sides.
        left_a, left_b: Keys that nothing is known of.
        sizes: Of the tensors of A and of B that nothing is known of; what has its like there is no whole of parts.
        with_more: Whether the parts may be some of several siblings, such as q, k and v of q, k, v and o.
    """
    sides = ((a, b, left_a, left_b, sizes[1], True), (b, a, left_b, left_a, sizes[0], False))
    seen: set[str] = set()
    for wholes, parts, left, free, others, is_split in sides:
        siblings = _siblings(parts, free)
        for key in left:
            whole = wholes.tensors[key]
            is_alone = whole.shape and whole.sizes not in others and not _has_weight(wholes, key)
            for group in siblings if is_alone and key not in seen else ():
                count = _part_count(whole, parts.tensors[group[0]])
                if not _is_near(key, group) or not (len(group) == count or (with_more and 1 < count < len(group))):
                    continue
                if perm(len(group), count) * max(1, len(group) - count) > MOST_ORDERS:
                    continue
                options = []
                for order in permutations(group, count):
                    rule = Split(key, order, 0) if is_split else Concat(order, key, 0)
                    rest = [part for part in group if part not in order]
                    for last in _last(wholes, parts, key, left, rest, is_split):
                        rules = (rule, *last)
                        beside = [more for each in rules for more in _beside(a, b, each, left_a, left_b)]
                        options.append((*rules, *beside))
                reason = "one may be the other's parts along axis 0, whose order neither names nor sizes tell"
                keys = [
                    tuple(dict.fromkeys(key for option in options for rule in option for key in name(rule)))
                    for name in _ENDS
                ]
                seen |= {*keys[0], *keys[1]}  # the biases go with the weights
                yield Open(*keys, reason, tuple(options))


def _part_count(whole: Held, part: Held) -> int:
    """Return how many parts of one shape a whole has along axis 0; 0 if it has none."""
    if not part.shape or whole.dtype != part.dtype or whole.shape[1:] != part.shape[1:] or not part.shape[0]:
        return 0
    return whole.shape[0] // part.shape[0] if whole.shape[0] % part.shape[0] == 0 else 0


def _last(
    wholes: Side, parts: Side, key: str, left: Collection[str], rest: Sequence[str], is_split: bool
) -> list[tuple[Rule, ...]]:  # fmt: skip
    """Return the rules that a sibling that is no part may have: it is what the module of the whole holds beside it.

    Where that module holds nothing of the size, it is the one tensor of the size nearby.
    """
    shape = parts.tensors[rest[0]].shape if rest else ()
    near = [
        other
        for other in left
        if rest and other != key and wholes.tensors[other].shape == shape and _is_near(other, (rest[0],))
    ]
    home = key.rpartition(".")[0]
    within = [other for other in near if home and other.startswith(f"{home}.")]
    if len(within) == 1 or len(near) == len(rest) == 1:
        (one,) = within if len(within) == 1 else near
        return [(named(one, part) if is_split else named(part, one),) for part in rest]
    return [()]


def _has_weight(side: Side, key: str) -> bool:
    """Tell whether a key is a bias with a weight beside it, whose parts are its own parts, too."""
    head, found, tail = key.rpartition(BIAS)
    return bool(found) and "." not in tail and f"{head}{WEIGHT}{tail}" in side.tensors


def _beside(a: Side, b: Side, rule: Rule, left_a: Collection[str], left_b: Collection[str]) -> tuple[Rule, ...]:
    """Return the rule of the biases beside weights, if nothing else is known of them."""
    try:
        moved = _renamed(rule)
    except ValueError:
        return ()
    is_free = set(moved.sources) <= set(left_a) and set(moved.targets) <= set(left_b)
    return (moved,) if is_free and fits(a, b, moved, with_numbers=False) else ()


def _siblings(side: Side, free: Collection[str]) -> list[tuple[str, ...]]:
    """Return free keys that stand beside each other and differ in one part only, two to six of one shape."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for key in free:
        segments = key.split(".")
        for at in range(max(0, len(segments) - 2), len(segments)):
            rest = (*segments[:at], None, *segments[at + 1 :])
            last = segments[at] if at < len(segments) - 1 else _kind(segments[at])
            name = (rest, side.tensors[key].shape, None if at < len(segments) - 1 else last)
            groups.setdefault(name, []).append(key)
    return [tuple(keys) for keys in groups.values() if 2 <= len(keys) <= _MOST_SIBLINGS]


def _kind(leaf: str) -> str:
    return next((kind for kind in (WEIGHT, BIAS) if kind in leaf), leaf)


def _is_near(key: str, group: tuple[str, ...]) -> bool:
    """Tell whether a whole and its parts are of one kind and share a word or a number of their place."""
    if _kind(key.rpartition(".")[2]) != _kind(group[0].rpartition(".")[2]):
        return False
    ones, others = ([part for part in text.split(".") if part.isdecimal()] for text in (key, group[0]))
    return ones[:1] == others[:1]


def merged(one: Held, other: Held) -> tuple[tuple[Rule, ...], ...]:
    """Return the orders that code bases have for what joins the channels of four places: as it is first.

    The last dimension is [places, channels] or [channels, places], and the places are row by row or column by column.
    """
    axis, length = len(one.shape) - 1, one.shape[-1]
    width = length // 4
    if one.shape != other.shape or not width:
        return ()
    orders: dict[tuple[int, ...], None] = {tuple(range(length)): None}
    for places in ((0, 1, 2, 3), (0, 2, 1, 3)):
        outer = tuple(place * width + channel for place in places for channel in range(width))
        inner = tuple(place * width + channel for channel in range(width) for place in places)
        back = tuple(sorted(range(length), key=inner.__getitem__))
        within = tuple(4 * channel + place for channel in range(width) for place in places)
        orders |= dict.fromkeys((outer, inner, back, within))
    return tuple(
        (named(one.key, other.key) if number == 0 else Permute(one.key, other.key, index=index, axis=axis),)
        for number, index in enumerate(orders)
    )

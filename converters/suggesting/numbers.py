"""Find which tensors hold the same numbers: as they are, in another order of axes or rows, cut, joined or reshaped."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import permutations
from typing import TYPE_CHECKING

from converters.rules.kinds import Concat, Keep, Pad, Permute, Rename, Reshape, Rule, Slice, Split
from converters.suggesting.links import NUMBERS, Findings, Link, Open
from converters.suggesting.tensors import Held, Side, elements

if TYPE_CHECKING:
    import numpy as np

_MOST_AXES = 5  # of tensors whose orders of axes are tried
_SAME = "the same numbers, which no other tensor has"
_MOST_ROWS = 1 << 21  # rows of all tensors that are looked up


def equal(a: Side, b: Side) -> Findings:
    """Link the tensors whose numbers are found once on either side, as they are."""
    return Findings(
        tuple(
            Link(named(one.key, other.key), NUMBERS, _SAME)
            for one, other in _alone(a, b, lambda held: (held.dtype, held.shape, held.digest))
        )
    )


def changed(a: Iterable[Held], b: Iterable[Held]) -> Findings:
    """Link tensors of the same numbers in another order or shape, and wholes with their parts.

    Args:
        a, b: Telling tensors that are not linked as they are.
    """
    # whole numbers count something, and count alike in tensors that have nothing to do with each other
    a, b = ([held for held in side if held.is_telling and "float" in held.dtype] for side in (a, b))
    links, opens = [], []
    for one, other in _alone_of(a, b, lambda held: (held.dtype, elements(held.shape), held.amount)):
        rules = list(_orders(one, other))
        if len(rules) == 1:
            links.append(Link(rules[0], NUMBERS, f"the same numbers, {_words(rules[0])}, and no other tensor has them"))
        else:
            reason = (
                "the same numbers in another order, which no single rule makes"
                if not rules
                else "the same numbers, and several orders fit"
            )
            opens.append(Open((one.key,), (other.key,), reason, tuple((rule,) for rule in rules)))
    taken_a = {key for link in links for key in link.rule.sources} | {key for item in opens for key in item.a}
    taken_b = {key for link in links for key in link.rule.targets} | {key for item in opens for key in item.b}
    left_a = [held for held in a if held.key not in taken_a]
    left_b = [held for held in b if held.key not in taken_b]
    parted = _parts(left_a, left_b)
    return Findings((*links, *parted.links), (*opens, *parted.opens))


def named(source: str, target: str) -> Rule:
    """Return the rule that only names a key."""
    return Keep(source) if source == target else Rename(source, target)


def _alone(a: Side, b: Side, tell: object) -> Iterator[tuple[Held, Held]]:
    telling = ([held for held in side.tensors.values() if held.is_telling] for side in (a, b))
    yield from _alone_of(*telling, tell)


def _alone_of(a: Iterable[Held], b: Iterable[Held], tell: object) -> Iterator[tuple[Held, Held]]:
    """Yield the tensors that `tell` tells from all others of their own side, and from all but one of the other."""
    groups: dict[Hashable, tuple[list[Held], list[Held]]] = defaultdict(lambda: ([], []))
    for number, side in enumerate((a, b)):
        for held in side:
            groups[tell(held)][number].append(held)
    yield from ((one[0], other[0]) for one, other in groups.values() if len(one) == len(other) == 1)


def _orders(one: Held, other: Held) -> Iterator[Rule]:
    """Yield the rules that make the one tensor's numbers the other's, which are the same in some order."""
    import numpy as np

    a, b = one.bits, other.bits
    flat_equal = a.size == b.size and bool((a.reshape(-1) == b.reshape(-1)).all())
    if flat_equal and one.shape != other.shape:
        yield Reshape(one.key, other.key, other.shape, one.shape)
        return
    for axes in permutations(range(a.ndim)) if 1 < a.ndim <= _MOST_AXES else ():
        if axes != tuple(sorted(axes)) and a.transpose(axes).shape == b.shape and np.array_equal(a.transpose(axes), b):
            yield Permute(one.key, other.key, axes=axes)
    for axis in range(a.ndim) if a.shape == b.shape else ():
        index = _index(_rows(a, axis), _rows(b, axis))
        if index is not None:
            yield Permute(one.key, other.key, index=index, axis=axis)


def _index(a: list[bytes], b: list[bytes]) -> tuple[int, ...] | None:
    """Return for every row of `b` its place in `a`; None where that is not one order."""
    place = {row: number for number, row in enumerate(a)}
    if len(place) < len(a) or set(place) != set(b):
        return None
    return tuple(place[row] for row in b)


def _rows(bits: np.ndarray, axis: int) -> list[bytes]:
    """Return what stands at every place along an axis."""
    import numpy as np

    rows = np.ascontiguousarray(np.moveaxis(bits, axis, 0)).reshape(bits.shape[axis], -1)
    return [row.tobytes() for row in rows]


def _row(bits: np.ndarray, axis: int) -> bytes:
    """Return what stands at the first place along an axis."""
    return bits[(slice(None),) * axis + (0,)].tobytes()


def _words(rule: Rule) -> str:
    if isinstance(rule, Reshape):
        return "in another shape"
    if rule.axes is None:
        return f"in another order along axis {rule.axis}"
    return "transposed" if rule.axes == (1, 0) else "with their axes in another order"


def _parts(a: list[Held], b: list[Held]) -> Findings:
    """Link wholes of either side with the parts that the other has of them."""
    made: list[tuple[tuple[str, ...], tuple[str, ...], Link | str]] = []
    for blocks, whole_first in ((_blocks(a, b), True), (_blocks(b, a), False)):
        by_whole: dict[str, list[_Block]] = defaultdict(list)
        for (whole, _), block in blocks.items():
            by_whole[whole.key].append(block)
        for whole, held in by_whole.items():
            parts = tuple(block.part.key for block in held)
            sides = ((whole,), parts) if whole_first else (parts, (whole,))
            made.append((*sides, _whole(held, whole_first)))
    times = Counter((side, key) for keys in made for side in (0, 1) for key in keys[side])
    links, opens = [], []
    for ones, others, result in made:
        several = any(times[side, key] > 1 for side, keys in enumerate((ones, others)) for key in keys)
        if several or isinstance(result, str):
            opens.append(Open(ones, others, "the same numbers stand in several tensors" if several else result))
        else:
            links.append(result)
    return Findings(tuple(links), tuple(opens))


class _Block:
    """A tensor that stands in a larger one, from `start` on along `axis`; `start` is None where it is no one block."""

    def __init__(self, whole: Held, part: Held, axis: int, start: int | None) -> None:
        self.whole, self.part, self.axis, self.start = whole, part, axis, start

    @property
    def length(self) -> int:
        return self.part.shape[self.axis]


def _blocks(wholes: list[Held], parts: list[Held]) -> Mapping[tuple[Held, Held], _Block]:
    """Find the tensors that stand in larger ones of the same sizes but for one axis."""
    found: dict[tuple[Held, Held], _Block] = {}
    for axis in range(_MOST_AXES):
        by_rest: dict[Hashable, list[Held]] = defaultdict(list)
        for whole in wholes:
            if len(whole.shape) > axis:
                by_rest[whole.dtype, _rest(whole, axis)].append(whole)
        rows: dict[str, dict[bytes, list[int]]] = {}
        for part in parts:
            larger = by_rest.get((part.dtype, _rest(part, axis)), ()) if len(part.shape) > axis else ()
            for whole in larger:
                if whole.shape[axis] <= part.shape[axis] or whole.shape[axis] > _MOST_ROWS:
                    continue
                if whole.key not in rows:
                    rows[whole.key] = _places(_rows(whole.bits, axis))
                if _row(part.bits, axis) not in rows[whole.key]:
                    continue
                places = [rows[whole.key].get(row) for row in _rows(part.bits, axis)]
                if all(places):
                    found[whole, part] = _Block(whole, part, axis, _start(places))
    return found


def _rest(held: Held, axis: int) -> tuple[object, ...]:
    return (*held.shape[:axis], None, *held.shape[axis + 1 :])


def _places(rows: list[bytes]) -> dict[bytes, list[int]]:
    places: dict[bytes, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        places[row].append(number)
    return dict(places)


def _start(places: list[list[int]]) -> int | None:
    """Return where rows stand one after the other; None where they do not, or at several places."""
    starts = set(places[0])
    for number, where in enumerate(places):
        starts &= {place - number for place in where}
    return starts.pop() if len(starts) == 1 else None


def _whole(blocks: list[_Block], whole_first: bool) -> Link | str:
    """Return the rule between a whole and its parts, or why there is none."""
    whole, axis = blocks[0].whole, blocks[0].axis
    if any(block.start is None for block in blocks):
        return "the rows of the one stand in the other, but not one after the other, which no single rule makes"
    if any(block.axis != axis for block in blocks):
        return "parts of it stand in it along several axes"
    blocks = sorted(blocks, key=lambda block: block.start)
    ends = [0, *(block.start + block.length for block in blocks)]
    total = whole.shape[axis]
    if len(blocks) == 1:
        return _one_part(blocks[0], whole_first)
    if [block.start for block in blocks] != ends[:-1] or ends[-1] != total:
        return "its parts do not cover it, and no single rule takes several parts of a tensor"
    lengths = tuple(block.length for block in blocks)
    sizes = None if len(set(lengths)) == 1 else lengths
    parts = tuple(block.part.key for block in blocks)
    rule = Split(whole.key, parts, axis, sizes) if whole_first else Concat(parts, whole.key, axis, sizes)
    return Link(rule, NUMBERS, f"the same numbers, {len(parts)} parts along axis {axis}, which no other tensor has")


def _one_part(block: _Block, whole_first: bool) -> Link | str:
    """Return the rule for a tensor of which the other side has one part."""
    import numpy as np

    whole, axis, stop = block.whole, block.axis, block.start + block.length
    rest = np.delete(whole.bits, np.s_[block.start : stop], axis)
    constant = _number(rest, whole.dtype)
    numbers = (axis, block.start, stop, whole.shape[axis], constant)
    if whole_first:
        reason = "" if constant is not None else f"B has no more than these places along axis {axis}"
        rule: Rule = Slice(whole.key, block.part.key, *numbers, reason)
    elif constant is None:
        return "it has numbers beside those of the other side"
    else:
        rule = Pad(block.part.key, whole.key, *numbers)
    return Link(
        rule, NUMBERS, f"the same numbers from {block.start} to {stop} of {whole.shape[axis]} along axis {axis}"
    )


def _number(bits: np.ndarray, dtype: str) -> float | None:
    """Return the one number that all of these are; None where they are several, or of a dtype that is not read."""
    kinds = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "int64": "<i8", "int32": "<i4"}
    if dtype not in kinds or len(set(bits.reshape(-1)[:2].tolist())) != 1 or (bits != bits.reshape(-1)[0]).any():
        return None
    number = bits.reshape(-1)[:1].view(kinds[dtype])[0].item()
    return number if number == number and abs(number) != float("inf") else None

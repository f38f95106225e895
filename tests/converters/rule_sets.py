"""Random rule sets and state dicts for property-based tests, and what they mean, found by trying every key.

The meaning is worked out by enumeration over all keys of two letters, with nothing of the code under test: no regular
expression, no `intersect`, no `Mapping`.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from hypothesis import strategies as st

from converters.formats.stored import Storage, StoredTensor, row_major
from converters.rules.engine import AnyTensor
from converters.rules.layout import Layout, spec_of
from converters.rules.mapping import Drop, DropDuplicateOf, Keep, Rename, Rule

LETTERS = ("a", "b")
WILDCARDS = ("*", "**")
#: Two patterns of up to four segments, one `**` each, meet in six segments if they meet at all.
KEYS = tuple(".".join(parts) for n in range(1, 7) for parts in itertools.product(LETTERS, repeat=n))
#: Keys of state dicts; those that start with `copy` are for duplicates.
STATE_KEYS = tuple(f"{head}{key}" for head in ("", "copy.") for key in KEYS if key.count(".") < 4)

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.complex64)
_KINDS = ("torch", "stored", "strided")
_SHAPES = ((), (0,), (1,), (3,), (2, 3), (2, 0, 1))


@cache
def bindings(pattern: tuple[str, ...], key: tuple[str, ...]) -> list[tuple[str, ...]]:
    """List every way in which `key` matches `pattern`: what the wildcards stand for, in order."""
    if not pattern or not key:
        return [()] if not pattern and not key else []
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        taken = range(1, len(key) + 1)
        return [(".".join(key[:n]), *more) for n in taken for more in bindings(rest, key[n:])]
    if head == "*":
        return [(key[0], *more) for more in bindings(rest, key[1:])]
    return bindings(rest, key[1:]) if head == key[0] else []


def filled(pattern: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Put `values` in place of the wildcards."""
    left = list(values)
    return ".".join(left.pop(0) if segment in WILDCARDS else segment for segment in pattern)


def matches(pattern: str, key: str) -> bool:
    return bool(bindings(tuple(pattern.split(".")), tuple(key.split("."))))


@cache
def _matched(pattern: str) -> frozenset[str]:
    return frozenset(f"{head}{key}" for head in ("", "copy.") for key in KEYS if matches(pattern, f"{head}{key}"))


def share_a_key(first: str, second: str) -> bool:
    """Tell by trying whether some key matches both patterns, of at most four segments each."""
    return bool(_matched(first) & _matched(second))


def conflict(rules: tuple[Rule, ...]) -> bool:
    """Tell by trying whether some key is taken, or produced, by two of the rules."""
    pairs = list(itertools.combinations(rules, 2))
    return any(share_a_key(one.source, other.source) for one, other in pairs) or any(
        share_a_key(one.target, other.target)
        for one, other in pairs
        if one.target is not None and other.target is not None
    )


@dataclass(frozen=True)
class Outcome:
    """What the rules make of one key: which rule takes it, the target, and the key it repeats."""

    rule: int
    target: str | None
    twin: str | None


def outcome(rules: tuple[Rule, ...], key: str) -> Outcome | None:
    """Apply the rules to a key; None where none takes it."""
    for index, rule in enumerate(rules):
        for values in bindings(tuple(rule.source.split(".")), tuple(key.split("."))):
            target = None if rule.target is None else filled(tuple(rule.target.split(".")), values)
            twin = filled(tuple(rule.twin.split(".")), values) if isinstance(rule, DropDuplicateOf) else None
            return Outcome(index, target, twin)
    return None


@st.composite
def patterns(draw: st.DrawFn, longest: int = 4, first: tuple[str, ...] = (*LETTERS, *WILDCARDS)) -> str:
    """Draw a sound pattern over two letters."""
    rest = st.lists(st.sampled_from((*LETTERS, *LETTERS, *WILDCARDS)), max_size=longest - 1)
    parts = draw(st.tuples(st.sampled_from(first), rest).map(lambda drawn: [drawn[0], *drawn[1]]))
    return ".".join(part for index, part in enumerate(parts) if part != "**" or "**" not in parts[:index])


@st.composite
def with_wildcards_of(draw: st.DrawFn, pattern: str, most: int) -> str:
    """Draw a pattern of at most `most` segments with the wildcards of another one, in their order."""
    parts = [segment for segment in pattern.split(".") if segment in WILDCARDS]
    for _ in range(draw(st.integers(min_value=0 if parts else 1, max_value=min(2, most - len(parts))))):
        parts.insert(draw(st.integers(0, len(parts))), draw(st.sampled_from(LETTERS)))
    return ".".join(parts)


@st.composite
def rules(draw: st.DrawFn, first: tuple[str, ...] = (*LETTERS, *WILDCARDS), kinds: str = "krrd") -> Rule:
    """Draw a rule that keeps, renames or drops."""
    pattern, kind = draw(patterns(3, first)), draw(st.sampled_from(kinds))
    if kind == "k":
        return Keep(pattern)
    return Drop(pattern, "unused") if kind == "d" else Rename(pattern, draw(with_wildcards_of(pattern, 4)))


@st.composite
def rule_sets(draw: st.DrawFn) -> tuple[Rule, ...]:
    """Draw rules that do not contradict each other."""
    return draw(_grown(()))


@st.composite
def rule_sets_with_a_copy(draw: st.DrawFn) -> tuple[Rule, ...]:
    """Draw such rules, the second of which takes duplicates of what the first keeps."""
    kept = draw(rules(LETTERS, "kr"))
    return draw(_grown((kept, draw(copies(kept)))))


@st.composite
def copies(draw: st.DrawFn, rule: Rule) -> DropDuplicateOf:
    """Draw a rule for duplicates of what another rule takes; no key that starts with a letter is one."""
    source = f"copy.{draw(with_wildcards_of(rule.source, 3))}"
    return DropDuplicateOf(source, rule.source, "saved twice")


@st.composite
def _grown(draw: st.DrawFn, chosen: tuple[Rule, ...]) -> tuple[Rule, ...]:
    for rule in draw(st.lists(rules(), min_size=0 if chosen else 1, max_size=4)):
        chosen = chosen if conflict((*chosen, rule)) else (*chosen, rule)
    return chosen


def bits(name: str, salt: int, dtype: torch.dtype, shape: tuple[int, ...], kind: str) -> AnyTensor:
    """Make a tensor of any bits at all, the same for the same name and salt.

    `kind` is `torch`, or `stored`, or `strided` for a stored one whose elements lie the other way round.
    """
    count = math.prod(shape) * dtype.itemsize
    data = hashlib.shake_256(f"{salt}/{name}".encode()).digest(count)
    if kind == "torch":
        return torch.tensor(list(data), dtype=torch.uint8).view(dtype).reshape(shape)
    stride = row_major(shape[::-1])[::-1] if kind == "strided" else row_major(shape)
    return StoredTensor(str(dtype).removeprefix("torch."), shape, Storage.of(data), stride=stride)


def content(tensor: AnyTensor) -> bytes:
    """Return the elements of a tensor, row-major."""
    return tensor.data() if isinstance(tensor, StoredTensor) else StoredTensor.from_torch(tensor).data()


def copied_tensor(tensor: AnyTensor, flip: int | None = None) -> StoredTensor:
    """Return a row-major copy with the same bits, but for bit number `flip`."""
    data = bytearray(content(tensor))
    if flip is not None:
        data[flip // 8] ^= 1 << flip % 8
    return StoredTensor.of(spec_of(tensor).dtype, tuple(tensor.shape), bytes(data))


@st.composite
def states(draw: st.DrawFn, rules: tuple[Rule, ...]) -> dict[str, AnyTensor]:
    """Draw a state dict that the rules can convert, with some duplicates, each equal to its twin, if they take any."""
    found = {key: outcome(rules, key) for key in STATE_KEYS}
    taken = [key for key, result in found.items() if result is not None and result.twin is None]
    copied = [key for key, result in found.items() if result is not None and result.twin is not None]
    keys = draw(st.lists(st.sampled_from(taken), unique=True, max_size=6)) if taken else []
    twice = draw(st.lists(st.sampled_from(copied), unique=True, min_size=1, max_size=3)) if copied else []
    kinds = st.tuples(st.integers(0, 3), st.sampled_from(_DTYPES), st.sampled_from(_SHAPES), st.sampled_from(_KINDS))
    state = {key: bits(key, *draw(kinds)) for key in dict.fromkeys([*keys, *(found[key].twin for key in twice)])}
    return state | {key: copied_tensor(state[found[key].twin]) for key in twice}


def kept(rules: tuple[Rule, ...], keys: Iterable[str]) -> dict[str, str]:
    """Pair the keys that the rules keep, renamed or not, with their targets."""
    found = {key: outcome(rules, key) for key in keys}
    return {key: result.target for key, result in found.items() if result is not None and result.target is not None}


def layout_of(tensors: Mapping[str, AnyTensor]) -> Layout:
    """Describe a state dict as the layout that it fits exactly."""
    return Layout("random", {key: spec_of(tensor) for key, tensor in tensors.items()})

"""What is proposed for random trees of modules with random names is never wrong, whatever else it is."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.formats.stored import StoredTensor
from converters.rules.values import applied
from converters.suggesting.suggestion import suggest

OTHERS = ("alpha", "beta", "gamma", "delta")
WORDS = ("norm", "proj", "attn", "layer", "out", "ffn", "block", "q", "key", "norm1", "norm2", "fc1", "fc2", "0", "1")
SHAPES = ((4,), (8,), (4, 4), (8, 4), (4, 8), (12, 4), (12,), (2, 2, 1, 1))
CONSTANT, GENERIC = "constant", "generic"


@dataclass(frozen=True)
class Leaf:
    """A tensor: sizes, numbers, and how the other side has it."""

    shape: tuple[int, ...]
    content: str
    change: str


leaves = st.builds(
    Leaf,
    st.sampled_from(SHAPES),
    st.sampled_from((CONSTANT, GENERIC, GENERIC)),
    st.sampled_from(("same", "same", "same", "transposed", "split", "shuffled")),
)
trees = st.recursive(
    st.dictionaries(st.sampled_from(("weight", "bias")), leaves, min_size=1, max_size=2),
    lambda inner: st.dictionaries(st.sampled_from(WORDS), inner, min_size=1, max_size=4),
    max_leaves=14,
)


def keys_of(
    tree: dict, names: dict[tuple[str, str], str], path: str = "", new: str = ""
) -> list[tuple[str, str, Leaf]]:
    """List the tensors of a tree: key, key with other names, leaf."""
    found = []
    for name, part in tree.items():
        if isinstance(part, Leaf):
            found.append((f"{path}{name}", f"{new}{name}", part))
        else:
            found += keys_of(part, names, f"{path}{name}.", f"{new}{names.get((path, name), name)}.")
    return found


def sites(tree: dict, path: str = "") -> list[tuple[str, tuple[str, ...]]]:
    """List every module with the names of its submodules."""
    inner = tuple(name for name, part in tree.items() if not isinstance(part, Leaf))
    return [(path, inner), *(site for name in inner for site in sites(tree[name], f"{path}{name}."))]


def made(seed: int, leaf: Leaf) -> np.ndarray:
    if leaf.content == CONSTANT:
        return np.full(leaf.shape, float(seed % 2), np.float32)
    return np.random.default_rng(seed).standard_normal(leaf.shape).astype(np.float32)


def converted(key: str, value: np.ndarray, change: str, seed: int) -> dict[str, np.ndarray]:
    """Return what the other side has of a tensor."""
    if change == "transposed" and value.ndim == 2:
        return {key: value.T.copy()}
    if change == "split" and value.shape[0] == 12:
        home, _, name = key.rpartition(".")
        return {f"{home}.{part}.{name}".lstrip("."): value[4 * at : 4 * at + 4].copy() for at, part in enumerate("abc")}
    if change == "shuffled":
        return {key: value[np.random.default_rng(seed).permutation(value.shape[0])].copy()}
    return {key: value.copy()}


def stored(arrays: dict[str, np.ndarray]) -> dict[str, StoredTensor]:
    return {key: StoredTensor.of(str(value.dtype), value.shape, value.tobytes()) for key, value in arrays.items()}


@st.composite
def renamings(draw: st.DrawFn) -> tuple[dict, dict[tuple[str, str], str]]:
    tree = draw(trees.filter(lambda tree: not any(isinstance(part, Leaf) for part in tree.values())))
    names = {}
    for path, inner in sites(tree):
        kinds = [("kept", inner), ("new", OTHERS)]
        if all(leaf.content == GENERIC for key, _, leaf in keys_of(tree, {}) if key.startswith(path)):
            kinds.append(("mixed up", WORDS))  # numbers show it; where nothing does, names are taken at their word
        kind, targets = draw(st.sampled_from(kinds))
        targets = targets if kind == "kept" else draw(st.permutations(targets))
        names |= {(path, name): target for name, target in zip(inner, targets)}
    return tree, names


def truth(tree: dict, names: dict[tuple[str, str], str], distinct: bool) -> tuple[dict, dict, dict[str, set[str]]]:
    """Return A and B, and of every key of A those of B; with `distinct` no two tensors hold the same numbers."""
    a, b, pairs = {}, {}, {}
    leaves_of = keys_of(tree, names)
    moved = (GENERIC, "shuffled")
    shuffled = {key: leaf.shape[0] for key, _, leaf in leaves_of if (leaf.content, leaf.change) == moved}
    for seed, (key, new, leaf) in enumerate(leaves_of):
        is_plain = leaf.content == CONSTANT and (leaf.change == "shuffled" or leaf.shape[0] == leaf.shape[-1])
        change = "same" if is_plain else leaf.change  # nothing could tell that what is constant was moved
        home, _, name = key.rpartition(".")
        if name == "bias" and leaf.content == CONSTANT and shuffled.get(f"{home}.weight") == leaf.shape[0]:
            change = "shuffled"  # what is added to rows goes with them
        a[key] = made(seed, Leaf(leaf.shape, GENERIC if distinct else leaf.content, change))
        b |= (parts := converted(new, a[key], change, zlib.crc32(home.encode())))
        pairs[key] = set(parts)
    return a, b, pairs


@settings(max_examples=40, deadline=None)
@given(renamings())
def test_what_the_same_weights_say_is_never_wrong(drawn) -> None:
    """Rules are right by the numbers that they would move, also for tensors whose own numbers tell nothing."""
    tree, names = drawn
    a, b, pairs = truth(tree, names, distinct=False)
    told, expected, _ = truth(tree, names, distinct=True)
    for link in suggest(stored(a), stored(b)).findings.links:
        assert set(link.rule.targets) <= set().union(*(pairs[key] for key in link.rule.sources)), link
        for key, tensor in zip(link.rule.targets, applied(link.rule, [stored(told)[key] for key in link.rule.sources])):
            assert tensor.data() == expected[key].tobytes(), link


@settings(max_examples=20, deadline=None)
@given(renamings())
def test_all_that_numbers_tell_is_found(drawn) -> None:
    """Where every tensor has numbers of its own, nothing that one rule can say is open."""
    tree, names = drawn
    a, b, _ = truth(tree, names, distinct=True)
    assert suggest(stored(a), stored(b)).is_complete

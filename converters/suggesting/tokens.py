"""What a key says: its words, the numbers behind them, and what stands around it in the tree of modules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from converters.suggesting.tensors import Side, ancestors

Token = tuple[str, ...]
#: Kinds of tokens, the first element of each.
WORD, NUMBER, STRUCTURE, PLACE, FLOW = "word", "number", "structure", "place", "flow"
_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SHORT = 4  # letters up to which a word is taken as it is


def words(text: str) -> tuple[str, ...]:
    """Take a part of a key apart into words, in lower case and without the s of a plural, and numbers."""
    return tuple(map(_single, _PIECES.findall(text)))


def _single(word: str) -> str:
    word = word.lower()
    if len(word) > _SHORT and word.endswith(("ches", "shes", "xes", "sses")):
        return word.removesuffix("es")
    is_plural = len(word) > _SHORT and word.endswith("s") and not word.endswith("ss")
    return word.removesuffix("s") if is_plural else word


def tokens(side: Side, key: str) -> frozenset[Token]:
    """Return what a key says: words, words with the number behind them, and sizes of tensors around it."""
    said: set[Token] = set()
    before = ""  # what a number stands behind: a word, or the segments in front of one that is a number itself
    for segment in key.split("."):
        if segment.isdecimal():
            said.add((NUMBER, before, segment))
            before = f"{before} *"  # its own number is told by itself
            continue
        pieces = words(segment)
        for at, piece in enumerate(pieces):
            if not piece.isdecimal():
                said.add((WORD, piece))
            elif at:
                said.add((NUMBER, pieces[at - 1], piece))
        before = " ".join("*" if piece.isdecimal() else piece for piece in pieces)
    said |= {(STRUCTURE, side.signatures[path]) for path in ancestors(key)}
    return frozenset(said)


def numbering(side: Side, key: str) -> tuple[str, ...]:
    """Return the numbers of the blocks that a key is in: of items of lists that hold several modules each."""
    segments = key.split(".")
    return tuple(
        segment
        for at, segment in enumerate(segments)
        if segment.isdecimal() and side.has_parts(".".join(segments[: at + 1]))
    )


def digits(key: str) -> tuple[str, tuple[str, ...]]:
    """Return a key without the numbers within its words, such as the 2 of `norm2`, and these numbers."""
    segments = key.split(".")
    bare = ".".join(segment if segment.isdecimal() else re.sub(r"\d+", "#", segment) for segment in segments)
    found = (re.findall(r"\d+", segment) for segment in segments if not segment.isdecimal())
    return bare, tuple(number for numbers in found for number in numbers)


def usable(a: Iterable[frozenset[Token]], b: Iterable[frozenset[Token]]) -> frozenset[Token]:
    """Return the tokens that tell keys apart alike on both sides: as many keys of one side have them as of the other.

    Numbers behind a word tell nothing unless all of them agree: of six layers and seven it is not known which is new.
    """
    a, b = list(a), list(b)
    of_a, of_b = (Counter(token for said in side for token in said) for side in (a, b))
    agreeing = {token for token in of_a if of_a[token] == of_b[token] and not of_a[token] == len(a) == len(b)}
    differing = {token[1] for token in of_a | of_b if token[0] == NUMBER and of_a[token] != of_b[token]}
    return frozenset(token for token in agreeing if token[0] != NUMBER or token[1] not in differing)


def shared_words(a: str, b: str) -> list[str]:
    """Return the words of the modules of two keys that both have, in the order of the first."""
    one, other = (
        {
            _single(piece): piece.lower()
            for segment in key.split(".")[:-1] or [key]
            for piece in _PIECES.findall(segment)
        }
        for key in (a, b)
    )
    return [shown for word, shown in one.items() if word in other and not word.isdecimal()]


def is_within(a: str, b: str) -> bool:
    """Tell whether the modules of one key are called as those of the other, but for words that the other has more."""
    one, other = ([piece for segment in key.split(".")[:-1] or [key] for piece in words(segment)] for key in (a, b))
    few, many = sorted((Counter(one), Counter(other)), key=Counter.total)
    return bool(few) and few <= many

"""Tell quickly whether a large tensor still has the bytes that it had before.

A module's input is mostly another one's output: most of what is recorded was recorded already, and to find that out
must not cost as much as a cryptographic hash. Nor can it be taken on trust: that a tensor is the same object, unchanged
by torch's own count, says nothing of writes through ``.data`` or by foreign code. A fingerprint is a keyed universal
hash: the bytes are taken as rows of 64-bit words and each row is multiplied by a vector of random words, modulo 2^64;
once more from four bytes later on, because differences in the upper bits of words only could vanish in such a product.
Two contents, whatever they are, have the same fingerprint with a probability below 2^-32, mostly far below. The key is
drawn anew in every process.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
import torch

_WORDS = 1 << 13  # of a row; the key stays in a core's cache
_SHIFT = 4

#: The numbers of a fingerprint's parts; together they are the fingerprint.
PARTS = (0, 1)


class Fingerprints:
    """Make fingerprints under one key."""

    def __init__(self) -> None:
        self._keys = [_random_words() for _ in PARTS]

    def part(self, number: int, data: memoryview) -> bytes:
        """Return one part of the fingerprint of ``data``; parts are independent, for threads of their own."""
        count = max(0, len(data) - _SHIFT) // (8 * _WORDS) * _WORDS
        part = hashlib.sha256(data[8 * count :])
        if count:
            words = torch.from_numpy(np.frombuffer(data, np.int64, count, _SHIFT * number))
            part.update(torch.mv(words.view(-1, _WORDS), self._keys[number]).numpy().tobytes())
        return part.digest()


def _random_words() -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(os.urandom(8 * _WORDS), np.int64).copy())

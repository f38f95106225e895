"""Tell quickly whether the bytes of a large tensor were seen before in this process.

A module's input is mostly another one's output: most of what is recorded was recorded already, and finding that out
must not cost as much as a cryptographic hash. A fingerprint is a keyed universal hash: the bytes are taken as rows of
64-bit words and each row is multiplied by a vector of random words, modulo 2^64; once more four bytes later, because
differences in the upper bits of words only could vanish in such a product. Two contents, whatever they are, have the
same fingerprint with a probability below 2^-32, mostly far below. The key is drawn anew in every process.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Executor

import numpy as np
import torch

_WORDS = 1 << 13  # of a row; the key stays in a core's cache
_SHIFT = 4


class Fingerprints:
    """Make fingerprints under one key.

    Args:
        helper: runs half of the work.
    """

    def __init__(self, helper: Executor) -> None:
        self._helper = helper
        self._keys = [_random_words() for _ in range(2)]

    def of(self, data: memoryview) -> bytes:
        """Return the fingerprint of ``data``."""
        count = max(0, len(data) - _SHIFT) // (8 * _WORDS) * _WORDS
        fingerprint = hashlib.sha256(data[8 * count :])
        if count:
            shifted = self._helper.submit(_products, data, _SHIFT, count, self._keys[1])
            fingerprint.update(_products(data, 0, count, self._keys[0]))
            fingerprint.update(shifted.result())
        return fingerprint.digest()


def _random_words() -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(os.urandom(8 * _WORDS), np.int64).copy())


def _products(data: memoryview, offset: int, count: int, key: torch.Tensor) -> bytes:
    words = torch.from_numpy(np.frombuffer(data, np.int64, count, offset))
    return torch.mv(words.view(-1, _WORDS), key).numpy().tobytes()

"""Random numbers and the order of data of a whole training as functions of seed and step, the same on both sides.

A training that is stopped goes on with the numbers it would have had, though code bases save no random states; and a
port draws what its legacy twin draws, as long as it asks for the same.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any, Callable, Iterator, List, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

#: Of a key: draws of the model, not of the images, whose keys have three numbers more.
MODEL = 1


def seed_all(*key: int) -> None:
    """Seed Python's, numpy's and torch's generators, those of GPUs included, as a function of whole numbers."""
    words = hashlib.sha256(repr(key).encode()).digest()
    random.seed(words[:8])
    np.random.seed(np.frombuffer(words[8:24], np.uint32))
    torch.manual_seed(int.from_bytes(words[24:31], "big"))


class Place(NamedTuple):
    """Which image to load, and what seeds its augmentation.

    Attributes:
        index: in the data set.
        key: whole numbers.
    """

    index: int
    key: tuple


class PlacedImages:
    """A data set whose images are augmented as their place in the training says."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __getitem__(self, place: Place) -> Any:
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            seed_all(*place.key)
            return self.wrapped[place.index]
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])

    def __len__(self) -> int:
        return len(self.wrapped)


class PlacedBatches:
    """The batches of a code base's own sampler from any place of a pass on.

    Args:
        batches: its batch sampler.
        seed: of the augmentation.
        place: returns passes and batches that lie behind the training when a pass begins.
    """

    def __init__(self, batches: Any, seed: int, place: Callable[[], "tuple[int, int]"]) -> None:
        self.batches, self.seed, self.place = batches, seed, place

    def __iter__(self) -> Iterator[List[Place]]:
        epoch, behind = self.place()
        if hasattr(self.batches.sampler, "set_epoch"):
            self.batches.sampler.set_epoch(epoch)
        for number, indices in enumerate(self.batches):
            if number >= behind:
                yield [Place(index, (self.seed, epoch, number, i)) for i, index in enumerate(indices)]

    def __len__(self) -> int:
        return len(self.batches)


class Stream:
    """Stand in for the endless iterator of a loop over steps: give the next step's batch, again until that is done.

    Args:
        loader: the code base's own, whose order of batches is kept.
        seed: of the augmentation.
        behind: returns how many steps lie behind the training.
    """

    def __init__(self, loader: DataLoader, seed: int, behind: Callable[[], int]) -> None:
        self._behind, self._length = behind, len(loader)
        self.loader = placed(loader, seed, lambda: divmod(behind(), self._length))
        self._at, self._batch, self._iterator = -1, None, iter(())

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Any:
        step = self._behind()
        if step != self._at:
            if self._at < 0 or step % self._length == 0:
                self._iterator = iter(self.loader)
            self._at, self._batch = step, next(self._iterator)
        return self._batch


def placed(loader: DataLoader, seed: int, place: Callable[[], "tuple[int, int]"]) -> DataLoader:
    """Return a loader of the same batches in the same order, augmented as :class:`PlacedImages` says.

    Args:
        loader: with a batch sampler that has a ``sampler``.
        seed: see :class:`PlacedBatches`, like the next one.
        place: see there.
    """
    workers = dict(prefetch_factor=loader.prefetch_factor) if loader.num_workers else {}
    return DataLoader(
        PlacedImages(loader.dataset),
        batch_sampler=PlacedBatches(loader.batch_sampler, seed, place),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        generator=torch.Generator(),  # the global one belongs to the model
        **workers,
    )

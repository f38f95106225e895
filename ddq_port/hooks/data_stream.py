"""Training data as a function of seed, epoch and position in the epoch.

mmengine's data depends on more: workers draw from generators that live as long as they do, and prefetch batches that
are trained on later. Here order and content of the batches draw from streams of their own, so that a training can go on
at any place of an epoch, with any number of workers, and without loading the images of the batches before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, DataLoader

from . import random_state

_ORDER, _SAMPLE = 0, 1  # what a stream of draws is for


class PlacedBatch(NamedTuple):
    """What a worker is told to load.

    Attributes:
        key: seeds the draws of the batch.
        indices: of the images in the data set.
    """

    key: tuple[int, ...]
    indices: list[int]


class SeededDataset:
    """A data set whose images are loaded and augmented with draws that depend on their place in the training only.

    Everything else is that of ``wrapped``; hooks may read and set its attributes here.
    """

    def __init__(self, wrapped: Any) -> None:
        object.__setattr__(self, "wrapped", wrapped)

    def __getitems__(self, batch: PlacedBatch) -> list[Any]:
        """Load a batch; torch's DataLoader calls this with what its batch sampler yielded."""
        items = []
        with random_state.kept():
            for number, index in enumerate(batch.indices):
                random_state.seed_cpu(*batch.key, number)
                items.append(self.wrapped[index])
        return items

    def __len__(self) -> int:
        return len(self.wrapped)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "wrapped":
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.wrapped, name, value)


class BatchOrder:
    """A batch sampler that knows where in the training it is, and can begin anywhere.

    Args:
        batches: mmengine's or mmdet's batch sampler, not yet iterated.
        seed: of order and augmentation, at least 0.
        rank: of this process; ranks draw different augmentations.

    Attributes:
        epoch: passes through the data before this one.
        position: batches of this pass that have been trained on; the hook counts.
        skip: batches that the next iteration leaves out.
    """

    def __init__(self, batches: Any, seed: int, rank: int) -> None:
        self.batches, self.seed, self.rank = batches, seed, rank
        self.epoch = self.position = self.skip = 0

    def begin(self, epoch: int, position: int = 0) -> None:
        """Let the next iteration be that of ``epoch``, without its first ``position`` batches."""
        self.epoch, self.position, self.skip = epoch, position, position

    def __iter__(self) -> Iterator[PlacedBatch]:
        place = (self.seed, self.rank, self.epoch)
        for number, indices in enumerate(random_state.PrivateStream(self.batches, *place, _ORDER)):
            if self.skip > 0:
                self.skip -= 1
            else:
                yield PlacedBatch((*place, _SAMPLE, number), indices)

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def sampler(self) -> Any:
        """The sampler of single images, of which mmengine's ``DistSamplerSeedHook`` sets the epoch."""
        return self.batches.sampler

    @property
    def batch_size(self) -> int:
        """Images per batch and rank."""
        return self.batches.batch_size

    @property
    def drop_last(self) -> bool:
        """Whether an incomplete last batch is left out."""
        return self.batches.drop_last


class EndlessBatches:
    """Stand in for the iterator of mmengine's ``IterBasedTrainLoop``: pass after pass through the data.

    Args:
        loader: of :func:`seeded_loader`.
        order: its batch sampler.
        calls: how many calls yield None and cost nothing; mmengine's loop makes as many to reach the place where a
            training goes on, which ``order`` has reached already.
    """

    def __init__(self, loader: DataLoader, order: BatchOrder, calls: int) -> None:
        self._loader, self._order, self._calls = loader, order, calls
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> EndlessBatches:
        return self

    def __next__(self) -> Any:
        if self._calls > 0:
            self._calls -= 1
            return None
        if self._iterator is None:
            self._begin_pass()
        while True:
            for batch in self._iterator:
                self._empty = False
                return batch
            left = self._order.skip
            if self._empty and left == self._to_skip:
                raise StopIteration
            self._order.begin(self._order.epoch + 1, left)
            self._begin_pass()

    def _begin_pass(self) -> None:
        self._empty, self._to_skip = True, self._order.skip
        if hasattr(self._order.sampler, "set_epoch"):
            self._order.sampler.set_epoch(self._order.epoch)
        self._iterator = iter(self._loader)


def sampler_of(loader: DataLoader) -> Any:
    """Return the sampler of single images of any loader that mmengine built."""
    return getattr(loader.batch_sampler, "sampler", loader.sampler)


def seeded_loader(loader: DataLoader, cfg: dict, sampler_seed: int, seed: int, rank: int) -> DataLoader:
    """Build a loader like ``loader`` whose data depend on seed and place only.

    Samplers are built anew: mmengine's loop for iterations has begun to iterate the first ones, and some keep state.

    Args:
        loader: the one that mmengine built of ``cfg``.
        cfg: the config ``train_dataloader``.
        sampler_seed: given to the sampler, unless ``cfg`` sets one.
        seed: of augmentation and of samplers that draw from the global generators, at least 0.
        rank: of this process.

    Returns:
        A loader whose ``batch_sampler`` is a :class:`BatchOrder`.
    """
    sampler = DATA_SAMPLERS.build(dict(cfg["sampler"]), default_args=dict(dataset=loader.dataset, seed=sampler_seed))
    if cfg.get("batch_sampler") is None:
        batches = BatchSampler(sampler, loader.batch_size, loader.drop_last)
    else:
        defaults = dict(sampler=sampler, batch_size=cfg["batch_size"])
        batches = DATA_SAMPLERS.build(dict(cfg["batch_sampler"]), default_args=defaults)
    return DataLoader(
        SeededDataset(loader.dataset),
        batch_sampler=BatchOrder(batches, seed, rank),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        # torch draws the seed of its workers from this one; the global generator belongs to the model
        generator=torch.Generator(),
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        pin_memory_device=loader.pin_memory_device,
    )

"""Tell the places of a batch where there is an image from those that are padding, as far as a family names a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from legacy_adapters.correspondence import Padding
from legacy_adapters.recording.trace_writer import Record

from ..traces.kinds import FLOW, OF_MODULES, Kind
from ..traces.pieces import Numbers, array, pieces
from ..traces.trace import Trace

#: Tells where a record holds images, as :meth:`Images.places` does.
PlacesOf = Callable[[Record], Tensor | None]
#: Of a padding: phase and content of a mask, and its shape.
_Mask = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True)
class Part:
    """The elements of a tensor at some of its places, to be read in pieces as :class:`.pieces.Stored` is.

    Attributes:
        numbers: the tensor, [*places.shape, ...].
        places: True where its elements are taken.
    """

    numbers: Numbers
    places: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.numbers.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (int(self.places.sum()) * self._at_a_place,)

    @property
    def _at_a_place(self) -> int:
        return torch.Size(tuple(self.numbers.shape)[self.places.dim() :]).numel()

    def pieces(self) -> Iterator[Tensor]:
        """Yield the elements flat, those of each piece of the tensor together."""
        places, each, start = self.places.reshape(-1).numpy(), self._at_a_place, 0
        for piece in pieces(self.numbers):
            stop = start + len(piece)
            first, last = start // each, (stop - 1) // each + 1
            begins = np.repeat(places[first:last], each)[start - first * each :]
            yield torch.from_numpy(array(piece)[begins[: len(piece)]])
            start = stop


class Images:
    """Looks up where the tensors of a recording hold images.

    Args:
        legacy: of the legacy side, in the new side's form.
        paddings: of the family.
    """

    def __init__(self, legacy: Trace, paddings: Sequence[Padding]) -> None:
        self._legacy, self._paddings = legacy, paddings
        self._masks = [list(self._masks_of(padding)) for padding in paddings]
        self._known: dict[str, Tensor] = {}

    def places(self, record: Record) -> Tensor | None:
        """Return where a record holds images: True at such places, in the shape of the record's first dimensions.

        These are those of its mask, or those with channels behind the first, as feature maps have them. None if no
        padding covers the record, no mask is laid out like it, several are, or nothing is padding.
        """
        if record.kind not in OF_MODULES | FLOW or not record.is_float:
            return None
        first, channels, *rest = *record.shape, 0, 0
        map_shape = (first, *rest[:-2])
        for padding, masks in zip(self._paddings, self._masks):
            if padding.covers(record):
                own = {mask for mask in masks if mask[0] == record.phase}
                fitting = {mask for mask in own if record.shape[: len(mask[2])] == mask[2]}
                of_maps = {mask for mask in own if len(mask[2]) > 1 and map_shape == mask[2]}
                if len(fitting | of_maps) == 1:
                    images = self._images((fitting | of_maps).pop())
                    if not bool(images.all()):
                        return images if fitting else images[:, None].expand(first, channels, *rest[:-2])
        return None

    def _masks_of(self, padding: Padding) -> Iterator[_Mask]:
        for record in self._legacy.records:
            if record.kind == Kind.MODULE_IN and record.dtype == "BOOL" and padding.tells(record):
                yield record.phase, record.digest, tuple(record.shape)

    def _images(self, mask: _Mask) -> Tensor:
        if mask[1] not in self._known:
            record = next(record for record in self._legacy.records if record.digest == mask[1])
            self._known[mask[1]] = ~self._legacy.checked_tensor(record)
        return self._known[mask[1]]

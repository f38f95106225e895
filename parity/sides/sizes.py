"""The image sizes of the batches of a run. Imports the standard library only: options are checked without torch."""

from __future__ import annotations

from collections.abc import Sequence

SIDES = (32, 8192)  # least and most pixels of an image's side
_TOKEN = 8  # pixels of a side that a token of the finest level covers, at four levels
_FEWEST_SIZES = 8  # that a side takes in a run, at least, before they come again


def varied(sizes: Sequence[tuple[int, int]], number: int) -> tuple[tuple[int, int], ...]:
    """Return the image sizes of a batch of a run: inference has number 0, the training pass 1, step n has 1 + n.

    Batch 0 has the sizes asked for. Each further one has them a little smaller, and every other one transposed: so
    a size that code keeps from an earlier batch is wrong in the next, of the batch as of each image. Widths lose
    less than heights by 8 pixels or more, the side of a token at the finest of four levels, so that a square is
    none any more and turning it shows. Widths lose 8 pixels at most, of batches above 400 pixels 2 % of the
    longest side; the number of tokens stays about that asked for, and there are never more pixels. Where an image
    would get too small, all grow instead.

    Args:
        sizes: (h, w) asked for.
        number: of the batch.
    """
    if number == 0:
        return tuple(sizes)
    room = max(_FEWEST_SIZES, max(max(size) for size in sizes) // 50)
    rounds, place = divmod(number - 1, room)
    right = 1 + place
    down = right + _TOKEN + rounds % _TOKEN
    sign = 1 if min(min(size) for size in sizes) < SIDES[0] + room + 2 * _TOKEN else -1
    changed = [(h + sign * down, w + sign * right) for h, w in sizes]
    return tuple((w, h) if number % 2 else (h, w) for h, w in changed)

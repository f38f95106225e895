"""Where to write the labels of boxes in a picture so that none lies over another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

#: left, top, right, bottom in pixels, downwards.
Box = tuple[float, float, float, float]
#: Red, green, blue of the classes, in turn; easy to tell apart, also for people who see few colours (after Okabe, Ito).
COLORS = (
    (86, 180, 233), (230, 159, 0), (0, 190, 140), (240, 228, 66), (204, 121, 167), (130, 150, 255), (213, 120, 60),
    (170, 220, 120),
)  # fmt: skip


def color_of(label: int) -> tuple[int, int, int]:
    """Return red, green, blue of a class; of more classes than there are colours some have the same."""
    return COLORS[label % len(COLORS)]


def placed(
    boxes: Sequence[Box], sizes: Sequence[tuple[float, float]], canvas: tuple[float, float]
) -> list[tuple[float, float] | None]:
    """Place a label at every box, as near as it can be without covering another label.

    Args:
        boxes: whose labels these are, the most important first.
        sizes: (width, height) of each label in pixels.
        canvas: (width, height) that labels stay in.

    Returns:
        (left, top) of each label; None for one that finds no place.
    """
    taken: list[Box] = []
    found: list[tuple[float, float] | None] = []
    for box, size in zip(boxes, sizes):
        place = next((spot for spot in _spots(box, size, canvas) if _is_free(spot, size, taken)), None)
        found.append(place)
        if place is not None:
            taken.append((*place, place[0] + size[0], place[1] + size[1]))
    return found


def _spots(box: Box, size: tuple[float, float], canvas: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Yield places of a label, the best first: on top of its box, under it, within it, then ever farther away."""
    (left, top, right, bottom), (width, height), (most_x, most_y) = box, size, canvas
    right, bottom = right - width, bottom - height
    corners = [(left, top - height), (right, top - height), (left, bottom + height), (right, bottom + height)]
    corners += [(left, top), (right, top), (left, bottom), (right, bottom)]
    if width > most_x or height > most_y:
        return
    for x, y in corners:
        spot = min(max(x, 0.0), most_x - width), min(max(y, 0.0), most_y - height)
        if abs(spot[1] - y) < height:  # not where the border of the picture pushes it away from its box
            yield spot
    rows = [row * height for row in range(int(most_y // height))]
    columns = [column * width / 4 for column in range(int(4 * (most_x - width) / width) + 1)]
    grid = [(x, y) for y in rows for x in columns]
    yield from sorted(grid, key=lambda spot: abs(spot[0] - left) + abs(spot[1] - top))


def _is_free(spot: tuple[float, float], size: tuple[float, float], taken: Sequence[Box]) -> bool:
    left, top, right, bottom = *spot, spot[0] + size[0], spot[1] + size[1]
    return all(right <= one[0] or left >= one[2] or bottom <= one[1] or top >= one[3] for one in taken)

"""Option types of ``ddq-parity``."""

from __future__ import annotations

from typing import Any

import click

CHECKS = ("forward", "loss", "grad")
_SMALLEST_SIDE, _LARGEST_SIDE = 32, 8192


class SizeList(click.ParamType):
    """Image sizes as ``HxW,HxW``; gives a tuple of (h, w)."""

    name = "HxW,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        return tuple(self._size(item, param, ctx) for item in value.lower().split(","))

    def _size(self, item: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        height, cross, width = (part.strip() for part in item.partition("x"))
        if not (cross and height.isdigit() and width.isdigit()):
            self.fail(f"{item!r} is not a size; expected e.g. 480x640,384x512.", param, ctx)
        if not all(_SMALLEST_SIDE <= int(side) <= _LARGEST_SIDE for side in (height, width)):
            self.fail(f"{item!r} is not between {_SMALLEST_SIDE} and {_LARGEST_SIDE} pixels a side.", param, ctx)
        return int(height), int(width)


class CountList(click.ParamType):
    """Whole numbers from 0 on, with commas; gives a tuple."""

    name = "N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        items = [item.strip() for item in value.split(",")]
        wrong = [item for item in items if not item.isdigit()]
        if wrong:
            self.fail(f"{wrong[0]!r} is not a number of objects; expected e.g. 3,0.", param, ctx)
        return tuple(int(item) for item in items)


class CheckList(click.ParamType):
    """Some of forward, loss, grad, with commas; gives a tuple in this order."""

    name = "CHECK,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        asked = [item.strip() for item in value.split(",")]
        unknown = [item for item in asked if item not in CHECKS]
        if unknown:
            self.fail(f"{unknown[0]!r} is not a check; expected some of {', '.join(CHECKS)}.", param, ctx)
        return tuple(check for check in CHECKS if check in asked)


class Device(click.ParamType):
    """``cpu``, ``cuda`` or ``cuda:N``."""

    name = "DEVICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kind, colon, index = value.partition(":")
        if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and index.isdigit())):
            self.fail(f"{value!r} is not a device; expected cpu, cuda or cuda:N.", param, ctx)
        return value

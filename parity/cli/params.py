"""Option types of ``ddq-parity``."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import click

from ..sides.sizes import SIDES

#: ULPs by which scores of DDQ-DETR's decoder differed at most between AVX512 and plain kernels, seeded weights, in
#: round numbers: 860 at tiny width, 2000 at full width. Where the first queries are selected it was 10 to 25.
AT_RISK_ULPS = 1024.0
_DIGITS = (12, 64)  # of a digest, fewest and most


class _CommaList(click.ParamType):
    """Items with commas between them; gives a tuple."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        return tuple(self.item(text.strip(), param, ctx) for text in value.split(","))

    @abstractmethod
    def item(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of one item, or fail."""


class SizeList(_CommaList):
    """Image sizes as ``HxW,HxW``; gives a tuple of (h, w)."""

    name = "HxW,..."

    def item(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        height, cross, width = (part.strip() for part in text.lower().partition("x"))
        if not (cross and height.isdigit() and width.isdigit()):
            self.fail(f"{text!r} is not a size; expected e.g. 480x640,384x512.", param, ctx)
        if not all(SIDES[0] <= int(side) <= SIDES[1] for side in (height, width)):
            self.fail(f"{text!r} is not between {SIDES[0]} and {SIDES[1]} pixels a side.", param, ctx)
        return int(height), int(width)


class CountList(_CommaList):
    """Whole numbers from 0 on."""

    name = "N,..."

    def item(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not text.isdigit():
            self.fail(f"{text!r} is not a number of objects; expected e.g. 3,0.", param, ctx)
        return int(text)


class Digest(click.ParamType):
    """A SHA-256 in hexadecimal digits, or how it begins."""

    name = "DIGEST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip().lower()
        if not (_DIGITS[0] <= len(text) <= _DIGITS[1] and set(text) <= set("0123456789abcdef")):
            self.fail(f"{value!r} is not {_DIGITS[0]} to {_DIGITS[1]} hexadecimal digits.", param, ctx)
        return text


class CheckList(_CommaList):
    """Some of ``checks``; gives them in this order."""

    name = "CHECK,..."

    def __init__(self, checks: tuple[str, ...]) -> None:
        self.checks = checks

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        asked = super().convert(value, param, ctx)
        return tuple(check for check in self.checks if check in asked)

    def item(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if text not in self.checks:
            self.fail(f"{text!r} is not a check; expected some of {', '.join(self.checks)}.", param, ctx)
        return text


class Device(click.ParamType):
    """``cpu``, ``cuda`` or ``cuda:N``."""

    name = "DEVICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kind, colon, index = value.partition(":")
        if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and index.isdigit())):
            self.fail(f"{value!r} is not a device; expected cpu, cuda or cuda:N.", param, ctx)
        return value


class Positive(click.FloatRange):
    """A number above 0; NaN, which passes a range of click's, is none."""

    name = "number"

    def __init__(self, most: float | None = None) -> None:
        super().__init__(min=0, max=most, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number above 0.", param, ctx)
        return number


class NotNegative(click.FloatRange):
    """A number from 0 on; NaN, which passes a range of click's, is none, nor is infinity if it is to be finite."""

    name = "number"

    def __init__(self, finite: bool = True) -> None:
        super().__init__(min=0)
        self.finite = finite

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number) or (self.finite and math.isinf(number)):
            self.fail(f"{value!r} is not a number from 0 on.", param, ctx)
        return number


class NamePair(click.ParamType):
    """Two names as ``B_NAME=A_NAME``; gives a tuple."""

    name = "B_NAME=A_NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        one, equals, two = (part.strip() for part in value.partition("="))
        if not (one and equals and two):
            self.fail(f"{value!r} is not a pair of names; expected e.g. loss_giou=loss_iou.", param, ctx)
        return one, two

"""Packages that a core install of this toolkit lacks, and how they are installed."""

from __future__ import annotations

from typing import Iterator, Optional

#: What mmdet needs to be imported, in the order they import each other.
MMDET = ("mmcv", "mmengine", "mmdet")
#: All that the extra `mmdet` brings, by the names under which they are imported; mmcv comes with `lite` and `mmcv`.
OF_EXTRAS = (*MMDET, "matplotlib", "PIL", "pycocotools")
EXTRAS = "`pip install 'ddq-port[lite]'` (mmcv without compiled operators) or `pip install 'ddq-port[mmcv]'`"


def missing(error: BaseException) -> Optional[str]:
    """Return the package whose absence an error, or one that caused it, is about; None if it is about something else.

    Of an installed package that lacks a module, nothing is said to be absent.
    """
    for one in _with_causes(error):
        if isinstance(one, ModuleNotFoundError) and one.name and "." not in one.name:
            return one.name
    return None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen = set()
    one: Optional[BaseException] = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__

"""Look at one image: its header as Pillow reads it, its pixels as the loader of the training returns them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddq_port.data.findings import is_number

_LARGE_PIXELS = 60_000_000  # from here on an image is decoded alone
_COSTLY_PIXELS = 100_000_000  # from here on it is told: 0.3 GB per copy
OPENCV_LIMIT = int(os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", 1 << 30))  # pixels; more it refuses at once
_DARK = 32  # of 256 levels; below, an image is looked at once more as it is stored
_ORIENTATION = 274  # EXIF tag; 1 is upright, from 5 on width and height change places
_TIFF_SIZE = (256, 257)  # tags of width and height
_DAMAGE = re.compile(r"premature end|corrupt|truncated|incomplete", re.IGNORECASE)
_HARMLESS = re.compile(r"extraneous bytes", re.IGNORECASE)
_BRANDS = dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "HEIC") | {b"avif": "AVIF"}
_LOG_PREFIX = re.compile(r"^\[[^]]*\]\s*global\s+\S+\s*")


@dataclass(frozen=True)
class Image:
    """An image of a data set.

    Attributes:
        key: its id.
        path: its file.
        size: width and height as the annotations say, whatever is written there.
        objects: whether it has any.
    """

    key: Any
    path: Path
    size: tuple[Any, Any]
    objects: bool


@dataclass(frozen=True)
class Remark:
    """Something about an image.

    Attributes:
        kind: a key of ``findings.KINDS``.
        text: what was found.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Attributes:
        form: name of the format, such as JPEG.
        mode: how Pillow calls the kind of pixels.
        size: width and height in pixels, as stored.
        orientation: of its EXIF data; 1 without them.
    """

    form: str
    mode: str
    size: tuple[int, int]
    orientation: int


def read_header(path: Path) -> Header | None:
    """Read an image's header with Pillow; None for what Pillow does not know."""
    from PIL import Image as Pillow

    try:
        with warnings.catch_warnings(action="ignore"), _without_limit(), Pillow.open(path) as opened:
            return Header(str(opened.format), opened.mode, _stored_size(opened), _orientation(opened, path))
    except Exception:  # Pillow's plugins raise what they like on damaged files
        return None


def _stored_size(opened: Any) -> tuple[int, int]:
    """Return width and height as stored; of a TIFF, Pillow itself gives those of the turned image."""
    width, height = (getattr(opened, "tag_v2", {}).get(tag) for tag in _TIFF_SIZE)
    return (width, height) if isinstance(width, int) and isinstance(height, int) else opened.size


def _orientation(opened: Any, path: Path) -> int:
    """Return the orientation of an image's EXIF data, without decoding the image."""
    from PIL import Image as Pillow

    try:
        if opened.format != "PNG":
            return int(opened.getexif().get(_ORIENTATION, 1))
        exif = Pillow.Exif()  # Pillow itself would decode the image to look behind it
        exif.load(_exif_of_png(path))
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data, of which loaders take no notice
        return 1


def _exif_of_png(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return file.read(length)
            file.seek(length + 4, os.SEEK_CUR)
    return b""


class _without_limit:
    """Let Pillow open headers of any size: nothing is decoded here."""

    def __enter__(self) -> None:
        from PIL import Image as Pillow

        self._limit, Pillow.MAX_IMAGE_PIXELS = Pillow.MAX_IMAGE_PIXELS, None

    def __exit__(self, *error: object) -> None:
        from PIL import Image as Pillow

        Pillow.MAX_IMAGE_PIXELS = self._limit


def size_of(path: Path) -> tuple[int, int] | None:
    """Return width and height of an image file as stored; None if they cannot be read."""
    header = read_header(path)
    return header and header.size


def examine(
    image: Image, loader: Callable[[dict[str, Any]], Mapping[str, Any] | None], decode: bool, large: bool
) -> tuple[Remark, ...] | None:
    """Say what is wrong with an image; stderr must be a file, which is read for messages of the decoder.

    Args:
        image: whose file is there.
        loader: of the training.
        decode: whether to load it. An image that is turned by its EXIF data is loaded anyway: whether the loader turns
            it depends on the format and on OpenCV's version.
        large: whether it may have any size.

    Returns:
        None for an image that is too large to be decoded beside others.
    """
    header = read_header(image.path)
    if not decode and header is not None and header.orientation == 1:
        return tuple(_size_remarks(image, header.size, header))
    pixels = header.size[0] * header.size[1] if header else 0
    if pixels > _LARGE_PIXELS and not large:
        return None
    return tuple(_load(image, loader, header, pixels))


def _load(image: Image, loader: Callable, header: Header | None, pixels: int) -> Iterator[Remark]:
    before = os.fstat(2).st_size
    try:
        array = (loader({"img_path": str(image.path)}) or {}).get("img")
        failure = "the loader returns nothing"
    except MemoryError:
        array, failure = None, "not enough memory to decode it"
    except Exception as error:  # whatever the loader raises ends a training
        array, failure = None, str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    said = _messages(before)
    if array is None:
        yield Remark("unreadable-image", _why_unreadable(image.path, header, said, failure))
        return
    damage = next((line for line in said if _DAMAGE.search(line) and not _HARMLESS.search(line)), None)
    if damage:
        yield Remark("damaged-image", damage)
    if pixels > _COSTLY_PIXELS:
        gigabytes = array.nbytes / 1e9
        yield Remark("large-image", f"{array.shape[1]} x {array.shape[0]} pixels, {gigabytes:.1f} GB for each copy")
    yield from _size_remarks(image, array.shape[1::-1], header)
    if pixels <= _LARGE_PIXELS:
        yield from _value_remarks(image, array)
    if header and header.orientation > 1 and _is_turned(image.path, array):
        yield Remark("turned-image", f"EXIF orientation {header.orientation}")


def _messages(before: int) -> list[str]:
    """Return what came to stderr meanwhile, in lines."""
    size = os.fstat(2).st_size
    text = os.pread(2, min(size - before, 10_000), before).decode(errors="replace") if size > before else ""
    return [_LOG_PREFIX.sub("", line).strip() for line in text.splitlines() if line.strip()]


def _why_unreadable(path: Path, header: Header | None, said: list[str], failure: str) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        return f"it cannot be opened: {error.strerror}"
    if not start:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the image; fetch that with `git lfs pull`"
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page, as servers send one instead of an image; download it again"
    reason = f" ({said[0][:150]})" if said else ""
    if header and header.size[0] * header.size[1] > OPENCV_LIMIT:
        has, most = header.size[0] * header.size[1] / 1e6, OPENCV_LIMIT / 1e6
        return f"it has {has:.0f} million pixels, OpenCV reads up to {most:.0f} million; make it smaller"
    form = next((name for brand, name in _BRANDS.items() if start[4:12] == b"ftyp" + brand), None)
    if header is None and form is not None:
        return f"it is a file in {form} format, which the loader cannot read; convert it to an 8-bit PNG or JPEG"
    if header is None:
        return f"this is not an image that the loader knows: {failure}{reason}"
    if _is_truncated(path):
        return f"the {header.form} file ends too early or is damaged; get it again{reason}"
    kind = f"a {header.form} file of {header.size[0]} x {header.size[1]} pixels, mode {header.mode}"
    return f"it is {kind}, which the loader cannot read; convert it to an 8-bit PNG or JPEG{reason or f' ({failure})'}"


def _is_truncated(path: Path) -> bool:
    from PIL import Image as Pillow

    if os.path.getsize(path) > 200_000_000:
        return False
    try:
        with warnings.catch_warnings(action="ignore"), Pillow.open(path) as opened:
            opened.load()
    except Pillow.DecompressionBombError:
        return False
    except Exception:  # Pillow's plugins raise what they like on damaged files
        return True
    return path.suffix.lower() in (".jpg", ".jpeg") and b"\xff\xd9" not in path.read_bytes()[-64:]


def _size_remarks(image: Image, size: tuple[int, int], header: Header | None) -> Iterator[Remark]:
    if image.size == tuple(size) or not all(map(is_number, image.size)):
        return
    turned = header is not None and header.orientation > 4
    how = ""
    if image.size == tuple(size[::-1]):
        how = ", width and height are exchanged"
        if turned and header is not None and header.size == image.size:
            how = ": the loader turns the image as its EXIF data say"
        elif turned:
            how = ": the loader does not turn the image as its EXIF data say"
    elif turned and header is not None and header.size != tuple(size):
        how = " after turning it as its EXIF data say"
    stated = " x ".join("nothing" if side is None else repr(side) for side in image.size)
    yield Remark("image-size", f"the annotations say {stated}, the file has {size[0]} x {size[1]}{how}")


def _value_remarks(image: Image, array: Any) -> Iterator[Remark]:
    import cv2
    import numpy as np

    brightest = array.max()
    if brightest < _DARK:
        stored = cv2.imdecode(np.fromfile(image.path, np.uint8), cv2.IMREAD_UNCHANGED)
        if stored is not None and stored.dtype != np.uint8 and stored.max() > brightest:
            kind = f"its {stored.dtype} values reach up to {stored.max():.5g}"
            if brightest == 0:
                yield Remark("values-lost", f"{kind}, the loader makes 0 of all of them")
            else:
                yield Remark("dark-image", f"{kind}, the loader makes {brightest} of 255 of that")
            return
    if image.objects and array.min() == brightest:
        yield Remark("blank-image", f"all of them {brightest}")


def _is_turned(path: Path, array: Any) -> bool:
    """Tell whether the loader has turned an image."""
    import cv2
    import numpy as np

    stored = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return stored is not None and (stored.shape != array.shape or not np.array_equal(stored, array))

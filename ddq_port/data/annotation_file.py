"""Read an annotation file as the trainer does: opened as text, parsed as JSON."""

from __future__ import annotations

import codecs
import json
import locale
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddq_port.data import foreign
from ddq_port.data.findings import FIX, Collector, kind_of

#: Byte order marks, those of 32 bits first, for they begin like those of 16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_TRAILING_COMMA = re.compile(r",\s*[}\]]")
_NO_TEXT = (
    (b"\x1f\x8b", "a file compressed by gzip; unpack it with gunzip"),
    (b"PK\x03\x04", "a zip archive; unpack it with unzip"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file; fetch that with `git lfs pull`"),
    (b"\x89PNG", "an image; the annotation file comes first, the folder of images with --images"),
    (b"\xff\xd8\xff", "an image; the annotation file comes first, the folder of images with --images"),
)


@dataclass(frozen=True)
class Decoded:
    """The text of an annotation file.

    Attributes:
        text: without byte order mark.
        encoding: what it is in, as Python names it.
        trouble: why the trainer cannot read it or reads other letters; empty if it reads just this.
        certain: whether the encoding is known and not guessed.
    """

    text: str
    encoding: str
    trouble: str = ""
    certain: bool = True


def decode(path: Path) -> Decoded:
    """Read a file's text, and say what the trainer, which opens it in the encoding of the environment, makes of it.

    Raises:
        OSError: if it cannot be read.
    """
    raw = path.read_bytes()
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            name = "UTF-8 with a byte order mark" if encoding == "utf-8-sig" else encoding.upper()
            text = raw.decode(encoding, "replace")
            return Decoded(text, encoding, f"the file is {name}; mmdet reads plain UTF-8. {FIX.format(ann_file=path)}")
    if b"\x00" in raw[:100]:  # which UTF-8 allows and JSON does not
        return _of_two_bytes(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _of_one_byte(raw, error)
    return Decoded(text, "utf-8", "" if _as_trainer(path) in (text, None) else _locale_trouble())


def _of_two_bytes(raw: bytes) -> Decoded:
    wide = "utf-16-le" if raw[1:2] == b"\x00" else "utf-16-be"
    return Decoded(
        raw.decode(wide, "replace"),
        wide,
        f"the file looks like {wide.upper()}; mmdet reads UTF-8. `iconv -f {wide} -t utf-8 OLD > NEW` converts it",
        certain=False,
    )


def _of_one_byte(raw: bytes, error: UnicodeDecodeError) -> Decoded:
    line, column = raw.count(b"\n", 0, error.start) + 1, error.start - raw.rfind(b"\n", 0, error.start)
    trouble = (
        f"byte 0x{raw[error.start]:02x} in line {line}, column {column} is not UTF-8, which mmdet reads; if the file "
        "is Latin-1 (Windows), `iconv -f cp1252 -t utf-8 OLD > NEW` converts it"
    )
    return Decoded(raw.decode("latin-1"), "latin-1", trouble, certain=False)


def _as_trainer(path: Path) -> str | None:
    """Return the text as pycocotools opens it; None if that is UTF-8, which was tried already."""
    if codecs.lookup(locale.getpreferredencoding(False)).name == "utf-8":
        return None
    try:
        with open(path, newline="") as file:
            return file.read()
    except UnicodeDecodeError:
        return ""


def _locale_trouble() -> str:
    return (
        f"the file is UTF-8, but in this environment mmdet opens files as {locale.getpreferredencoding(False)}; "
        "set PYTHONUTF8=1 or LC_ALL=C.UTF-8"
    )


def load(path: Path, found: Collector) -> dict[str, Any] | None:
    """Return the content of an annotation file; None if there is none, which `found` tells then.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(64)
    for magic, what in _NO_TEXT:
        if head.startswith(magic):
            found.add("unreadable", "", f"this is not JSON but {what}")
            return None
    decoded = decode(path)
    if decoded.trouble:
        found.add("encoding", "", decoded.trouble)
    try:
        content = json.loads(decoded.text)
    except json.JSONDecodeError as error:
        found.add("unreadable", f"line {error.lineno}, column {error.colno}", _no_json(decoded.text, error))
    except (ValueError, RecursionError) as error:  # a number of more digits than Python reads, lists in lists
        found.add("unreadable", "", f"this is not JSON: {error}")
    else:
        form = foreign.json_form(content)
        if form is None and isinstance(content, dict):
            return content
        expected = "expected an object with images, annotations and categories"
        found.add("unreadable", "", f"{expected}, found {kind_of(content)}" if form is None else f"{expected}; {form}")
    return None


def _no_json(text: str, error: json.JSONDecodeError) -> str:
    start = text.lstrip()[:200].lower()
    if start.startswith(("<!doctype html", "<html")):
        return "this is not JSON but a web page, as servers send one instead of a file; download the file again"
    if not start:
        return f"this is not JSON: {error.msg}; the file is empty"
    if _TRAILING_COMMA.match(text, text.rfind(",", 0, error.pos + 1)):
        return f"this is not JSON: {error.msg}; remove the comma before the closing bracket"
    last = len(text.rstrip()) - 1
    if error.pos > last or error.msg.startswith("Unterminated") or error.pos == last and text[last] not in "}]":
        return f"this is not JSON: {error.msg}; the file ends too early, copy or download it again"
    if error.msg == "Extra data":
        return f"this is not JSON: {error.msg}; expected one object, found another value behind the first"
    return f"this is not JSON: {error.msg}"

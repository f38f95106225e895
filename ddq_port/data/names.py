"""Find out why a file that the annotations name is not in the folder."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

_MOST_FILES = 1_000_000


class ImageFolder:
    """A folder of images, listed when a file is missing for the first time.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def same_name(self, name: str) -> str | None:
        """Return the one file whose name differs in spelling only: slashes, upper and lower case, accents composed."""
        found = self._by_spelling.get(_spelling(name), [])
        return found[0] if len(found) == 1 else None

    def hint(self, name: str) -> str:
        """Say what may be meant by the name of a file that is not there; empty if nothing is known."""
        path = os.path.join(self.path, name)
        if "\0" in name or os.path.lexists(path):
            return (
                "; it is a folder"
                if os.path.isdir(path)
                else "; it is a link to nothing"
                if os.path.islink(path)
                else ""
            )
        same = self.same_name(name)
        if same is not None:
            return f"; the folder has `{same}`: {_difference(name, same)}"
        if not self._files:
            return "; the folder is empty"
        elsewhere = self._by_last_part.get(_spelling(name).rpartition("/")[2], [])
        if elsewhere:
            return f"; the folder has `{elsewhere[0]}`, names must be relative to it"
        stem = _spelling(name).rpartition("/")[2].rpartition(".")[0] or _spelling(name)
        other = self._by_stem.get(stem, [])
        return f"; the folder has `{other[0]}`" if other else ""

    @cached_property
    def _files(self) -> list[str]:
        return list(itertools.islice(_walk(self.path), _MOST_FILES))

    @cached_property
    def _by_spelling(self) -> dict[str, list[str]]:
        return _grouped((_spelling(file), file) for file in self._files)

    @cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        return _grouped((_spelling(file).rpartition("/")[2], file) for file in self._files)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped((_spelling(file).rpartition("/")[2].rpartition(".")[0], file) for file in self._files)


def _walk(folder: Path) -> Iterator[str]:
    for root, _, names in os.walk(folder):
        inside = os.path.relpath(root, folder)
        for name in sorted(names):
            yield name if inside == "." else f"{inside}/{name}"


def _grouped(pairs: Iterator[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key, file in pairs:
        groups[key].append(file)
    return groups


def _spelling(name: str) -> str:
    return os.path.normpath(unicodedata.normalize("NFC", name.strip()).replace("\\", "/")).casefold()


def _difference(name: str, same: str) -> str:
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", same):
        return "accents are written in another way (Unicode NFC and NFD)"
    if name.replace("\\", "/") == same:
        return "write / for \\"
    if name.casefold() == same.casefold():
        return "upper and lower case differ"
    return "the spelling differs"

"""The configs that come with MMDetection 2.x, each carried over to 3.x."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.configs.kinds import Translation
from converters.configs.source import source
from converters.configs.zoo import Case, Entry, NarrowError

from ..migration.migration import translated
from ..migration.reading import read
from . import listing
from .narrowing import FACTOR, narrowed, spelled_out


class MMDet2Zoo:
    """See :class:`converters.configs.zoo.Zoo`."""

    #: The larger image gives whole numbers of cells to pyramids of up to 128 pixels a cell, and enough of them to SSD.
    sizes = (((64, 96), (80, 64)), ((384, 384),))
    undoing = Path(__file__).parents[1] / "as_2x.py"

    deviations = "docs/deviations.md"
    of_rounding = ("D29", "D30", "D32")

    def shown(self, numbers: Sequence[str], checks: Sequence[str], is_exact: bool) -> tuple[str, ...]:
        """Return the deviations that can show, see :meth:`converters.configs.zoo.Zoo.shown`."""
        hidden = () if {"loss", "grad"} & set(checks) else ("D30", "D32")  # of training
        hidden += ("D29",) if is_exact else ()  # a division and a multiplication by powers of two are the same
        return tuple(one for one in numbers if one not in hidden) or tuple(numbers)

    def entries(self, repo: Path, is_wanted: Callable[[str], bool]) -> tuple[Entry, ...]:
        """Return the configs of the code base in a folder, see :func:`.listing.entries`."""
        return listing.entries(repo, is_wanted)

    def case(self, repo: Path, name: str, folder: Path, narrow: bool) -> Case:
        """Write both configs of a model into a folder; what is written for 3.x is what `ddq-convert config` writes.

        Raises:
            FamilyError: if the config cannot be read.
            NarrowError: if the model cannot be made narrow.
        """
        old = _without_weights(read(str(listing.folder_of(repo) / name), "2.x"))
        full = made = translated(old)
        if narrow:
            whole = dict(old, model=spelled_out(old["model"]))
            old = dict(whole, model=narrowed(whole["model"]))
            full, made = translated(whole), translated(old)
            _check_alike(full, made)
        paths = folder / "old.py", folder / "new.py"
        for path, config in zip(paths, (old, made.config)):
            path.write_text(source(f"Made of {name}.", config, {}), "utf-8")
        return Case(*paths, full, 1 / FACTOR if narrow else 1.0)


def _check_alike(full: Translation, narrow: Translation) -> None:
    """Refuse a narrow model that is translated otherwise than the whole one.

    Raises:
        NarrowError: naming the first setting that is more than narrow.
    """
    wide, small = (dict(_settings(made.config["model"], "model")) for made in (full, narrow))
    for path in dict.fromkeys((*wide, *small)):
        if wide.get(path) != small.get(path):
            if path not in wide or path not in small or wide[path] != FACTOR * small[path]:
                raise NarrowError(f"`{path}` becomes another one in a narrow model")


def _settings(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _settings(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _settings(item, f"{path}.{number}")
    else:
        yield path, value


def _without_weights(old: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config that asks for no weights: neither side loads any but those that both are given."""
    model = {name: None if name == "teacher_ckpt" else value for name, value in old["model"].items()}
    rest = {name: value for name, value in old.items() if name not in ("load_from", "resume_from")}
    return dict(rest, model=model)


ZOO = MMDet2Zoo()

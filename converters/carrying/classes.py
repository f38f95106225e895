"""Other classes, for fine-tuning: rows of class branches and label embeddings are picked from the source, or new.

New rows have the same bits on every machine: they are made of Python's `random` (whose numbers are promised for good)
and of single additions, multiplications, divisions and square roots, which IEEE 754 rounds alike everywhere.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import random
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from converters.errors import ClassMapError, ConversionError, listed, one_line
from converters.formats.stored import StoredTensor
from converters.reading.checkpoint import CLASS_META
from converters.rules.class_rows import ClassRows, held
from legacy_adapters.family import NORMAL, NORMAL_0001, NORMAL_001, PRIOR, ZERO

MOST_CLASSES = 100_000
_PRIOR_BIAS = -4.59511985013459  # the logit of a score of 0.01, at which every branch starts
_CONSTANT = {PRIOR: _PRIOR_BIAS, ZERO: 0.0}
_DEVIATION = {NORMAL: 1.0, NORMAL_001: 0.01, NORMAL_0001: 0.001}
_FORMATS = {"float64": "d", "float32": "f", "float16": "e"}
_EXAMPLE = '{"cat": "cat", "my new class": null}'


@dataclass(frozen=True)
class Selection:
    """Which classes the output has, and where their rows come from.

    Attributes:
        rows: For each class its row in the source; None where it is initialised.
        names: The names of the classes; None where they are unknown.
        source_classes: How many classes the source has.
        seed: Of the rows that are initialised.
    """

    rows: tuple[int | None, ...]
    names: tuple[str, ...] | None
    source_classes: int
    seed: int

    @property
    def changes_nothing(self) -> bool:
        """Tell whether every class keeps its row and no name changes."""
        return self.keeps_rows and self.names is None

    @property
    def keeps_rows(self) -> bool:
        """Tell whether the output has the source's rows, in their order."""
        return self.rows == tuple(range(self.source_classes))

    @property
    def initialised(self) -> int:
        """How many classes are initialised."""
        return self.rows.count(None)

    def describe(self) -> str:
        """Return the rows in words: `rows 0-79 of 80, 2 initialised with seed 0`."""
        numbered = [(row, -1 if row is None else row - at) for at, row in enumerate(self.rows)]
        parts = []
        for _, run in groupby(numbered, key=lambda pair: pair[1]):
            rows = [row for row, _ in run]
            if rows[0] is None:
                parts.append(f"{len(rows)} initialised")
            else:
                parts.append(f"{rows[0]}" if len(rows) == 1 else f"{rows[0]}-{rows[-1]}")
        seed = f", seed {self.seed}" if self.initialised else ""
        return f"rows {', '.join(parts)} of {self.source_classes}{seed}"


def read_map(path: str | Path) -> str:
    """Read a class map from a file and return its text, in the short form that `select` and the manifest take.

    Raises:
        ClassMapError: If it is no class map.
        OSError: If it cannot be read.
    """
    try:
        pairs = _pairs(Path(path).read_text(encoding="utf-8-sig"))
    except (ClassMapError, UnicodeDecodeError) as error:
        raise ClassMapError(f"Cannot take `{path}` as class map: {one_line(error)}.") from error
    return json.dumps(dict(pairs))


def select(
    num_classes: int, class_map: str | None, source_classes: int, source_names: tuple[str, ...] | None, seed: int
) -> Selection:
    """Work out where the rows of `num_classes` classes come from.

    Args:
        num_classes: Number of classes of the output, from 1 to `MOST_CLASSES`.
        class_map: Text of a JSON object: target class (index or name) to source class (index or name) or null for one
            that is initialised. Without it the source's rows are kept if the numbers agree; if not, all are new.
        source_classes: Number of classes of the source.
        source_names: Their names, as far as the source tells them.
        seed: Of the rows that are initialised.

    Raises:
        ClassMapError: If the map does not fit these numbers or names.
    """
    if not 1 <= num_classes <= MOST_CLASSES:
        raise ClassMapError(f"The number of classes is {num_classes}, expected 1 to {MOST_CLASSES}.")
    if class_map is None:
        kept = tuple(range(source_classes)) if num_classes == source_classes else (None,) * num_classes
        return Selection(kept, None, source_classes, seed)
    pairs = _pairs(class_map)
    names = None if all(_is_index(target) for target, _ in pairs) else tuple(target for target, _ in pairs)
    by_class = dict(pairs) if names is None else {str(at): source for at, (_, source) in enumerate(pairs)}
    missing = [at for at in range(num_classes) if str(at) not in by_class]
    if missing or len(by_class) != num_classes:
        what = f"lacks class {missing[0]}" if missing else f"has {len(by_class)} classes"
        raise ClassMapError(
            f"The class map {what}, expected {num_classes} (--num-classes); list every class once, null for a new one."
        )
    rows = tuple(_row(by_class[str(at)], source_classes, source_names) for at in range(num_classes))
    return Selection(rows, names, source_classes, seed)


def apply(
    state_dict: Mapping[str, StoredTensor], class_rows: Mapping[str, str], selection: Selection
) -> tuple[dict[str, StoredTensor], dict[str, tuple[str, ...]]]:
    """Give every tensor that has rows for classes those of a selection; the others are left as they are.

    New rows are what the model's own initialisation gives: weights of branches are uniform within 1 / sqrt(inputs), and
    the same for all branches, which the model copies from one; their biases are the logit of 0.01; label embeddings
    are normal. A new row depends on the seed and on the class, not on the other rows. Rows of no class, such as that of
    the background, are kept.

    Args:
        state_dict: The tensors by key, of either side.
        class_rows: Which tensors, see `ClassRows`, each with the way in which its rows are initialised.
        selection: The rows.

    Returns:
        The state dict, and for each key that was changed what was done, in words.

    Raises:
        ConversionError: If rows of a dtype other than float64, float32, float16 and bfloat16 are to be initialised.
        CheckpointError: If the source is damaged.
        OSError: If it cannot be read.
    """
    if selection.keeps_rows:
        return dict(state_dict), {}
    kinds = {ClassRows.of(text): kind for text, kind in class_rows.items()}
    forms = held(state_dict, class_rows)
    made = {key: _with_rows(key, state_dict[key], form, kinds[form], selection) for key, form in forms.items()}
    return {**state_dict, **made}, dict.fromkeys(made, (selection.describe(),))


def class_names(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the classes, in order, from a checkpoint's metadata; None where it tells none."""
    dataset = meta.get("dataset_meta")
    places = [(dataset if isinstance(dataset, Mapping) else {}, ("classes", "CLASSES")), (meta, ("CLASSES",))]
    found = [place[name] for place, names in places for name in names if name in place]
    for names in found:
        if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def with_names(meta: Mapping[str, Any], selection: Selection) -> dict[str, Any]:
    """Return metadata that name the classes of a selection; names and colours of the source's classes are left out."""
    if selection.changes_nothing:
        return dict(meta)
    kept = {name: value for name, value in meta.items() if name not in CLASS_META}
    return kept if selection.names is None else {**kept, "dataset_meta": {"classes": list(selection.names)}}


def _pairs(text: str) -> list[tuple[str, int | str | None]]:
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise ClassMapError(f"it is not JSON ({one_line(error)}), expected an object such as {_EXAMPLE}") from error
    if not text.lstrip().startswith("{") or not pairs:
        raise ClassMapError(f"it is not a JSON object with classes in it, expected one such as {_EXAMPLE}")
    repeated = sorted(target for target, times in Counter(target for target, _ in pairs).items() if times > 1)
    if repeated:
        raise ClassMapError(f"it names {listed(repeated)} more than once, expected every class once")
    for target, source in pairs:
        if source is not None and type(source) not in (int, str):
            raise ClassMapError(
                f"it gives class `{target}` {json.dumps(source)}, expected the index or name of a class of the source, "
                "or null"
            )
    return pairs


def _is_index(target: str) -> bool:
    return target.isascii() and target.isdigit() and len(target) < 10 and str(int(target)) == target


def _row(source: int | str | None, count: int, names: tuple[str, ...] | None) -> int | None:
    """Find the row of the source that an entry of the map means."""
    if source is None:
        return None
    if isinstance(source, int):
        if not 0 <= source < count:
            raise ClassMapError(f"The class map asks for class {source} of the source, which has 0 to {count - 1}.")
        return source
    if names is None or len(names) != count:
        told = "no class names" if names is None else f"{len(names)} class names for {count} classes"
        raise ClassMapError(f"The source has {told}, so `{source}` cannot be found; give indices in the class map.")
    if names.count(source) != 1:
        close = difflib.get_close_matches(source, names, 1) or names[:1]
        times = "no class" if source not in names else f"{names.count(source)} classes"
        raise ClassMapError(f"The source has {times} called `{source}`, expected one, such as `{close[0]}`.")
    return names.index(source)


def _with_rows(key: str, tensor: StoredTensor, form: ClassRows, kind: str, selection: Selection) -> StoredTensor:
    if selection.initialised and tensor.dtype not in (*_FORMATS, "bfloat16"):
        raise ConversionError(
            f"Key `{key}` has dtype {tensor.dtype}, whose rows cannot be initialised; pick every class from the source."
        )
    width = math.prod(tensor.shape[1:])
    size, data = width * tensor.itemsize * form.each, tensor.data()  # bytes of a class
    rows = [
        b"".join(
            _encoded(_new_row(kind, at * form.each + part, width, selection.seed), tensor.dtype)
            for part in range(form.each)
        )
        if row is None
        else data[row * size : (row + 1) * size]
        for at, row in enumerate(selection.rows)
    ]
    rows.append(data[selection.source_classes * size :])  # of no class
    return StoredTensor.of(tensor.dtype, (form.rows(len(selection.rows)), *tensor.shape[1:]), b"".join(rows))


@lru_cache(maxsize=1024)  # branches have the same new rows
def _new_row(kind: str, at: int, width: int, seed: int) -> tuple[float, ...]:
    """Make row number `at` of a tensor."""
    if kind in _CONSTANT:
        return (_CONSTANT[kind],) * width
    digest = hashlib.sha256(f"class row/{seed}/{kind}/{at}".encode()).digest()
    generator = random.Random(int.from_bytes(digest, "big"))
    if kind in _DEVIATION:
        return tuple(_DEVIATION[kind] * number for number in islice(_normals(generator), width))
    bound = 1.0 / math.sqrt(width)
    return tuple((2.0 * generator.random() - 1.0) * bound for _ in range(width))


def _normals(generator: random.Random) -> Iterator[float]:
    """Yield normal numbers of zero mean and unit variance, by Marsaglia's polar method."""
    while True:
        x, y = 2.0 * generator.random() - 1.0, 2.0 * generator.random() - 1.0
        square = x * x + y * y
        if 0.0 < square < 1.0:
            factor = math.sqrt(-2.0 * _log(square) / square)
            yield x * factor
            yield y * factor


def _log(x: float) -> float:
    """Return the natural logarithm from plain arithmetic: that of the C library has other last bits elsewhere."""
    mantissa, exponent = math.frexp(x)
    if mantissa < 0.7071067811865476:
        mantissa, exponent = 2.0 * mantissa, exponent - 1
    z = (mantissa - 1.0) / (mantissa + 1.0)  # at most 0.172, so that 10 terms are exact to a double
    total = 0.0
    for power in range(21, 0, -2):
        total = total * (z * z) + 1.0 / power
    return exponent * 0.6931471805599453 + 2.0 * z * total


def _encoded(numbers: tuple[float, ...], dtype: str) -> bytes:
    if dtype != "bfloat16":
        return struct.pack(f"<{len(numbers)}{_FORMATS[dtype]}", *numbers)
    wide = (struct.unpack("<I", struct.pack("<f", number))[0] for number in numbers)
    # half of what is cut off is added, ties to even; none of these numbers is near infinity
    return b"".join(struct.pack("<H", (bits + 0x7FFF + (bits >> 16 & 1)) >> 16) for bits in wide)

"""Compare `ddq-convert suggest` with weightbridge on pairs of layouts of which the truth is known.

    python -m benchmarks.suggest_peers [PAIR ...]

weightbridge (PyPI, 0.0.4 was measured) goes by names and shapes, and is told the formats of weights where they are
transposed. It must be installed by hand; without it its columns are empty.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable

from benchmarks.suggest_pairs import PAIRS, Pair, Score, State, score, stored
from converters.suggesting.suggestion import suggest

_KINDS: dict[str, Callable[[Pair], tuple[State, State]]] = {
    "same weights": Pair.same,
    "same weights, vectors as initialised": Pair.fresh,
    "other weights": Pair.other,
}
_FORMATS = {"transposed": ("pytorch", "flax")}  # what weightbridge has to be told
_HEADER = "| pair | tensors of B | same weights | vectors as initialised | other weights | weightbridge |"


def ours(pair: Pair, kind: str) -> tuple[Score, float]:
    """Return what `suggest` says of a pair, and the seconds it took."""
    a, b = _KINDS[kind](pair)
    begun = time.process_time()
    found = suggest(stored(a), stored(b)).findings
    return score(pair, found), time.process_time() - begun


def theirs(pair: Pair, formats: tuple[str, str] | None) -> tuple[Score, str]:
    """Return what weightbridge says of a pair, and with what it ended; pairs that it made before an error count.

    It says which tensor becomes which; whether that is so, the numbers of the result tell.
    """
    import numpy as np
    from weightbridge import matcher, state

    a, b = pair.a, pair.b
    seen: list[state.State] = []

    class Remembered(state.State):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            seen.append(self)

    options = {} if formats is None else {"in_format": formats[0], "out_format": formats[1]}
    ended = "done"
    original, matcher.State = matcher.State, Remembered
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            matcher.adapt(
                {key: value.numpy() for key, value in a.items()},
                {key: np.zeros(value.shape, value.numpy().dtype) for key, value in b.items()},
                ignore_unmatched_inputs=True, ignore_unmatched_outputs=True, **options,
            )  # fmt: skip
    except Exception as error:
        ended = f"{type(error).__name__}"
    finally:
        matcher.State = original
    right, wrong = set(), set()
    prefix = f"{matcher.LOAD_PREFIX}."
    for held in seen[0].out_values if seen else ():
        if held.other is None:
            continue
        key, source = held.name.removeprefix(prefix), held.other.name.removeprefix(prefix)
        try:
            made = seen[0].formatter.adapt_format(held.other.value, tuple(b[key].shape), source, key)
            is_right = np.array_equal(made, b[key].numpy())
        except Exception:
            is_right = False
        (right if is_right else wrong).add(key)
    return Score(len(right), len(wrong), len(b) - len(right) - len(wrong)), ended


def _text(found: Score) -> str:
    return f"{found.right} / {found.wrong} / {found.open}"


def main(names: list[str]) -> int:
    """Print the table; the exit code is 1 if anything of ours is wrong."""
    print("Tensors of B: right / wrong / left open.", end="\n\n")
    print(_HEADER)
    print("|---|---|---|---|---|---|")
    bad = 0
    for name in names or PAIRS:
        pair = PAIRS[name]()
        results = [ours(pair, kind)[0] for kind in _KINDS]
        bad += sum(found.wrong for found in results)
        try:
            found, ended = theirs(pair, _FORMATS.get(name))
            peer = _text(found) + ("" if ended == "done" else f" ({ended})")
        except ImportError:
            peer = ""
        print(f"| {pair.name} | {len(pair.b)} | {' | '.join(map(_text, results))} | {peer} |", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

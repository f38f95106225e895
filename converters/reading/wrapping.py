"""Find the state dict in what a file holds, whatever it is wrapped in: under which key, behind which prefix.

A state dict of a known family is told by the family's marker keys, so any prefix is found, and any key above it; of
several the one is taken that agrees best with a layout. Of other models the usual names decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from converters.errors import MalformedError, listed
from converters.formats.stand_ins import Foreign
from converters.formats.stored import StoredTensor
from converters.reading.averages import called_averaged
from converters.reading.nesting import Path, Tensors, at, dicts_in, flat_level, is_state_dict, kind, path_of, tensors_of
from converters.rules import detect

#: What torch's wrappers put between the names of modules: DistributedDataParallel, compile, FSDP, checkpointing.
SEGMENTS = frozenset(
    ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module")
)
_LOADED = ("state_dict",)  # where mmengine looks
_USUAL = ("state_dict", "model", "model_state_dict", "module", "net", "network", "weights", "params")
_BESIDE = ("n_averaged", "steps")  # a tensor of torch's or mmengine's averaged model that is no weight
_FLAT = "flat_param"  # what FSDP calls parameters that it has joined and cut


@dataclass(frozen=True)
class Wrapping:
    """What a state dict was wrapped in.

    Attributes:
        path: The keys above it; nothing if it is the top level itself.
        prefix: What its keys began with.
        names: For every key that had another name in the file: that name.
        total: How many keys there are.
        outside: How many keys of the same dict are left out, for they lack the prefix that was asked for.
    """

    path: Path = ()
    prefix: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    total: int = 0
    outside: int = 0

    @property
    def key(self) -> str:
        """The path as `--key` takes it."""
        return ".".join(self.path)

    @property
    def is_plain(self) -> bool:
        """Tell whether the state dict stands where mmengine looks, every key under its own name."""
        return self.path in ((), _LOADED) and not self.names and not self.outside

    def in_file(self, key: str) -> str:
        """Return a key of the state dict as it is in the file."""
        return self.names.get(key, key)

    def facts(self) -> list[str]:
        """Say in phrases where the state dict stands, and what its keys have more than a model's."""
        facts = [f"under `{self.key}`"] if self.path not in ((), _LOADED) else []
        begin = sum(key.startswith(self.prefix) for key in self.names.values()) if self.prefix else 0
        if begin:
            facts.append(f"{self._share(begin)} keys begin with `{self.prefix}`")
        within = [SEGMENTS.intersection(key.removeprefix(self.prefix).split(".")) for key in self.names.values()]
        if any(within):
            names, count = listed(sorted(set().union(*within))), self._share(sum(map(bool, within)))
            facts.append(f"{count} keys have {names} in them, from a wrapper of torch")
        return [*facts, *([f"{self.outside} keys do not begin so and are left out"] if self.outside else [])]

    def _share(self, count: int) -> str:
        return f"all {count}" if count == self.total else f"{count} of {self.total}"


@dataclass(frozen=True)
class Found:
    """A state dict by its bare keys, what stands beside it, and what was taken away.

    Attributes:
        tensors: The state dict.
        beside: The rest of the content; what stood beside the state dict within its wrapping is at the top level.
        outside: Tensors of the same dict without the prefix that was asked for, by their keys in the file.
        wrapping: How the state dict was wrapped.
    """

    tensors: Tensors
    beside: dict[Any, Any]
    outside: Tensors
    wrapping: Wrapping


def forms(key: str, prefix: str) -> set[str]:
    """Return what a key of a file may be called when a prefix, and what torch's wrappers add, is taken away."""
    pairs = ((key, prefix), (_clean(key), _clean(prefix)))
    return {name.removeprefix(begin) for name, begin in pairs if name.startswith(begin)}


def find(content: Any, key: str | None = None, prefix: str | None = None) -> Found:
    """Find the state dict.

    Args:
        content: What the file holds.
        key: The key that it stands under, dotted where keys are nested; empty for the top level. None finds it.
        prefix: What its keys begin with. None finds it.

    Raises:
        MalformedError: If there is none, or several fit alike.
    """
    if not isinstance(content, dict):
        raise MalformedError(f"its top level is {kind(content)}, not a dict; save the model's state_dict() alone")
    pure = {path: held for path, held in dicts_in(content) if is_state_dict(held)}
    if key is not None:
        path = path_of(content, key)
        if path is None:
            there = [".".join(path) for path in pure if path] or [str(name) for name in content]
            raise MalformedError(
                f"it holds no dict under `{key}`, the key that was asked for; there are {listed(there)}"
            )
        found = [(path, begin) for begin in _prefixes(at(content, path), prefix)]
    else:
        found = [
            (path, begin) for path, held in {**pure, **flat_level(content)}.items() for begin in _prefixes(held, prefix)
        ]
    path, begin = _best(content, found) if found else (_usual(content, pure) if key is None else path, prefix)
    held = at(content, path)
    tensors = tensors_of(held) if (path, begin) in found and path == () else _checked(held, path)
    if begin is None:
        begin = _common(tensors)
        split = _literal(tensors, begin)
    else:
        split = _split(tensors, begin)
    if prefix is not None and not split[0]:
        raise MalformedError(f"no key of its state dict begins with `{prefix}`; its keys are {listed(tensors)}")
    _refuse_parts(content, tensors)
    return _taken(content, path, tensors, split, begin, asked=prefix is not None)


def _clean(key: str) -> str:
    """Take out of a key what torch's wrappers add."""
    parts = key.split(".")
    return ".".join(part for part in parts if part not in SEGMENTS) if not SEGMENTS.isdisjoint(parts) else key


def _cleaning(keys: Mapping[str, object]) -> Callable[[str], str]:
    """Return `_clean`, or what does nothing where two keys would become the same."""
    return _clean if len(set(map(_clean, keys))) == len(keys) else str


def _prefixes(held: dict[Any, Any], prefix: str | None) -> list[str]:
    """Return each prefix behind which all markers of a family stand; of one that is asked for, that if keys have it."""
    keys = tensors_of(held)
    if prefix is not None:
        dotted = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
        fitting = [begin for begin in dict.fromkeys((dotted, prefix)) if _split(keys, begin)[0]]
        return fitting[:1]
    clean = _cleaning(keys)
    names = {clean(key) for key in keys}
    found = {begin: None for markers in detect.all_markers() for begin in _before(names, markers)}
    return [""] if "" in found else [begin for begin in found if not _is_averaged((begin,))] or list(found)


def _before(names: set[str], markers: tuple[str, ...]) -> list[str]:
    first, *others = markers
    begins = (name.removesuffix(first) for name in sorted(names) if name == first or name.endswith(f".{first}"))
    return [begin for begin in begins if all(f"{begin}{marker}" in names for marker in others)]


Split = tuple[dict[str, str], list[str]]


def _split(tensors: Mapping[str, object], prefix: str) -> Split:
    """Return the keys by their names without prefix and wrappers, and the keys that do not have the prefix."""
    clean = _cleaning(tensors)
    begin = clean(prefix)
    named = {clean(key)[len(begin) :]: key for key in tensors if clean(key).startswith(begin) and clean(key) != begin}
    inside = set(named.values())
    return named, [key for key in tensors if key not in inside]


def _literal(tensors: Mapping[str, object], prefix: str) -> Split:
    return {key.removeprefix(prefix): key for key in tensors}, []


def _common(tensors: Mapping[str, object]) -> str:
    """Return what torch's wrappers have put before every key of a model that is not known."""
    prefix = ""
    while True:
        first = next(iter(tensors)).removeprefix(prefix).partition(".")[0]
        longer = f"{prefix}{first}."
        if first not in SEGMENTS or not all(key.startswith(longer) and key != longer for key in tensors):
            return prefix
        prefix = longer


def _best(content: dict[Any, Any], found: list[tuple[Path, str]]) -> tuple[Path, str]:
    """Choose among the state dicts that may be meant.

    That under `state_dict` is the one that mmengine loads. Averaged ones stand back behind others.
    """
    loaded = [(path, begin) for path, begin in found if path == _LOADED]
    trained = [(path, begin) for path, begin in found if not _is_averaged(path)]
    left = loaded or trained or found
    if len(left) == 1:
        return left[0]
    scores = {choice: _agreement(content, *choice) for choice in left}
    best = [choice for choice in left if scores[choice] == max(scores.values())]
    different = {_identity(content, *choice): choice for choice in reversed(best)}
    if len(different) == 1:
        return best[0]
    paths = [f"--key {'.'.join(path)}" for path in dict.fromkeys(path for path, _ in best)]
    ways = paths if len(paths) > 1 else [f"--prefix {begin}" for _, begin in best]
    choice = " or ".join(ways)
    raise MalformedError(f"it holds {len(ways)} sets of weights that fit equally well; choose one with {choice}")


def _is_averaged(path: Path) -> bool:
    return any(called_averaged(part) for name in path for part in name.split("."))


def _agreement(content: dict[Any, Any], path: Path, prefix: str) -> float:
    tensors = tensors_of(at(content, path))
    return detect.agreement({name: tensors[key] for name, key in _split(tensors, prefix)[0].items()})


def _identity(content: dict[Any, Any], path: Path, prefix: str) -> frozenset[tuple[Any, ...]]:
    """Return what two sets have in common that are the same tensors."""
    tensors = tensors_of(at(content, path))
    names, _ = _split(tensors, prefix)
    return frozenset((name, id(tensors[key].storage), tensors[key].offset) for name, key in names.items())


def _usual(content: dict[Any, Any], pure: Mapping[Path, dict[Any, Any]]) -> Path:
    """Return where the state dict of a model stands that is not known, or where one should."""
    if () in pure:
        return ()
    usual = [(name,) for name in _USUAL if (name,) in pure]
    others = [path for path in pure if not _is_averaged(path)] or list(pure)
    if usual or len(others) == 1:
        return (usual or others)[0]
    if others:
        ways = [f"--key {'.'.join(path)}" for path in others[:4]]
        raise MalformedError(
            f"it holds {len(others)} state dicts, and none is of a known family; choose one with {' or '.join(ways)}"
        )
    if "ds_version" in content:
        raise MalformedError(
            "it is a part of DeepSpeed's state of the optimizer and holds no state dict; the script zero_to_fp32.py "
            "in the folder above collects the weights: `python zero_to_fp32.py . OUT`"
        )
    near = [name for name in _USUAL if isinstance(content.get(name), dict)]
    return (near[0],) if near else ()


def _checked(held: dict[Any, Any], path: Path) -> Tensors:
    where = f"`{'.'.join(path)}`" if path else "its top level"
    if not held:
        raise MalformedError(f"{where} holds no tensors")
    for key, value in held.items():
        if isinstance(value, Foreign) and value.args is not None and not path and key in _USUAL:
            raise MalformedError(
                f"its `{key}` is a whole object made by {value.name}, which is not run; save its state_dict() alone"
            )
        if not isinstance(key, str) or not isinstance(value, StoredTensor):
            what = (
                f"`{key}` is {kind(value)}, not a plain tensor"
                if isinstance(key, str)
                else f"its key {key!r} is not text"
            )
            looked = f"looked for a dict of tensors under {', '.join(_USUAL[:3])} and every other key; --key names one"
            is_elsewhere = not path or isinstance(value, dict)
            raise MalformedError(f"{where} is not a state dict: {what}{f' ({looked})' if is_elsewhere else ''}")
    return held


def _refuse_parts(content: dict[Any, Any], tensors: Tensors) -> None:
    """Refuse one process's part of a training in which each process has a part of every weight."""
    flat = next((key for key in tensors if _FLAT in key.rpartition(".")[2]), None)
    if flat is not None:
        raise MalformedError(
            f"its `{flat}` is one process's part of the weights, as FSDP cuts them; save them whole, with "
            "get_model_state_dict of torch.distributed.checkpoint.state_dict and full_state_dict=True"
        )
    empty = sum(tensor.numel() == 0 for tensor in tensors.values())
    if "ds_version" in content and 2 * empty > len(tensors):
        raise MalformedError(
            f"{empty} of its {len(tensors)} tensors are empty, as DeepSpeed saves them with ZeRO 3; the script "
            "zero_to_fp32.py in the folder above collects the weights: `python zero_to_fp32.py . OUT`"
        )


def _taken(content: dict[Any, Any], path: Path, tensors: Tensors, split: Split, prefix: str, asked: bool) -> Found:
    counters = tensors.keys() & set(_BESIDE)
    names = {name: key for name, key in split[0].items() if key not in counters}
    without = set(split[1]) - counters
    if not asked:
        again = sorted(without & names.keys())
        if again:
            raise MalformedError(
                f"{len(again)} keys stand in it twice, with a prefix and without: {listed(again)}; choose with --prefix"
            )
        names |= {key: key for key in tensors if key in without}
    bare = {name: tensors[key] for name, key in names.items()}
    changed = {name: key for name, key in names.items() if name != key}
    begins = {key.removesuffix(name) if key.endswith(name) else None for name, key in changed.items()}
    literal = next(iter(begins)) if len(begins) == 1 else None
    left = {(f"{key} (outside)" if key in bare else key): key for key in tensors if asked and key in without}
    outside = {name: tensors[key] for name, key in left.items()}
    changed |= {name: key for name, key in left.items() if name != key}
    beside = _beside(content, path) | {key: tensors[key] for key in sorted(counters)}
    return Found(bare, beside, outside, Wrapping(path, literal or prefix, changed, len(bare), len(outside)))


def _beside(content: dict[Any, Any], path: Path) -> dict[Any, Any]:
    """Return all but the state dict, in one dict: what stood beside it within its wrapping, and what without."""
    beside: dict[Any, Any] = {}
    for depth in range(len(path), 0, -1):
        level = at(content, path[: depth - 1])
        for name, value in level.items():
            if name != path[depth - 1]:
                beside[name if name not in beside else f"outer {name}"] = value
    if path:
        return beside
    return {name: value for name, value in content.items() if not isinstance(value, StoredTensor)}

"""Dicts in dicts: walk what a checkpoint holds, and say what a thing in it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from converters.formats.stand_ins import Foreign, NumpyArray
from converters.formats.stored import StoredTensor

_NO_WEIGHTS = ("optim", "meta", "message_hub", "param_sched", "lr_sched", "scheduler", "scaler", "rng", "random")
_DEEPEST, _MOST_DICTS, _MOST_KEYS = 4, 200, 500_000  # that are searched; a pickle of a few bytes can mean more
_REBUILT = {  # by what torch makes other than plain tensors
    "_rebuild_sparse_tensor": "a sparse tensor (to_dense() makes a plain one)",
    "_rebuild_sparse_csr_tensor": "a sparse tensor (to_dense() makes a plain one)",
    "_rebuild_qtensor": "a quantised tensor (dequantize() makes a plain one)",
    "_rebuild_meta_tensor_no_storage": "a tensor of the device meta, which has no values",
}
Path = tuple[str, ...]
Tensors = dict[str, StoredTensor]


def kind(value: Any) -> str:
    """Say what stands where a tensor or a dict is expected."""
    if isinstance(value, NumpyArray):
        return "an array of numpy (torch.from_numpy makes a tensor of it)"
    if isinstance(value, StoredTensor):
        return "a single tensor"
    if not isinstance(value, Foreign):
        return f"of type {type(value).__name__}"
    if value.name == "torch.Tensor":
        return "a tensor to be conjugated or negated, or of an unknown dtype"
    if value.name.endswith(("ShardedTensor", "DTensor")):
        return (
            f"one process's part of a tensor ({value.name}); save it whole, with get_model_state_dict of "
            "torch.distributed.checkpoint.state_dict and full_state_dict=True"
        )
    return _REBUILT.get(value.name.rpartition(".")[2], f"made by {value.name}")


def dicts_in(content: dict[Any, Any]) -> Iterator[tuple[Path, dict[Any, Any]]]:
    """Yield the dicts in which a state dict may be looked for, the outer ones first, each once."""
    waiting: list[tuple[Path, dict[Any, Any]]] = [((), content)]
    seen, keys = {id(content)}, 0
    for path, held in waiting:
        keys += len(held)
        if keys > _MOST_KEYS:
            return
        yield path, held
        for name, value in held.items() if len(path) < _DEEPEST else ():
            # a dict under "" has no path that --key or a manifest could name
            skipped = not isinstance(name, str) or not name or name.lower().startswith(_NO_WEIGHTS)
            if isinstance(value, dict) and not skipped and id(value) not in seen and len(waiting) < _MOST_DICTS:
                seen.add(id(value))
                waiting.append(((*path, name), value))


def is_state_dict(held: dict[Any, Any]) -> bool:
    """Tell whether a dict holds tensors under text, and nothing else."""
    return bool(held) and all(isinstance(name, str) and isinstance(value, StoredTensor) for name, value in held.items())


def flat_level(content: dict[Any, Any]) -> dict[Path, dict[Any, Any]]:
    """Return the top level where tensors stand in it between other things, which are not called like tensors."""
    others = [name for name, value in content.items() if not isinstance(value, StoredTensor)]
    plain = len(others) < len(content) and not any(isinstance(name, str) and "." in name for name in others)
    return {(): content} if plain else {}


def tensors_of(held: dict[Any, Any]) -> Tensors:
    """Return what in a dict is a tensor under text."""
    return {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, StoredTensor)}


def at(content: dict[Any, Any], path: Path) -> dict[Any, Any]:
    """Return the dict at a path."""
    for name in path:
        content = content[name]
    return content


def path_of(content: dict[Any, Any], key: str) -> Path | None:
    """Return the path that a dotted key means; the names in it may hold dots, too."""
    if not key:
        return ()
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, dict) and (key == name or key.startswith(f"{name}.")):
            rest = path_of(value, key[len(name) + 1 :])
            if rest is not None:
                return (name, *rest)
    return None

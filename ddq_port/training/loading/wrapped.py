"""Where the weights of a model stand in a file that wraps them otherwise than mmengine expects."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOADED = ((), ("state_dict",))  # where mmengine looks
_DEEPEST = 4  # dicts within dicts that are searched
_TRIED = 20  # keys of the model by which a prefix is looked for


@dataclass(frozen=True)
class Place:
    """The keys above a state dict, and what its own keys begin with."""

    path: tuple[str, ...]
    prefix: str

    @property
    def key(self) -> str:
        """The path in one word, as `ddq-convert --key` takes it."""
        return ".".join(self.path)

    def told(self) -> str:
        """Say where the weights stand."""
        facts = [f"under `{self.key}`"] if self.path not in LOADED else []
        facts += [f"with `{self.prefix}` before every name"] if self.prefix else []
        return " ".join(facts)

    def command(self, file: Path, out: str = "NEW.pth") -> str:
        """Return a command line that saves them alone."""
        held = "".join(f"[{name!r}]" for name in self.path)
        names = f"k.removeprefix({self.prefix!r}): v for k, v in s{held}.items() if k.startswith({self.prefix!r})"
        load, module = f"torch.load({str(file)!r}, weights_only=True)", "torch"
        if file.suffix == ".safetensors":
            load, module = f"safetensors.torch.load_file({str(file)!r})", "safetensors.torch, torch"
        return f'python -c "import {module}; s = {load}; torch.save({{{names}}}, {out!r})"'


def place(content: Mapping[str, Any], wanted: Collection[str]) -> Place | None:
    """Find the dict, and the prefix in it, behind which most of the wanted keys are; None if it is under half of them.

    Where several have as many, it is the first of those that mmengine would look at, then the outermost.
    """
    found = [
        (hits, Place(path, prefix))
        for path, held in _dicts(content)
        for prefix in _prefixes(held, wanted)
        if (hits := sum(f"{prefix}{key}" in held for key in wanted)) > len(wanted) / 2
    ]
    return max(found, key=lambda pair: (pair[0], pair[1].path in LOADED), default=(0, None))[1]


def tensors(content: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the dict at a path."""
    for name in path:
        content = content[name]
    return content


def _dicts(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield every dict, the outer ones first, each once."""
    waiting: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), content)]
    seen = {id(content)}
    for path, held in waiting:
        yield path, held
        for name, value in held.items() if len(path) < _DEEPEST else ():
            if isinstance(name, str) and isinstance(value, Mapping) and id(value) not in seen:
                seen.add(id(value))
                waiting.append(((*path, name), value))


def _prefixes(held: Mapping[Any, Any], wanted: Collection[str]) -> list[str]:
    """Return what stands before some of the wanted keys."""
    some = [key for key, _ in zip(wanted, range(_TRIED))]
    names = [name for name in held if isinstance(name, str) and hasattr(held[name], "shape")]
    begins = (name.removesuffix(key) for key in some for name in names if name.endswith(key))
    return list(dict.fromkeys(begin for begin in begins if not begin or begin.endswith(".")))

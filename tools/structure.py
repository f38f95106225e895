"""Print the structure of a package: modules per folder, arrows between modules, circles, long files and functions.

    python -m tools.structure [PACKAGE ...]

An arrow is an import of one module of the package by another, counted once for each pair, wherever the import stands
(at the top, in a function, for type checking). ``from package import name`` counts for the module that defines the name.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
PACKAGES = ("parity", "converters", "ddq_port", "legacy_adapters")
LONGEST_FILE, MOST_MODULES = 400, 20


@dataclass(frozen=True)
class Structure:
    """What a package is made of.

    Attributes:
        folders: number of modules in each folder, ``__init__`` not counted.
        arrows: for each module those that it imports.
        circles: groups of modules that import each other, directly or by way of others.
        lines: of each module.
        functions: lines of each function, by ``module:function``.
    """

    folders: Mapping[str, int]
    arrows: Mapping[str, frozenset[str]]
    circles: tuple[tuple[str, ...], ...]
    lines: Mapping[str, int]
    functions: Mapping[str, int]


def structure(package: Path) -> Structure:
    """Read the modules of a package; nothing is imported."""
    trees = {_name(path, package): ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}
    files = {_name(path, package): path for path in sorted(package.rglob("*.py"))}
    arrows = {name: _imports(name, trees, files) for name in trees}
    folders: dict[str, int] = defaultdict(int)
    for path in files.values():
        folders[str(path.parent.relative_to(package.parent))] += path.name != "__init__.py"
    return Structure(
        folders=dict(folders),
        arrows=arrows,
        circles=tuple(sorted(_circles(arrows))),
        lines={name: len(path.read_text().splitlines()) for name, path in files.items()},
        functions={
            f"{name}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
            for name, tree in trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        },
    )


def _name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(name: str, trees: Mapping[str, ast.Module], files: Mapping[str, Path]) -> frozenset[str]:
    """Return the modules of the package that a module imports, itself not among them."""
    base = name if files[name].name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(trees[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in trees}
        elif isinstance(node, ast.ImportFrom):
            above = base.split(".")[: len(base.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            found |= {_defining(source, alias.name, trees) for alias in node.names if source in trees}
    return frozenset(found - {name})


def _defining(source: str, imported: str, trees: Mapping[str, ast.Module]) -> str:
    """Return the module that an imported name is, or the one that defines it, by way of modules that hand it on."""
    if f"{source}.{imported}" in trees:
        return f"{source}.{imported}"
    for node in trees[source].body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == imported:
                    above = source if node.level == 1 else ""
                    further = ".".join(part for part in (above, node.module) if part)
                    if further in trees and further != source:
                        return _defining(further, alias.name, trees)
    return source


def _circles(arrows: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, ...]]:
    """Yield the strongly connected groups of more than one module."""
    reached = {name: _reached(name, arrows) for name in arrows}
    left = set(arrows)
    for name in sorted(arrows):
        group = {other for other in reached[name] if name in reached[other]}
        if name in left and len(group) > 1:
            left -= group
            yield tuple(sorted(group))


def _reached(name: str, arrows: Mapping[str, frozenset[str]]) -> set[str]:
    reached, waiting = set(), [name]
    while waiting:
        for other in arrows[waiting.pop()] - reached:
            reached.add(other)
            waiting.append(other)
    return reached


def lines(found: Structure) -> Iterator[str]:
    """Yield a package's structure in lines."""
    arrows = sum(map(len, found.arrows.values()))
    yield f"modules {sum(found.folders.values())}, arrows {arrows}, circles {len(found.circles)}"
    for folder, number in sorted(found.folders.items()):
        yield f"  {folder:<40} {number:3}{'  too many' if number > MOST_MODULES else ''}"
    for circle in found.circles:
        yield f"  circle of {', '.join(circle)}"
    for name, number in sorted(found.lines.items()):
        if number > LONGEST_FILE:
            yield f"  {name} has {number} lines"
    longest = sorted(found.functions.items(), key=lambda item: -item[1])[:3]
    yield "  longest functions: " + ", ".join(f"{name} {number}" for name, number in longest)


@click.command()
@click.argument("packages", nargs=-1)
def main(packages: tuple[str, ...]) -> None:
    """Print the structure of PACKAGES."""
    for package in packages or PACKAGES:
        click.echo(f"{package}: " + "\n".join(lines(structure(ROOT / package))))


if __name__ == "__main__":
    main()

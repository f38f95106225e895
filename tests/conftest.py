"""What every test module has in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from .thorough import is_thorough
from .warm import recordings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that take long."""
    for item in items:
        if is_thorough(item.nodeid.removeprefix("tests/")):
            item.add_marker(pytest.mark.thorough)

def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of recordings that all processes of this run share; workers of xdist are given it."""
    if not hasattr(config, "workerinput"):
        recordings.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    if not hasattr(config, "workerinput"):
        recordings.end()


@pytest.fixture(autouse=True)
def own_visualizers() -> Iterator[None]:
    """Let no Runner log where one of another test did, which began in the same second: they would share a name."""
    yield
    if (module := sys.modules.get("mmengine.visualization.visualizer")) is not None:
        for kind in (module.Visualizer, *module.Visualizer.__subclasses__()):
            kind._instance_dict.clear()


@pytest.fixture(scope="module", autouse=True)
def own_scope() -> Iterator[None]:
    """Let no module look names up where a Runner of another module did: mmengine keeps the last Runner's scope."""
    before = dict(_scopes())
    yield
    now = _scopes()
    now.clear()
    now.update(before)


def _scopes() -> dict[str, Any]:
    """Return mmengine's scopes; none before anything has imported it."""
    module = sys.modules.get("mmengine.registry.default_scope")
    return {} if module is None else module.DefaultScope._instance_dict

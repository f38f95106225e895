"""What pytest loads of the plugin. Every project with this toolkit installed pays for it, so it imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .names import RECORDED

if TYPE_CHECKING:
    from .fixture import Parity

_MARKER = (
    "parity(**settings): settings of the `parity` fixture for a test, a class or a module: call, exclude, folder, "
    "gradients, loss, reason, rules, seed."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the plugin."""
    group = parser.getgroup("parity", "comparing modules with golden files (ddq-port)")
    group.addoption("--parity-record", action="store_true", help="Record the golden files that are not there.")
    group.addoption(
        "--parity-replace",
        action="store_true",
        help="Record the golden files of all tests that run anew, in place of those that are there.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Parity:
    """Compare a module with its golden file: ``parity.check(module, inputs)``; or with another module."""
    from .fixture import Parity

    replaces = request.config.getoption("--parity-replace")
    records = replaces or request.config.getoption("--parity-record")
    return Parity(request.node, records, replaces)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name the files that were recorded: what recorded them was compared with nothing."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    files = {value for one in reports for name, value in getattr(one, "user_properties", ()) if name == RECORDED}
    if files:
        terminalreporter.section("golden files recorded")
        for file in sorted(files):
            terminalreporter.write_line(file)
        terminalreporter.write_line("Nothing was compared for these. Commit them if the code that ran is right.")

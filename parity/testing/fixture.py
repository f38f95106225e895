"""The object that the fixture ``parity`` gives."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from .names import RECORDED

if TYPE_CHECKING:
    from torch.nn import Module

    from ..golden.golden import Golden
    from ..scripts.checking import Checked
    from ..verdict.verdict import Verdict

FOLDER = "goldens"
#: Settings of a check, which the marker may have as well.
_SETTINGS = ("call", "exclude", "gradients", "loss", "reason", "rules", "seed")
_LONGEST_NAME = 120


class Parity:
    """Compare modules, and fail the test with what differs first.

    Args:
        node: the test.
        records: write golden files that are not there.
        replaces: write those that are there as well.
    """

    def __init__(self, node: pytest.Item, records: bool, replaces: bool) -> None:
        self._node, self._records, self._replaces = node, records, replaces
        self._names: list[str] = []
        settings = {name: value for mark in [*node.iter_markers("parity")][::-1] for name, value in mark.kwargs.items()}
        if any(mark.args for mark in node.iter_markers("parity")):
            _fail("The marker `parity` takes named settings only, such as @pytest.mark.parity(seed=1).")
        self._folder = Path(settings.pop("folder", FOLDER))
        self._marked = _known(settings, "The marker `parity`")

    def check(self, module: Module, inputs: Any, *, name: str = "", **settings: Any) -> Verdict:
        """Compare all that a module computes with its golden file, and return the verdict, which is a match.

        What is compared are inputs and outputs of every submodule's calls, decisions such as ``topk``, random draws, and
        gradients. Numbers may differ by as much as the rounding that was measured while the file was recorded explains.

        Args:
            module: any ``torch.nn.Module``, with the weights that it had then; it is copied and stays as it is.
            inputs: that it had then: a tuple of arguments, a dict of named ones, or the only argument.
            name: of the golden file, for a test with several; else they are numbered.
            **settings: ``call(module, inputs)`` calls the module; ``loss(output)`` gives the scalar to go backward from,
                by default a fixed sum of all outputs; ``gradients=False`` does not go backward; ``seed`` of all draws
                (0); ``rules`` say how names have changed since; ``exclude`` patterns of records, each with a ``reason``.
        """
        __tracebackhide__ = True
        from ..scripts import goldens

        path, asked = self._path(name), self._asked(inputs, settings)
        if self._replaces or (self._records and not path.exists()):
            return self._record(path, module, asked)
        if not path.is_file():
            _fail(
                f"There is no golden file {_shown(path)}, so nothing was compared. Record it with code that is known to be "
                f'right:\n\n    pytest --parity-record "{self._node.nodeid}"'
            )
        with _in_a_line(_shown(path)):
            verdict = goldens.check_module(_loaded(path), module, asked, lambda step: None)
        if verdict.exit_code:
            _fail(_text(verdict, f"The module and {_shown(path)}", _WORDS) + self._advice(verdict))
        return verdict

    def compare(self, old: Module, new: Module, inputs: Any, **settings: Any) -> Verdict:
        """Compare all that two modules compute of the same weights, inputs and draws; return the verdict, a match.

        The arguments are those of :func:`parity.check`.
        """
        __tracebackhide__ = True
        from .. import api

        with _in_a_line("The modules cannot be compared"):
            verdict = api.check(old, new, inputs, **{**self._marked, **settings})
        if verdict.exit_code:
            _fail(_text(verdict, "The new module and the old one", {" (the script phase)": ""}))
        return verdict

    def _record(self, path: Path, module: Module, asked: Checked) -> Verdict:
        """Record a golden file, unless the module does not even match what it computed just before."""
        __tracebackhide__ = True
        from ..golden import golden as files
        from ..scripts import goldens

        if asked.rules is not None:
            _fail(f"{_shown(path)} is not written: it would have the new names, to which `rules` do not fit; leave them out.")
        with _in_a_line(f"{_shown(path)} is not written"):
            recorded = goldens.record_module(module, asked, lambda step: None)
            verdict = goldens.check_module(recorded, module, asked, lambda step: None)
        if verdict.exit_code:
            _fail(_text(verdict, f"{_shown(path)} is not written, for two runs of the module differ", _WORDS))
        path.parent.mkdir(parents=True, exist_ok=True)
        files.save(recorded, path)
        self._node.user_properties.append((RECORDED, _shown(path)))
        if loose := goldens.too_loose(recorded):
            self._node.warn(pytest.PytestWarning(f"{_shown(path)}: {loose}"))
        return verdict

    def _advice(self, verdict: Verdict) -> str:
        if verdict.divergence is None:
            return ""
        kept = "--parity-record replaces no file. " if self._records else ""
        return f'\n\n{kept}If the module is right and the file is not:\n\n    pytest --parity-replace "{self._node.nodeid}"'

    def _asked(self, inputs: Any, settings: Mapping[str, Any]) -> Checked:
        __tracebackhide__ = True
        from ..cli.early import excluded
        from ..scripts.checking import Checked, call_with

        given = {**self._marked, **_known(settings, "parity.check")}
        patterns, reasons = ((one,) if isinstance(one, str) else tuple(one) for one in (
            given.pop("exclude", ()), given.pop("reason", ())))  # fmt: skip
        with _in_a_line(""):
            exclusions = excluded(patterns, reasons)
        return Checked(inputs, exclusions=exclusions, **{"call": call_with, **given})

    def _path(self, name: str) -> Path:
        """Return the file of a check; every check of a test has one of its own."""
        __tracebackhide__ = True
        parts = self._node.nodeid.split("::")[1:]
        stem = ".".join(parts)
        shown = name or (str(len(self._names) + 1) if self._names else "")
        if shown in self._names:
            _fail(f"The test checks under the name {shown!r} twice; give every check a name of its own.")
        self._names.append(shown)
        file = _file_name(".".join(filter(None, (stem, shown))))
        return self._node.path.parent / self._folder / self._node.path.stem / f"{file}.npz"


def _file_name(text: str) -> str:
    """Return a name that any file system takes; of texts that differ they differ as well."""
    plain = re.sub(r"\[([\w.-]+)\]", r"-\1", text)
    safe = re.sub(r"[^\w.-]+", "-", plain, flags=re.ASCII)
    if safe == plain and len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[:_LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _known(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    __tracebackhide__ = True
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown:
        _fail(f"{where} has no setting `{unknown[0]}`; there are {', '.join(_SETTINGS)}.")
    return dict(settings)


def _loaded(path: Path) -> Golden:
    from ..golden.golden import GoldenError, load

    recorded = load(path)
    if recorded.task is not None:
        raise GoldenError(f"{path} is a golden file of `ddq-parity capture`; check it with `ddq-parity check`.")
    return recorded


#: What is called otherwise here than in a comparison of two sides.
_WORDS = {
    "The legacy side": "The golden file", "the legacy side": "the golden file", "The new side": "The module",
    "the new side": "the module", "old `": "recorded `", " in the detector": "", " (the script phase)": "",
}  # fmt: skip
_CODE = ("legacy code:", "new code:")


def _text(verdict: Verdict, what: str, words: Mapping[str, str]) -> str:
    """Return what a failed test says: what was compared, where it differs first, and figures of that."""
    from .. import api
    from ..cli.console import renamed

    if verdict.stop is not None and verdict.outcome != api.MISMATCH:
        crash = verdict.stop.as_error
        return renamed(f"{what}\n\n{crash}\n{crash.details}", words)
    *said, last = api.summary(verdict).splitlines()
    lines = [what, "", *(line for line in said if not line.startswith(_CODE)), last]
    return renamed("\n".join(lines), words)


@contextmanager
def _in_a_line(what: str) -> Iterator[None]:
    """Fail a test that gives what cannot be used with one line; an error of the module passes."""
    __tracebackhide__ = True
    import click

    from .. import api

    try:
        yield
        return
    except click.ClickException as error:
        said = error.format_message()
    except api.SideError as error:
        said = f"{error}\n{error.details}"
    except tuple(kind for kind in api.INPUT_ERRORS if kind is not OSError) as error:
        said = str(error)
    _fail(f"{what}: {said}" if what else said)


def _fail(text: str) -> NoReturn:
    __tracebackhide__ = True
    raise pytest.fail.Exception(text, pytrace=False) from None


def _shown(path: Path) -> str:
    return os.path.relpath(path)



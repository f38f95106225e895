"""The Python API: comparing in a script of one's own, and what the commands of ``ddq-parity`` do.

Of any two modules ``capture`` records one, ``compare`` compares two recordings, and ``check`` does it all in one call.
``run``, ``compare``, ``capture_golden`` and ``check_golden`` are the commands ``run``, ``compare``, ``capture`` and ``check``.

Arguments of the latter have the names, values and defaults of the options on the command line, and are checked by the same code. A
size list may be given as on the command line (``"480x640,384x512"``) or as a sequence of (height, width). Nothing is
printed and nothing exits: the result is returned, and an error is an exception. Environment variables such as
``DDQ_PARITY_RUN_SEED`` are not looked at.

Errors of every function here:

* one of ``parity.INPUT_ERRORS``: something that was passed cannot be used (exit code 2 of the command);
* ``parity.SideError``: a side crashed or ran out of time, and nothing differs before (exit code 4). Its ``details`` are
  the last lines of the traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import click
from torch.nn import Module

from ddq_port.requirements import RequirementError
from legacy_adapters import scripting
from legacy_adapters.launch import SideError
from legacy_adapters.scripting import CaptureError, Recording

from .cli import commands, trace_commands
from .cli.early import (
    bounds_options,
    excluded,
    input_options,
    refusals,
    refuse_early,
    refuse_files,
    task_options,
    with_files,
)
from .cli.main import cli
from .cli.output import check_new_file
from .golden.golden import Golden
from .scripts.checking import Call, Checked, Loss, call_with
from .scripts.names import GivenRules
from .sides import places
from .sides.settings import SettingsError
from .verdict.outcome import INCOMPARABLE, MATCH, MISMATCH
from .verdict.verdict import Verdict

__all__ = [
    "INCOMPARABLE", "INPUT_ERRORS", "MATCH", "MISMATCH", "SideError", "Verdict", "capture", "capture_golden", "check",
    "check_golden", "compare", "run", "summary",
]  # fmt: skip

Sizes = str | Sequence[tuple[int, int]]
Progress = Callable[[str], None]

INPUT_ERRORS = (*trace_commands.INPUT_ERRORS, CaptureError, RequirementError)


def run(
    family: str | Path,
    variant: str | None = None,
    *,
    legacy_config: str | Path | None = None,
    new_config: str | Path | None = None,
    legacy_repo: str | Path | None = None,
    legacy_python: str | Path | None = None,
    require_known_commit: bool = False,
    checkpoint: str | Path | None = None,
    new_adapter: str | Path | None = None,
    size: Sizes | None = None,
    objects: str | Sequence[int] | None = None,
    inputs: str | Path | None = None,
    image: str | Path | Sequence[str | Path] = (),
    seed: int = 0,
    check: str | Sequence[str] | None = None,
    steps: int | None = None,
    epoch_length: int | None = None,
    clip_order: str | None = None,
    resume_at: int | None = None,
    ranks: int = 1,
    dtype: str = "float32",
    amp: str | None = None,
    tolerance: str = "exact",
    rtol: float | None = None,
    atol: float | None = None,
    replay: bool = False,
    isolate: bool = False,
    exclude: str | Sequence[str] = (),
    reason: str | Sequence[str] = (),
    device: str = "cpu",
    threads: int | None = None,
    cpu_capability: str | None = None,
    time_limit: float = 1800.0,
    out: str | Path | None = None,
    force: bool = False,
    html: str | Path | None = None,
    junit: str | Path | None = None,
    markdown: str | Path | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Run both sides on the same weights and inputs, compare them, and return the verdict.

    Args:
        family: name of an installed family, or the folder of one.
        variant: the model of it; None for its only one.
        progress: is called with one line for each step.

    The other arguments are the options of ``ddq-parity run``; ``ddq-parity run --help`` describes each of them.
    """
    given = {name: value for name, value in locals().items() if name != "progress"}
    with _as_exceptions():
        parsed = _parsed("run", given)
        exclusions = excluded(parsed.pop("exclude"), parsed.pop("reason"))
        options = task_options(**bounds_options(**input_options(**parsed)))
        settings = dict(with_files(options), exclusions=exclusions)
        refuse_early(**settings)
        del settings["force"]
    return trace_commands.in_own_words(commands.judge_run(tell=_teller(progress), **settings))


def compare(
    legacy: str | Path,
    new: str | Path,
    *,
    family: str | Path | None = None,
    variant: str | None = None,
    rules: GivenRules = None,
    tolerance: str = "exact",
    rtol: float | None = None,
    atol: float | None = None,
    verify: bool = False,
    expect_digest: str | None = None,
    exclude: str | Sequence[str] = (),
    reason: str | Sequence[str] = (),
    html: str | Path | None = None,
    junit: str | Path | None = None,
    markdown: str | Path | None = None,
    force: bool = False,
) -> Verdict:
    """Compare two traces and return the verdict: of two scripts (:func:`capture`), or RUN/legacy and RUN/new of a run.

    Args:
        legacy: folder of the old side's trace.
        new: folder of the new side's.
        rules: of scripts' traces, what names become on the new side: a rule file, or a list of rules. What no rule takes has
            the same name on both sides.

    The other arguments are those of ``ddq-parity compare``; ``ddq-parity compare --help`` describes each of them.
    """
    given = {name: value for name, value in locals().items() if name != "rules"}
    with _as_exceptions():
        parsed = dict(_parsed("compare", given), rules=rules)
        exclusions = excluded(parsed.pop("exclude"), parsed.pop("reason"))
        force = parsed.pop("force")
        settings = dict(with_files(bounds_options(**parsed)), exclusions=exclusions)
        refuse_files(settings["files"], force)
        with refusals():
            places.check_trace(settings["legacy"], places.LEGACY)
            places.check_trace(settings["new"], places.NEW)
    return trace_commands.in_own_words(trace_commands.judge_traces(**settings))


def capture_golden(
    file: str | Path,
    family: str | Path,
    variant: str | None = None,
    *,
    legacy_config: str | Path | None = None,
    new_config: str | Path | None = None,
    legacy_repo: str | Path | None = None,
    legacy_python: str | Path | None = None,
    require_known_commit: bool = False,
    checkpoint: str | Path | None = None,
    size: Sizes | None = None,
    objects: str | Sequence[int] | None = None,
    seed: int = 0,
    check: str | Sequence[str] = "forward,loss,grad,init",
    device: str = "cpu",
    threads: int | None = None,
    cpu_capability: str | None = None,
    time_limit: float = 1800.0,
    force: bool = False,
    progress: Progress | None = None,
) -> Golden:
    """Record the legacy side into the golden file ``file`` (.npz), and return what it holds.

    The legacy side runs seven times, to measure its own rounding. ``progress`` is called with one line for each step;
    the other arguments are those of ``ddq-parity capture``, and ``ddq-parity capture --help`` describes each of them.
    """
    given = {name: value for name, value in locals().items() if name != "progress"}
    with _as_exceptions():
        settings = _parsed("capture", given)
        replace = settings.pop("force")
        settings = task_options(**settings)
        refuse_early(**settings)
        with refusals():
            check_new_file(settings["file"], replace)
    return commands.record_golden(tell=_teller(progress), **settings)


def check_golden(
    file: str | Path,
    *,
    family: str | Path | None = None,
    expect_digest: str | None = None,
    checkpoint: str | Path | None = None,
    new_adapter: str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    cpu_capability: str | None = None,
    time_limit: float = 1800.0,
    out: str | Path | None = None,
    force: bool = False,
    html: str | Path | None = None,
    junit: str | Path | None = None,
    markdown: str | Path | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Run the new side, compare it with the golden file ``file``, and return the verdict.

    ``progress`` is called with one line for each step; the other arguments are those of ``ddq-parity check``, and
    ``ddq-parity check --help`` describes each of them.
    """
    given = {name: value for name, value in locals().items() if name != "progress"}
    with _as_exceptions():
        settings = with_files(_parsed("check", given))
        refuse_early(golden=settings["file"], **settings)
        del settings["force"]
    return trace_commands.in_own_words(commands.judge_golden(tell=_teller(progress), **settings))


def capture(
    model: Module,
    folder: str | Path,
    *,
    seed: int | None = None,
    gradient_flow: bool = True,
    title: str = "",
    force: bool = False,
) -> AbstractContextManager[Recording]:
    """Record all that ``model`` computes in the ``with`` block into the trace ``folder``.

    The arguments, and what is recorded, are described at :func:`legacy_adapters.scripting.capture`, which is this
    function for scripts of old interpreters.
    """
    if isinstance(model, str | Path):
        raise CaptureError(f"Expected a torch.nn.Module, found {model!r}; a golden file is recorded by parity.capture_golden.")
    return scripting.capture(
        model, folder, seed=seed, gradient_flow=gradient_flow, title=title, force=force
    )


def check(
    old: Module,
    new: Module,
    inputs: Any,
    *,
    rules: GivenRules = None,
    loss: Loss | None = None,
    weights: str = "copy",
    call: Call | None = None,
    gradients: bool | None = None,
    seed: int = 0,
    tolerance: str = "derived",
    rtol: float | None = None,
    atol: float | None = None,
    exclude: str | Sequence[str] = (),
    reason: str | Sequence[str] = (),
    html: str | Path | None = None,
    junit: str | Path | None = None,
    markdown: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Verdict:
    """Run copies of two modules on the same weights, inputs and seeds, compare all they compute, and return the verdict.

    The modules themselves stay as they are, and so do the inputs and the random generators.

    Args:
        old: what is right; in eval or train mode as it is to run.
        new: what is to compute the same; in the same mode.
        inputs: a tuple of arguments, a dict of named ones, or the only argument.
        rules: as of :func:`compare`.
        loss: gives a scalar of what a model gives, to go backward from. None sums all outputs with fixed weights.
        weights: ``copy`` gives the new side the old one's, by the rules; ``own`` leaves each its own.
        call: gives what a model makes of ``inputs``, ``call(model, inputs)``; None calls the model.
        gradients: go backward; None does so if an output needs a gradient.
        seed: of all random draws, before each run.
        tolerance: ``derived``: as close as the old side's own rounding explains, which is measured by running it again
            in float64 and with other roundings; ``exact``: the same bits; ``fixed``: within ``rtol`` and ``atol``.
        rtol: as of :func:`compare`, like those that follow.
        atol: see there.
        exclude: see there.
        reason: see there.
        html: see there.
        junit: see there.
        markdown: see there.
        force: see there.
        progress: is called with one line for each step.
    """
    for model in (old, new):
        if isinstance(model, str | Path):
            raise CaptureError(f"Expected a torch.nn.Module, found {model!r}; a golden file is checked by parity.check_golden.")
    given = dict(tolerance=tolerance, rtol=rtol, atol=atol, exclude=exclude, reason=reason)
    given.update(html=html, junit=junit, markdown=markdown)
    with _as_exceptions():
        parsed = dict(bounds_options(**_parsed("run", given)))
        exclusions = excluded(parsed.pop("exclude"), parsed.pop("reason"))
        parsed = with_files(parsed)
        refuse_files(parsed["files"], force)
    asked = Checked(
        inputs, rules, loss, weights, call or call_with, gradients, seed, trace_commands.tolerance_of(**_bounds(parsed)), exclusions
    )
    return trace_commands.in_own_words(commands.judge_modules(old, new, asked, parsed["files"], _teller(progress)))


def summary(verdict: Verdict) -> str:
    """Return a verdict in at most five lines: where the sides part first, figures of that, and the closing line."""
    return trace_commands.summary(verdict)


def _bounds(parsed: dict[str, Any]) -> dict[str, Any]:
    return {name: parsed[name] for name in ("tolerance", "rtol", "atol")}


def _parsed(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Convert arguments by the option types of a command, as its own parser would.

    Raises:
        click.BadParameter: if a value cannot be used.
    """
    command = cli.commands[name]
    context = click.Context(command, info_name=f"parity.{name}")
    params = {param.name: param for param in command.params}
    return {argument: _converted(params[argument], context, value) for argument, value in given.items()}


def _converted(param: click.Parameter, context: click.Context, value: Any) -> Any:
    """Convert one argument; sequences and paths become the text that the command line would be given."""
    if param.multiple:
        value = tuple(map(str, (value,) if isinstance(value, str | Path) else value))
    elif isinstance(value, list | tuple):
        value = ",".join("x".join(map(str, item)) if isinstance(item, list | tuple) else str(item) for item in value)
    elif isinstance(value, Path):
        value = str(value)
    return param.type_cast_value(context, value)


def _teller(progress: Progress | None) -> Progress:
    return progress if progress is not None else lambda step: None


@contextmanager
def _as_exceptions() -> Iterator[None]:
    """Turn what would end the command line into the exceptions that caused it."""
    try:
        yield
    except click.ClickException as error:
        if isinstance(error.__cause__, INPUT_ERRORS):
            raise error.__cause__ from None
        raise SettingsError(error.format_message()) from error

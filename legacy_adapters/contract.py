"""What an adapter must have and what its functions must return; an adapter that breaks this is told so in one line.

Imports torch only where a model is at hand, so that an interpreter without it can still report that.
"""

from __future__ import annotations

import inspect
import json
import traceback
from dataclasses import dataclass
from typing import Any, Callable, List, Sequence

from .named_inputs import MissingInputError
from .origin import PlainError, UnusableInputError

#: Function -> names of its parameters.
FUNCTIONS = {
    "build": ("options", "device"),
    "predict": ("model", "batch"),
    "losses": ("model", "batch"),
    "taps": ("model",),
    "provenance": ("options",),
    "training": ("model", "options", "epoch_length"),
    "distributed": ("model", "options"),
    "image_detector": ("model", "options"), "preprocessing": ("model", "options"),
    "train_whole": ("request",),
    "test_whole": ("request",),
    "variants": ("model",),
    "aside": ("model",),
    "predictor": ("model",),
    "classes": ("model",),
    "initialise": ("model",),
}
#: Check -> functions that it needs; a job without checks is of ``eval``.
NEEDED = {
    "forward": ("build", "provenance", "taps", "predict"),
    "loss": ("build", "provenance", "taps", "losses"),
    "grad": ("build", "provenance", "taps", "losses"),
    "init": ("build", "provenance", "taps"),
    "train": ("build", "provenance", "taps", "losses", "training"),
    "ranks": ("distributed",),
    "eval": ("build", "provenance", "image_detector"),
}
#: Of those that are no checks, how they are called.
_OTHER = {"eval": "eval", "ranks": "--ranks"}
#: Those that every adapter has; in a file of functions None in place of one means none.
OF_ALL = ("variants", "aside", "predictor", "classes", "initialise")
_SHOWN = 3
#: Attribute of the error that a call of an operator raises which a stand-in lacks, see :mod:`.lacking`.
LACKING_OPERATOR = "lacking_operator"


class AdapterError(UnusableInputError):
    """An adapter cannot be used; the message is one line."""


class WrongResultError(PlainError):
    """A function of an adapter returned something of another form than it must; the message is one line."""


def look(job: Any, load: Callable[[str], Any]) -> None:
    """Load a job's adapter, build its model and make what its checks need, but compute nothing.

    Args:
        job: a :class:`legacy_adapters.job.Job` with a ``layout``.
        load: returns the adapter of the file at a path.

    Raises:
        AdapterError: if the adapter cannot be loaded, lacks a function that the checks need, has one with other
            parameters, or makes something of another form, or a model with other weights.
    """
    path = job.adapter
    adapter = loaded(path, load)
    checks = job.checks or ("eval",)
    checks += ("ranks",) if job.ranks > 1 else ()
    for check in checks:
        for name in NEEDED[check]:
            _check_function(adapter, path, name, check)
    for name in OF_ALL:
        _check_function(adapter, path, name, "")
    made = _Made(adapter, path, job)
    model = made.by("build", job.options, job.device)
    _check_weights(model, job.layout, made.place("build"))
    check_operators(model, path)
    made.by("provenance", job.options)
    if "eval" in checks:
        made.by("image_detector", model, job.options)
        return
    made.by("taps", model)
    if "train" in checks:
        made.by("training", model, job.options, job.epoch_length)


def check_operators(model: Any, side: str) -> None:
    """Refuse a model that calls an operator which a stand-in for a compiled extension lacks.

    Args:
        model: that was built.
        side: what it is called in the message.

    Raises:
        AdapterError: with the class that calls it, the operator and what to install.
    """
    from .lacking import first_lacking

    told = first_lacking(model)
    if told is not None:
        raise AdapterError("The model of {} cannot be run, for its {}".format(side, told))


def refusal(error: BaseException) -> BaseException:
    """Return what to report of an error: one that a lacking operator raised when it was called is a refusal, too."""
    return AdapterError(str(error)) if hasattr(error, LACKING_OPERATOR) else error


def result(adapter: Any, name: str, *args: Any) -> Any:
    """Call a function of an adapter and return its result.

    Raises:
        AdapterError: if it or the model takes other inputs than there are.
        WrongResultError: if the result has another form than it must.
    """
    try:
        value = getattr(adapter, name)(*args)
    except (MissingInputError, TypeError) as error:
        unfit = str(error) if isinstance(error, MissingInputError) else _unfit(error, *args[:2])
        if not unfit:
            raise
        raise _misfit(error, adapter, _call(name), unfit) from error
    wrong = _wrong(adapter, name, value)
    if wrong:
        raise WrongResultError("{} {}".format(_place(adapter, adapter.label, name), wrong))
    return value


def batch(adapter: Any, tensors: Any) -> Any:
    """Return the batch that an adapter makes of named tensors.

    Raises:
        AdapterError: if it takes other inputs than there are.
    """
    try:
        return adapter.batch(tensors)
    except MissingInputError as error:
        raise _misfit(error, adapter, "batch(tensors)", str(error)) from error


def _misfit(error: BaseException, adapter: Any, call: str, unfit: str) -> AdapterError:
    """Return the error that says where an adapter takes other inputs than there are."""
    place = _line_of(error, adapter.label)
    return AdapterError("{}: {} {}; correct the names in `inputs` of family.py or here.".format(place, call, unfit))


def _unfit(error: TypeError, model: Any, batch: Any = None) -> str:
    """Say which inputs a model takes and which there are, if that is why its call failed; empty if not."""
    described = getattr(batch, "described", None)
    code = getattr(type(model).forward, "__code__", None) if described else None
    if code is None or "forward() " not in str(error) or code in _codes(error):
        return ""
    signature = inspect.signature(model.forward)
    try:
        signature.bind(**batch)
    except TypeError:
        taken = ", ".join("`{}`".format(name) for name in signature.parameters)
        return "calls {}, whose forward takes {}, but {}".format(type(model).__name__, taken or "nothing", described)
    return ""


def _codes(error: BaseException) -> List[Any]:
    """Return the code that was running when an error was raised, the outermost first."""
    return [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]


def loaded(path: str, load: Callable[[str], Any]) -> Any:
    """Return the adapter of a file.

    Raises:
        AdapterError: if the file cannot be executed.
    """
    try:
        return load(path)
    except PlainError:
        raise
    except SyntaxError as error:
        raise AdapterError(
            "{}, line {}: {}: {}.".format(error.filename or path, error.lineno, type(error).__name__, error.msg)
        ) from error
    except BaseException as error:  # SystemExit included: nothing may end the process in silence
        where = _line_of(error, path)
        raise AdapterError("{} cannot be imported: {}.".format(where, _told(error))) from error


def _check_function(adapter: Any, path: str, name: str, check: str) -> None:
    if callable(getattr(adapter, name)) and not adapter.can(name):
        raise AdapterError(
            "{} has no function {}, which {} needs; write it, or take it over from an adapter that has it.".format(
                path, _call(name), _OTHER.get(check, "check {}".format(check))
            )
        )
    function = getattr(adapter, name)
    place = _place(adapter, path, name)
    if not callable(function):
        raise AdapterError("{} must be a function, found {}.".format(place, _kind(function)))
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a built-in one does not tell
    try:
        signature.bind(*FUNCTIONS[name])
    except TypeError as error:
        raise AdapterError(
            "{} is called with {}, but takes {}{}: {}.".format(
                place, _counted(len(FUNCTIONS[name])), name, signature, error
            )
        ) from error


@dataclass(frozen=True)
class _Made:
    """What functions of an adapter make before anything is computed."""

    adapter: Any
    path: str
    job: Any

    def place(self, name: str) -> str:
        return _place(self.adapter, self.path, name)

    def by(self, name: str, *args: Any) -> Any:
        try:
            value = getattr(self.adapter, name)(*args)
        except BaseException as error:
            given = ""
            if isinstance(error, KeyError) and error.args and error.args[0] not in self.job.options:
                given = "; options has {}".format(_listed(sorted(self.job.options)))
            where = _line_of(error, self.path)
            raise AdapterError("{}: {} raised {}{}.".format(where, _call(name), _told(error), given)) from error
        wrong = _wrong(self.adapter, name, value)
        if wrong:
            raise AdapterError("{} {}".format(self.place(name), wrong))
        return value


def _check_weights(model: Any, layout: str, place: str) -> None:
    """Refuse a model whose floating-point weights are not those of a layout, a file of name -> shape."""
    with open(layout, encoding="utf-8") as file:
        expected = json.load(file)
    found = {name: list(value.shape) for name, value in model.state_dict().items() if value.is_floating_point()}
    lacking, more = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if lacking or more:
        parts = [("lacks", lacking), ("has in excess", more)]
        told = ", and ".join("{} {}".format(what, _listed(keys)) for what, keys in parts if keys)
        raise AdapterError("{} makes a model that {}; expected is the new layout.".format(place, told))
    for name in sorted(expected):
        if found[name] != expected[name]:
            raise AdapterError(
                "{} makes a model whose {} has shape {}, expected {}.".format(place, name, found[name], expected[name])
            )


def _wrong(adapter: Any, name: str, value: Any) -> str:
    """Say what a function must return and what was found; empty if its form is right."""
    keys = adapter.result_keys
    if name == "predict" and keys is not None:
        found = _not_of_images(value, keys)
        expected = "a list of dicts of the tensors {}, one for each image".format(", ".join(keys))
        return "must return {}, found {}.".format(expected, found) if found else ""
    if name not in _FORMS:
        return ""
    expected, find = _FORMS[name]
    found = find(value)
    return "must return {}, found {}.".format(expected, found) if found else ""


def _not_module(value: Any) -> str:
    import torch

    return "" if isinstance(value, torch.nn.Module) else _kind(value)


def _not_of_images(value: Any, keys: Sequence[str]) -> str:
    if not isinstance(value, (list, tuple)):
        return _kind(value)
    for index, image in enumerate(value):
        where = " for image {}".format(index)
        if not isinstance(image, dict):
            return _kind(image) + where
        if not set(image) >= set(keys):
            return "the keys {}{}".format(_listed([str(key) for key in image]), where)
        for key, tensor in image.items():
            if not _is_tensor(tensor):
                return "{} under {}{}".format(_kind(tensor), key, where)
    return ""


def _no_tensors(value: Any) -> str:
    from .recording.values import flatten

    return "" if any(True for _ in flatten(value)) else _kind(value)


def _not_losses(value: Any) -> str:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return _kind(value)
    terms, total = value
    if not isinstance(terms, dict):
        return "{} in place of the dict".format(_kind(terms))
    if not _is_tensor(total) or total.numel() != 1:
        return "{} in place of the sum".format(_kind(total))
    return ""


def _not_taps(value: Any) -> str:
    from .recording.taps import Tap

    if not isinstance(value, (list, tuple)):
        return _kind(value)
    for index, tap in enumerate(value):
        if not isinstance(tap, Tap):
            return "{} at {}".format(_kind(tap), index)
        if not callable(getattr(tap.owner, tap.attribute, None)):
            owner = getattr(tap.owner, "__name__", _kind(tap.owner))
            return "one of {}.{}, which is not a function".format(owner, tap.attribute)
    return ""


def _not_dict(value: Any) -> str:
    return "" if isinstance(value, dict) else _kind(value)


_OF_TRAINING = ("watch", "wrapper_options", "context", "update", "advance")


def _not_training(value: Any) -> str:
    lacking = [name for name in _OF_TRAINING if not callable(getattr(value, name, None))]
    if not hasattr(value, "optimizer"):
        lacking.insert(0, "optimizer")
    return "{} without {}".format(_kind(value), ", ".join(lacking)) if lacking else ""


def _not_function(value: Any) -> str:
    return "" if callable(value) else _kind(value)


#: Function -> what it must return, and what tells what another result is.
_FORMS = {
    "build": ("a torch.nn.Module", _not_module),
    "predict": ("tensors, at least one", _no_tensors),
    "losses": ("a dict of loss terms and their sum, a tensor of one number", _not_losses),
    "taps": ("a list of legacy_adapters.recording.taps.Tap of functions that are there", _not_taps),
    "provenance": ("a dict", _not_dict),
    "training": ("a legacy_adapters.training.steps.Training", _not_training),
    "distributed": ("a torch.nn.Module", _not_module),
    "image_detector": ("a function of an image's path and id", _not_function),
}


def _place(adapter: Any, path: str, name: str) -> str:
    code = getattr(getattr(adapter, name, None), "__code__", None)
    line = ", line {}".format(code.co_firstlineno) if code is not None and code.co_filename == path else ""
    return "{}{}: {}".format(path, line, _call(name))


def _call(name: str) -> str:
    return "{}({})".format(name, ", ".join(FUNCTIONS[name]))


def _line_of(error: BaseException, path: str) -> str:
    """Return the adapter's path and the line of it that was running; with the file beneath it that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    return "{}, line {}".format(path, lines[-1]) if lines else path


def _told(error: BaseException) -> str:
    message = " ".join(str(error).split())
    return "{}: {}".format(type(error).__name__, message).rstrip(":. ")


def _kind(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "a {} of {}".format(type(value).__name__, len(value))
    shape = " of shape {}".format(list(value.shape)) if _is_tensor(value) and value.dim() else ""
    return "{}{}".format("None" if value is None else "a {}".format(type(value).__name__), shape)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _counted(count: int) -> str:
    return "1 argument" if count == 1 else "{} arguments".format(count)


def _listed(names: Sequence[str]) -> str:
    more = " and {} more".format(len(names) - _SHOWN) if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "none") + more

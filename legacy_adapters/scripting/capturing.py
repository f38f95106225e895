"""The block in which a script's model is recorded, and the folder that it leaves."""

from __future__ import annotations

import inspect
import os
import shutil
import threading
from contextlib import ExitStack, contextmanager
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import nn

from ..numerics.seeding import RandomWatch, seed_all
from ..origin import report
from ..recording import gradients, kinds
from ..recording.recorder import Recorder
from ..recording.scripts import BACKWARD, CALL, PHASE
from ..recording.taps import Tap, installed, matchings, random_taps, rankings
from ..recording.trace_writer import DTYPES, INDEX_NAME, TraceWriter, content_digest
from ..recording.values import flatten, named_arguments
from .backward import Backward
from .environment import described
from .opened import opened, opened_whole, sealed_in

_WEIGHTS = "weights"
#: What a model's forward hooks make of what it gives.
BEHIND_HOOKS = "output behind hooks"


class CaptureError(ValueError):
    """What a script asks for cannot be recorded; the message is one line."""


class Recording:
    """The block that is being recorded; further values of the script are added to it.

    Attributes:
        folder: of the trace, once the block has ended.
    """

    def __init__(self, folder: str, recorder: Recorder) -> None:
        self.folder = folder
        self._recorder = recorder

    def tap(self, name: str, value: Any) -> Any:
        """Record a value that the script computes itself, under a name that both sides give it; return it.

        Raises:
            CaptureError: if the block has ended, or there is no tensor or number in the value.
        """
        return self._added(kinds.TAP, name, value)

    def loss(self, name: str, value: Any) -> Any:
        """Record a loss term, under a name that both sides give it; return it, to go backward from.

        Raises:
            CaptureError: if the block has ended, or there is no tensor or number in the value.
        """
        return self._added(kinds.LOSS, name, value)

    def _added(self, kind: str, name: str, value: Any) -> Any:
        if not self._recorder.phase:
            raise CaptureError("`{}` was given after the block; call it within `with capture(...)`.".format(name))
        if not any(True for _ in flatten(opened(value))):
            raise CaptureError(
                "`{}` is {}, which holds no tensor and no number; give one.".format(name, type(value).__name__)
            )
        self._recorder.add(kind, name, self._recorder.next_call(kind, name), value)
        return value


@contextmanager
def capture(
    model: nn.Module,
    folder: Any,
    *,
    seed: Optional[int] = None,
    gradient_flow: bool = True,
    title: str = "",
    force: bool = False,
) -> Iterator[Recording]:
    """Record all that a model computes in the block into the trace ``folder``.

    Recorded are its weights, inputs and outputs of every module call, the model's own among them, decisions (``topk``,
    ``sort``, matchings), random draws and the states of the generators, and, where the block goes backward, gradients of
    inputs and outputs of modules and of parameters; at the end the weights again. The model is as before afterwards.

    The folder appears when the block has ended. If the block raises, nothing of it is left.

    Args:
        model: any module; not compiled, scripted or wrapped for several processes.
        folder: of the trace; must not exist.
        seed: to seed torch's, numpy's and Python's generators with, at the beginning; None leaves them as they are.
        gradient_flow: record gradients over the borders of module calls, not only of parameters.
        title: what the code is called in reports. [the model's class]
        force: replace an earlier trace.

    Raises:
        CaptureError: if the model cannot be recorded, or the block does not call it.
        FileExistsError: if there is something at ``folder`` that may not be replaced.
        FileNotFoundError: if the folder in which it is to be made is not there.
    """
    path = os.path.abspath(os.fspath(folder))
    check_model(model)
    _check_place(path, force)
    made = os.path.join(os.path.dirname(path), ".{}.{}.new".format(os.path.basename(path), os.getpid()))
    try:
        with recorded(model, made, seed, gradient_flow, title) as recording:
            recording.folder = path
            yield recording
        _publish(made, path)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def recorded(
    model: nn.Module,
    folder: str,
    seed: Optional[int],
    gradient_flow: bool = True,
    title: str = "",
    replay: Optional[Dict[str, torch.Tensor]] = None,
    decide: bool = True,
    keep_stopped: bool = False,
) -> Iterator[Recording]:
    """Record into a new folder, which is whole only if there is an index in it; arguments as of :func:`capture`.

    Args:
        model: see there.
        folder: see there.
        seed: see there.
        gradient_flow: see there.
        title: see there.
        replay: decisions and draws to go on with in place of the model's own, see :func:`..recording.taps.installed`.
        decide: under replay, let the model decide as well.
        keep_stopped: if the block raises, write what was recorded until then, with the error as ``stopped``.
    """
    flow = gradient_flow and gradients.supported()
    writer = TraceWriter(folder)
    watch, weights = _Root(model), _Weights(model)
    recorder = Recorder(writer, flow, opened=opened, root=True, before=lambda: weights.note(recorder))
    provenance = described(model, title, flow)
    with recorder.in_phase(_WEIGHTS):
        weights.add_all(recorder, kinds.PARAM, 0)
    if seed is not None:
        seed_all(seed, PHASE)
    provenance["random_start"] = {name: content_digest(digest) for name, digest in RandomWatch().all().items()}
    on_gpu = _cuda_state(provenance["device"])
    provenance["random_start"].update(on_gpu)
    backward = Backward(recorder, model)
    provenance["gradients_before"] = backward.present()
    try:
        with ExitStack() as stack:
            stack.callback(watch.detach)
            watch.attach(recorder)
            stack.callback(recorder.detach)
            recorder.attach(model)
            stack.enter_context(installed(taps(), recorder, replay, decide))
            stack.enter_context(backward.watched())
            stack.enter_context(recorder.in_phase(PHASE, draws=True, methods=False, idle_generators=False))
            yield Recording(folder, recorder)
            weights.add_all(recorder, kinds.STATE, weights.calls)
        if watch.crowded:
            raise CaptureError(
                "Several threads call the model at a time, so what belongs to which call is not seen; call it from one."
            )
        if not recorder.has_calls:
            raise CaptureError("The block calls no module of the model; run the model within `with capture(...)`.")
    except BaseException as error:
        if not keep_stopped or isinstance(error, CaptureError):
            writer.abandon()
            raise
        provenance["stopped"] = report(error)
        provenance["cuda_drawn"] = _cuda_state(provenance["device"]) != on_gpu
        _finish(recorder, provenance, model, backward, watch)
        raise
    provenance["cuda_drawn"] = _cuda_state(provenance["device"]) != on_gpu
    _finish(recorder, provenance, model, backward, watch)


def _cuda_state(device: str) -> Dict[str, str]:
    """Return a digest of the state of a GPU's generator; nothing for the CPU."""
    return {"cuda": content_digest(torch.cuda.get_rng_state(device))} if device.startswith("cuda") else {}


def taps() -> List[Tap]:
    """Return the functions whose decisions and draws are recorded."""
    return [*random_taps(), *rankings("ranking"), *matchings({})]


def check_model(model: Any) -> None:
    """Refuse what cannot be recorded.

    Raises:
        CaptureError: saying why.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError("Expected a torch.nn.Module, found {} ({!r:.40}).".format(type(model).__name__, model))
    for name, module in model.named_modules():
        kind = "{}.{}".format(type(module).__module__, type(module).__qualname__)
        where = "Module `{}`".format(name) if name else "The model"
        if isinstance(module, torch.jit.ScriptModule):
            raise CaptureError("{} is scripted ({}), and its calls cannot be seen; give the module itself.".format(where, kind))
        if kind.startswith("torch._dynamo."):
            raise CaptureError("{} is compiled ({}); give the module that was compiled.".format(where, kind))
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise CaptureError("{} was compiled in place (`.compile()`); give one that was not.".format(where))
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            raise CaptureError("{} is wrapped for several devices or processes ({}); give its `.module`.".format(where, kind))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if type(tensor).__name__ in ("UninitializedParameter", "UninitializedBuffer"):
            raise CaptureError("`{}` has no shape before the model has run once; run it, then record.".format(name))
        if tensor.device.type == "meta":
            raise CaptureError("`{}` is on the meta device and has no values; load the weights first.".format(name))


class _Root:
    """Note calls of the model itself: what it changes of its inputs, and what it gives that cannot be recorded.

    Attributes:
        called: how often.
        changed: inputs that it changes in place.
        sealed: types of what it gives whose content cannot be seen.
        crowded: it was called by several threads at a time.
    """

    def __init__(self, model: nn.Module) -> None:
        self.called = 0
        self.crowded = False
        self._threads: List[int] = []
        self.changed: List[Tuple[str, str]] = []
        self.sealed: List[str] = []
        self._model = model
        self._own: Any = None
        self._put = False
        self._hook: Any = None
        self._given: Dict[str, str] = {}

    def attach(self, recorder: Recorder) -> None:
        """Go around the model's ``forward``; to be called before the recorder does."""
        forward, model = self._model.forward, self._model
        signature = inspect.signature(forward)

        def around(*args: Any, **kwargs: Any) -> Any:
            number, self.called = self.called, self.called + 1
            self._threads.append(threading.get_ident())
            self.crowded |= len(set(self._threads)) > 1
            try:
                return seen(number, args, kwargs)
            finally:
                self._threads.pop()

        def seen(number: int, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
            given = named_arguments(signature.bind(*args, **kwargs))
            before = _digests(given)
            result = forward(*args, **kwargs)
            after = _digests(given)
            self.changed += [(PHASE, slot) for slot in before if before[slot] != after.get(slot)]
            self.sealed += [name for name in sealed_in(result) if name not in self.sealed]
            recorder.add(kinds.MODULE_OUT, "", number, _texts(result))
            self._given = _digests({"": result}) if self._hook is not None else {}
            return result

        def behind(module: nn.Module, args: Any, result: Any) -> None:
            if recorder.phase and _digests({"": result}) != self._given:
                recorder.add(kinds.TAP, BEHIND_HOOKS, recorder.next_call(kinds.TAP, BEHIND_HOOKS), result, scope="")

        if model._forward_hooks:  # one of its hooks may give something else than the model does
            self._hook = model.register_forward_hook(behind)
        self._own, self._put = vars(model).get("forward"), True
        around.__signature__ = signature  # type: ignore[attr-defined]
        model.forward = around

    def detach(self) -> None:
        """Take that away again."""
        if self._hook is not None:
            self._hook.remove()
        if self._put:
            del self._model.forward
            if self._own is not None:
                self._model.forward = self._own
            self._put = False


def _texts(value: Any) -> Dict[str, torch.Tensor]:
    """Return the texts among what a model gives, as bytes, by slot."""
    texts = dict(flatten(opened_whole(value)))
    for slot, _ in flatten(opened(value)):
        texts.pop(slot, None)
    return texts


def _digests(given: Dict[str, Any]) -> Dict[str, str]:
    return {slot: content_digest(tensor) for slot, tensor in flatten(opened(given)) if tensor.dtype in DTYPES}


class _Weights:
    """Record a model's weights, and what the script changes of them between calls: an optimizer, say.

    Attributes:
        calls: how often the script has called the model, or a part of it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.calls = 0
        self._model = model
        self._last: Dict[str, str] = {}

    def add_all(self, recorder: Recorder, kind: str, call: int) -> None:
        """Record all weights as they are."""
        for name, tensor in self._state():
            recorder.add(kind, name, call, tensor, scope="")
            self._last[name] = content_digest(tensor)

    def note(self, recorder: Recorder) -> None:
        """Record what has changed since the weights were recorded last, before the next call."""
        for name, tensor in self._state():
            digest = content_digest(tensor)
            if digest != self._last.get(name):
                recorder.add(kinds.STATE, name, self.calls, tensor, scope="")
                self._last[name] = digest
        self.calls += 1

    def _state(self) -> List[Tuple[str, torch.Tensor]]:
        state = sorted(self._model.state_dict().items())
        return [(name, opened(tensor)) for name, tensor in state if isinstance(tensor, torch.Tensor)]


def _finish(recorder: Recorder, provenance: Dict[str, Any], model: nn.Module, backward: Backward, watch: _Root) -> None:
    provenance["checks"] = [CALL] + ([BACKWARD] if backward.passes else [])
    trained = {name: param for name, param in model.named_parameters() if param.requires_grad}
    reached = {record.name for record in recorder.writer.records if record.kind == kinds.GRAD}
    frozen = sorted(name for name, _ in model.named_parameters() if name not in trained)
    coverage = dict(
        recorder.coverage(),
        without_gradient=sorted(set(trained) - reached) if backward.passes else [],
        frozen=frozen if backward.passes else [],
        changed_inputs=watch.changed,
        sealed=watch.sealed,
        shared=shared_modules(model),
    )
    recorder.writer.finish(provenance, coverage)


def shared_modules(model: nn.Module) -> List[List[str]]:
    """Return the paths of every module that has several, the one that its calls are recorded under first."""
    paths: Dict[int, List[str]] = {}

    def walk(module: nn.Module, path: str, around: Sequence[int]) -> None:
        known = paths.setdefault(id(module), [])
        known.append(path)
        if len(known) > 1 or id(module) in around:
            return
        for name, child in module._modules.items():
            if child is not None:
                walk(child, path + "." + name if path else name, (*around, id(module)))

    walk(model, "", ())
    return [found for found in paths.values() if len(found) > 1]


def _check_place(path: str, force: bool) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        raise FileNotFoundError("{} is not a folder; make it, or choose another place than {}.".format(parent, path))
    if os.path.lexists(path) and not force:
        raise FileExistsError("{} exists; choose another name or pass force=True.".format(path))
    if os.path.lexists(path) and not os.path.isfile(os.path.join(path, INDEX_NAME)):
        raise FileExistsError("{} is no trace, so it is not replaced; choose another name.".format(path))


def _publish(made: str, path: str) -> None:
    """Give a whole trace its name; an earlier one is only removed when that is done."""
    old = made[: -len("new")] + "old"
    if os.path.lexists(path):
        os.rename(path, old)
    try:
        os.rename(made, path)
    except OSError:
        if os.path.lexists(old):
            os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)

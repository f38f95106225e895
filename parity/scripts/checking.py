"""Compare two modules at hand: the same weights, inputs and seeds for both, in copies of them, in this process."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from converters.errors import listed
from converters.rules import engine
from converters.rules.layout import Layout, spec_of
from converters.rules.mapping import Mapping as Rules
from legacy_adapters.ground.words import one_line, sentence
from legacy_adapters.numerics.precision import computing_in, perturb
from legacy_adapters.recording.values import changed, flatten
from legacy_adapters.scripting.capturing import CaptureError, check_model, recorded, shared_modules
from legacy_adapters.scripting.opened import opened

from ..comparing.compare import DERIVED, Tolerance
from ..comparing.converted import decisions_for_new_side, in_new_form
from ..comparing.evidence import TraceEvidence, spreads
from ..comparing.pairing import LEGACY, NEW, Exclusion
from ..sides.settings import SettingsError
from ..traces.trace import Trace, decisions
from ..verdict.outcome import INCOMPARABLE, MISMATCH
from ..verdict.verdict import Verdict, ended
from .judging import judge_scripts
from .names import GivenRules, rules_of, whole_mapping
from .projection import projection

#: Gives what a model makes of the inputs.
Call = Callable[[nn.Module, Any], Any]
#: Gives a scalar to go backward from of what a model gives.
Loss = Callable[[Any], Tensor]
Progress = Callable[[str], None]

COPY, OWN = "copy", "own"
_FLOAT64 = "float64"
#: Where a module keeps what is registered with it.
_REGISTERED = frozenset(vars(nn.Module()))
#: Types that float64 takes the place of.
_NARROW = (torch.float32, torch.float16, torch.bfloat16)
#: Seeds of the perturbed runs by which the old side's rounding is measured.
_PERTURBED = (1, 2, 3)


def call_with(model: nn.Module, inputs: Any) -> Any:
    """Call a model: a tuple holds its arguments, a dict the named ones, anything else is its only argument."""
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


@dataclass(frozen=True)
class Checked:
    """What is asked for.

    Attributes:
        inputs: of both sides, copied for each run.
        rules: from the old side's keys to the new one's.
        loss: to go backward from; None for a seeded projection of the outputs.
        weights: ``copy``: the new side gets the old one's; ``own``: each keeps its own.
        call: how a model is called.
        gradients: go backward; None where some output needs a gradient.
        seed: of all random draws.
        tolerance: what counts as equal.
        exclusions: what needs no twin.
    """

    inputs: Any
    rules: GivenRules = None
    loss: Loss | None = None
    weights: str = COPY
    call: Call = call_with
    gradients: bool | None = None
    seed: int = 0
    tolerance: Tolerance = Tolerance(DERIVED)
    exclusions: tuple[Exclusion, ...] = ()


def check_modules(old: nn.Module, new: nn.Module, asked: Checked, progress: Progress) -> Verdict:
    """Run copies of two modules on the same weights, inputs and seeds, and judge what they computed.

    Under a derived tolerance sides that have equal bits match at once. Else the old side runs again, in float64 and with
    other roundings, and so does the new one in float64.

    Raises:
        legacy_adapters.scripting.CaptureError: if a module cannot be recorded.
        converters.errors.ConversionError: if the weights cannot be copied; the message names the keys.
        SettingsError: if an argument cannot be used.
    """
    for model in (old, new):
        check_model(model)
    if asked.weights not in (COPY, OWN):
        raise SettingsError(f"weights is {asked.weights!r}; expected {COPY!r} or {OWN!r}.")
    rules = rules_of(asked.rules)
    models = {LEGACY: copied_model(old, "old"), NEW: copied_model(new, "new")}
    mapping = _mapping(rules, models)
    if asked.weights == COPY:
        _copy_weights(models, mapping)
    with tempfile.TemporaryDirectory(prefix="ddq-parity-") as made, own_states():
        runs = Runs(asked, Path(made), models)
        progress("running the old side")
        one = runs.run(LEGACY, LEGACY)
        progress("running the new side")
        two = runs.run(NEW, NEW)
        bits = Tolerance() if asked.tolerance.name == DERIVED else asked.tolerance
        verdict = judge_scripts(one, two, rules, asked.exclusions, bits)
        if asked.tolerance.name == DERIVED and verdict.outcome == MISMATCH and verdict.stop is None:
            verdict = _derived(runs, one, mapping, asked, rules, verdict, progress)
        return ended(verdict)


def _derived(
    runs: Runs, one: Trace, mapping: Rules, asked: Checked, rules: Sequence, exact: Verdict, progress: Progress
) -> Verdict:
    """Judge by the old side's own rounding, both sides under its decisions and draws."""
    formed = in_new_form(one, mapping)
    own, theirs = decisions(one), decisions_for_new_side(decisions(formed), mapping)
    two = runs.run(NEW, "replayed", replay=theirs)
    progress("measuring the rounding of the old side")
    reference = runs.run(LEGACY, "reference", dtype=_FLOAT64, replay=own, decide=False)
    again = runs.run(NEW, "new_reference", dtype=_FLOAT64, replay=theirs, decide=False)
    for side, trace in (("old", reference), ("new", again)):
        if (stop := trace.provenance.get("stopped")) is not None:
            why = f"Bits differ, and how much rounding explains is not known: in float64 the {side} side stops with "
            advice = " Pass tolerance='fixed' or 'exact'."
            return replace(exact, outcome=INCOMPARABLE, reasons=(sentence(why + stop["error"]) + advice,))

    def repeats() -> Iterator[Trace]:
        yield formed
        yield in_new_form(runs.run(LEGACY, "thread", replay=own, threads=1), mapping)
        for seed in _PERTURBED:
            yield in_new_form(runs.run(LEGACY, f"perturbed{seed}", replay=own, perturbed=seed), mapping)

    reference = in_new_form(reference, mapping)
    evidence = TraceEvidence(formed, reference, spreads(repeats(), reference), two, again)
    return judge_scripts(one, two, rules, asked.exclusions, asked.tolerance, evidence)


class Runs:
    """Run copies of two models.

    Args:
        asked: what to run.
        folder: for the traces.
        models: of both sides.
    """

    def __init__(self, asked: Checked, folder: Path, models: Mapping[str, nn.Module]) -> None:
        self._asked, self._folder, self._models = asked, folder, models

    def run(
        self, side: str, name: str, dtype: str | None = None, replay: Mapping[str, Tensor] | None = None,
        decide: bool = True, threads: int | None = None, perturbed: int | None = None,
    ) -> Trace:  # fmt: skip
        """Run a copy of one side and return its trace; if it raises, of what was recorded until then.

        Args:
            side: old or new.
            name: of the folder.
            dtype: ``float64``; None leaves the model's own.
            replay: decisions and draws to go on with.
            decide: under replay, record own decisions.
            threads: of torch; None leaves them.
            perturbed: seed of a change in the last bits of weights and inputs.
        """
        asked, wide = self._asked, dtype == _FLOAT64
        model, inputs = copy.deepcopy(self._models[side]), copied_inputs(asked.inputs)
        if wide:
            model._apply(_widened)
            _widen_attributes(model)
            inputs = _in_float64(inputs)
        _take_over_hooks(self._models[side], model)
        if perturbed is not None:
            inputs = changed(inputs, lambda slot, tensor: _apart(tensor))
            tensors = [tensor for _, tensor in flatten(opened(inputs)) if tensor.is_floating_point()]
            perturb([*model.parameters(), *model.buffers(), *tensors], perturbed)
        path = str(self._folder / name)
        before = torch.get_num_threads()
        try:
            if threads is not None:
                torch.set_num_threads(threads)
            with computing_in(_FLOAT64) if wide else nullcontext():
                with recorded(model, path, asked.seed, replay=dict(replay) if replay else None, decide=decide,
                              keep_stopped=True):  # fmt: skip
                    self._forward_and_backward(model, inputs)
        except (CaptureError, SettingsError):
            raise
        except Exception:
            if not (self._folder / name / "index.json").is_file():
                raise
        finally:
            torch.set_num_threads(before)
        return Trace.load(self._folder / name)

    def _forward_and_backward(self, model: nn.Module, inputs: Any) -> None:
        asked = self._asked
        with torch.set_grad_enabled(asked.gradients is not False):
            output = asked.call(model, inputs)
            if asked.gradients is False:
                return
            total = asked.loss(output) if asked.loss is not None else projection(output)
            if isinstance(total, Tensor) and total.requires_grad:
                total.backward()
            elif asked.gradients or asked.loss is not None:
                raise SettingsError("Nothing that the model gives needs a gradient; pass gradients=False.")


def _mapping(rules: Sequence, models: Mapping[str, nn.Module]) -> Rules:
    keys = {side: _state(model) for side, model in models.items()}
    return whole_mapping(
        rules, sorted(keys[LEGACY]), sorted(keys[NEW]), {side: shared_modules(model) for side, model in models.items()}
    )


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}


def _copy_weights(models: Mapping[str, nn.Module], mapping: Rules) -> None:
    """Give the new side the old one's weights; whole numbers that only the new side has stay its own.

    Raises:
        SettingsError: naming the keys that have no counterpart, or another dtype.
        converters.errors.ConversionError: if a tensor does not fit its rule, or its counterpart.
    """
    source, target = _state(models[LEGACY]), _state(models[NEW])
    made = {name: one for one in mapping.applications(source) if not one.missing for name in one.targets}
    lost = sorted({key for name, one in made.items() if name not in target for key in one.sources})
    open_ = sorted(key for key, value in target.items() if key not in made and value.is_floating_point())
    if lost or open_:
        said = [f"{listed(lost)} of the old side go nowhere"] if lost else []
        said += [f"nothing becomes {listed(open_)} of the new side"] if open_ else []
        raise SettingsError(
            f"The weights cannot be copied: {', and '.join(said)}; give rules that say which becomes which (docs/rules.md), or "
            'pass weights="own" if both have their weights already.'
        )
    for name, one in made.items():
        kinds = [str(source[one.sources[0]].dtype), str(target[name].dtype)]
        if kinds[0] != kinds[1]:
            told = [kind.removeprefix("torch.") for kind in kinds]
            raise SettingsError(
                f"`{one.sources[0]}` is {told[0]} on the old side and {told[1]} on the new one; bring both to one type, for "
                f"instance with new.to({kinds[0]})."
            )
    layout = Layout("the new side", {key: spec_of(target[key]) for key in made})
    converted = engine.convert(source, mapping, NEW, layout).state_dict
    with torch.no_grad():
        for key, value in converted.items():
            target[key].copy_(value)


def _copied(value: Any, name: str, instead: str) -> Any:
    """Return a deep copy.

    Raises:
        SettingsError: if ``value``, called ``name``, cannot be copied; it ends with what to do ``instead``.
    """
    try:
        return copy.deepcopy(value)
    except Exception as error:
        raise SettingsError(
            f"{name} cannot be copied ({type(error).__name__}: {one_line(str(error))}); {instead}."
        ) from error


def copied_model(model: nn.Module, name: str) -> nn.Module:
    """Return a copy of a module, which has the hooks on its parameters and buffers, too."""
    made = _copied(model, name, "record it with parity.capture instead")
    _take_over_hooks(model, made)
    return made


def _take_over_hooks(model: nn.Module, made: nn.Module) -> None:
    """Put the hooks on a model's parameters and buffers on those of its copy; torch copies a tensor without them."""
    for tensors in (nn.Module.named_parameters, nn.Module.named_buffers):
        copies = dict(tensors(made))
        for name, tensor in tensors(model):
            for hook in (tensor._backward_hooks or {}).values():
                copies[name].register_hook(hook)
            for hook in (getattr(tensor, "_post_accumulate_grad_hooks", None) or {}).values():
                copies[name].register_post_accumulate_grad_hook(hook)


def copied_inputs(inputs: Any) -> Any:
    """Return a copy of what a module is given."""
    return _copied(inputs, "The inputs", "detach their tensors first")


def _widened(tensor: Tensor) -> Tensor:
    """Return a tensor in double precision; whole numbers stay."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


def _widen_attributes(model: nn.Module) -> None:
    """Bring tensors that modules hold without registering them, anchors say, to double precision."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, (Tensor, list, tuple, dict)) and name not in _REGISTERED:
                wide = changed(value, lambda slot, tensor: tensor.double() if tensor.dtype in _NARROW else None)
                if wide is not value:
                    setattr(module, name, wide)


def _apart(tensor: Tensor) -> Tensor | None:
    """Return a copy of a tensor of which several elements are one in memory; None of any other."""
    shared = any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape))
    return tensor.clone(memory_format=torch.contiguous_format) if shared else None


def _in_float64(inputs: Any) -> Any:
    """Return inputs with float tensors in double precision; those within objects stay as they are."""
    return changed(inputs, lambda slot, tensor: tensor.double() if tensor.is_floating_point() and tensor.dim() else None)


@contextmanager
def own_states() -> Iterator[None]:
    """Leave the random generators of the script as they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    numpys, pythons = numpy.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        numpy.random.set_state(numpys)
        random.setstate(pythons)


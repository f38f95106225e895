"""Train a model for some steps, as its code base does it, and record every step in a phase of its own.

Per step, in this order: arguments and results of methods, taps and their basis, loss terms, the settings of each
parameter's group, gradients in the order in which backward reached them, the norm they are clipped by, the optimizer's
state, all weights and buffers.
Module calls are counted, not recorded.

A training is free, or each step starts from the state that another side's step left (*forced*). Errors grow from step
to step without limit, so only forced steps can be judged by what rounding explains.

Random draws are seeded anew for every step.

A training may be stopped: after that step a checkpoint is written, or one is read in place of taking the steps up to
there, and what the next step starts from is recorded as left by the step before.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Optional, Set, Tuple

import torch
from safetensors.torch import load_file

from .. import contract
from ..inputs import placed
from ..job import Job
from ..numerics.precision import as_stored, perturb
from ..numerics.seeding import seed_all
from ..recording import kinds
from ..recording.recorder import Recorder
from .phases import phase_of
from .ranks import Meeting
from .settings import ALWAYS, IMPLIED, options_of
from .states import RecordedStates

TWIN, OWN = "twin", "own"


class Training:
    """How a code base trains; an adapter's ``training`` returns one, made with the code base's own functions.

    Attributes:
        optimizer: torch's, whose groups and state are recorded.
    """

    optimizer: torch.optim.Optimizer

    def watch(self, backward_done: Callable[[], None], clip: Callable[[Callable], Callable]) -> None:
        """Take what observes an update.

        Args:
            backward_done: to be called between backward and clipping.
            clip: makes of the function that clips the one to be called instead; its first argument is the parameters.
        """
        raise NotImplementedError

    def wrapper_options(self) -> Dict[str, Any]:
        """Return what an update does besides what the optimizer's groups say: numbers, names of classes."""
        return {}

    def context(self) -> ContextManager:
        """Return what the losses are to be computed within."""
        return nullcontext()

    def update(self, total: torch.Tensor) -> None:
        """Propagate back from the loss, clip, step and clear the gradients."""
        raise NotImplementedError

    def advance(self, epoch_ended: bool) -> None:
        """Set learning rates for the next step."""
        raise NotImplementedError

    def save(self, path: str, step: int) -> None:
        """Write a checkpoint of the moment after ``step``, as the code base's own training loop does."""
        raise NotImplementedError("this adapter's training writes no checkpoints")

    def resume(self, path: str, step: int) -> None:
        """Go on from a checkpoint of the moment after ``step``, as the code base's own training loop does.

        Raises:
            ValueError: if it is one of another moment, or lacks something.
        """
        raise NotImplementedError("this adapter's training cannot be resumed")


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        steps: how many.
        epoch_length: steps after which an epoch ends; None for never.
        clip_order: ``twin`` or ``own``, told in the provenance.
        clip_names: parameters in the order to sum their norms in, others behind them; none for the optimizer's own.
        states: what to start each step from; None for where the last one ended.
        perturb: seed of a perturbation of these states by one unit in the last place; None for none.
        stop: the step after which the training is stopped and goes on; 0 for none.
        save: file for the checkpoint of that moment, or None.
        resume: checkpoint to go on from, in place of taking the steps up to there, or None.
        seed: of random draws.
        rank: of this process among those that train together; None for one that trains alone.
    """

    steps: int
    epoch_length: Optional[int] = None
    clip_order: str = TWIN
    clip_names: Tuple[str, ...] = ()
    states: Optional[RecordedStates] = None
    perturb: Optional[int] = None
    stop: int = 0
    save: Optional[str] = None
    resume: Optional[str] = None
    seed: int = 0
    rank: Optional[int] = None

    def phase(self, step: int) -> str:
        """Name the phase of a step of this training."""
        return phase_of(step, self.rank)


class StepLoop:
    """A training of some steps, each recorded.

    To be made before the model runs for the first time: some code bases set attributes in training, and an optimizer
    made later would find these parameters twice.

    Args:
        training: of the model's code base.
        model: with the weights to start from; they are kept and put back by :meth:`run`.
        recorder: gets the records; attached to the model.
        plan: how to train.
        trained: what the losses are computed with: the model, or what it is wrapped in for several ranks.
        meeting: of several ranks, None for one process.

    Attributes:
        objects: of each image of every step taken, by phase; to be filled by who gives the batches.
        reductions: of several ranks, how often the code of each module summed something over them, by phase.

    Raises:
        ValueError: if the optimizer has a parameter that the model has not.
    """

    def __init__(
        self,
        training: Training,
        model: torch.nn.Module,
        recorder: Recorder,
        plan: Plan,
        trained: Optional[torch.nn.Module] = None,
        meeting: Optional[Meeting] = None,
    ) -> None:
        self.training, self.model, self.recorder, self.plan = training, model, recorder, plan
        self.trained, self.meeting = model if trained is None else trained, meeting
        self._start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        parameters = dict(model.named_parameters())
        self._names = {id(param): name for name, param in parameters.items()}
        self._trained = {name: param for name, param in parameters.items() if param.requires_grad}
        self._place = {id(parameters[name]): i for i, name in enumerate(plan.clip_names) if name in parameters}
        if any(id(p) not in self._names for group in training.optimizer.param_groups for p in group["params"]):
            raise ValueError("the optimizer holds a parameter that is none of the model's; its steps cannot be named")
        self._visited: List[str] = []
        self.objects: Dict[str, List[int]] = {}
        self.reductions: Dict[str, Dict[str, int]] = {}
        self.reached: Set[str] = set()
        for name, param in self._trained.items():
            param.register_hook(self._note(name))
        training.watch(self._record_backward, self._clipping)

    def run(self, step_losses: Callable[[int], Any]) -> None:
        """Put the weights back and train; ``step_losses`` gives the loss terms and their sum for a step from 1 on."""
        self._reset()
        self.model.train()
        for step in range(1, self.plan.steps + 1):
            seed_all(self.plan.seed, self.plan.phase(step))
            if step > self.plan.stop:
                if step > 1 and self.plan.states is not None:
                    self._force(self.plan.phase(step - 1), self.plan.states)
                with self.recorder.in_phase(self.plan.phase(step), modules=False, draws=True, methods=True):
                    self._take(step, step_losses)
            elif self.plan.resume is None:
                self._take(step, step_losses)  # in no phase: not recorded
            if step == self.plan.stop:
                self._stop()

    def _take(self, step: int, step_losses: Callable[[int], Any]) -> None:
        epoch_length = self.plan.epoch_length
        with self.training.context(), self._together(self.plan.phase(step)):
            terms, total = step_losses(step)
        for name, value in terms.items():
            self.recorder.add(kinds.LOSS, name, 0, value)
        self.recorder.add(kinds.LOSS, "total", 0, total)
        self.training.update(total)
        # first: what it might change belongs to this step, and is lost where the next one is forced
        self.training.advance(epoch_length is not None and step % epoch_length == 0)
        self._record_state()

    def _together(self, phase: str) -> ContextManager:
        """Count the sums over several ranks within, on which these agree; one process has none."""
        if self.meeting is None:
            return nullcontext()
        counts = self.reductions[phase] = {}

        def note() -> str:
            scope = self.recorder.scope
            counts[scope] = counts.get(scope, 0) + 1
            return "`{}`".format(scope) if scope else "the detector"

        return self.meeting.forward(note)

    def _stop(self) -> None:
        """Write the checkpoint, or take one up; record what the next step starts from."""
        plan = self.plan
        if plan.save is not None:
            self.training.save(plan.save, plan.stop)
        if plan.resume is not None:
            self.training.resume(plan.resume, plan.stop)
        with self.recorder.in_phase(plan.phase(plan.stop), modules=False):
            self._record_settings()
            self._record_state()

    def provenance(self) -> Dict[str, Any]:
        """Tell how it was trained, by which optimizer, and how many frozen parameters stand in its groups."""
        optimizer, plan = self.training.optimizer, self.plan
        of_ranks = {}
        if self.meeting is not None:
            of_ranks = dict(objects=self.objects, reductions=self.reductions, wrapper=wrapper_of(self.trained))
        grouped = [param for group in optimizer.param_groups for param in group["params"]]
        return dict(
            steps=plan.steps,
            clip_order=plan.clip_order,
            forced=plan.states is not None,
            resume_at=plan.stop,
            resumed=plan.resume is not None,
            epoch_length="endless" if plan.epoch_length is None else plan.epoch_length,
            optimizer=type(optimizer).__name__,
            optimizer_groups=len(optimizer.param_groups),
            frozen_in_groups=sum(not param.requires_grad for param in grouped),
            **of_ranks,
        )

    def _reset(self) -> None:
        self.reached.update(name for name, param in self._trained.items() if param.grad is not None)
        self._visited.clear()
        for param in self.model.parameters():
            param.grad = None
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                if name in self._start:
                    tensor.copy_(self._start[name])

    def _note(self, name: str) -> Callable[[torch.Tensor], None]:
        def note(gradient: torch.Tensor) -> None:
            self._visited.append(name)

        return note

    def _record_backward(self) -> None:
        self._record_settings()
        for name in dict.fromkeys([*self._visited, *self._trained]):
            gradient = self._trained[name].grad
            if gradient is not None:
                self.reached.add(name)
                self.recorder.add(kinds.GRAD, name, 0, gradient)
        self._visited.clear()

    def _record_settings(self) -> None:
        kind = kind_of(self.training.optimizer)
        options = {"class": kind}
        self.recorder.add(kinds.UPDATE, "optimizer", 0, options_of(options))
        self.recorder.add(kinds.UPDATE, "optimizer wrapper", 0, options_of(self.training.wrapper_options()))
        implied = IMPLIED.get(kind, {})
        for name, _, group in self._grouped():
            options = {key: value for key, value in group.items() if implied.get(key) != value}
            self.recorder.add(kinds.SETTING, name, 0, options_of(options, (*ALWAYS, *implied)))

    def _clipping(self, clip: Callable) -> Callable:
        signature = inspect.signature(clip)

        def clipping(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            ordered = sorted(parameters, key=lambda param: self._place.get(id(param), len(self._place)))
            given = signature.bind(ordered, *args, **kwargs)
            given.apply_defaults()
            # before the norm, which follows from them
            self.recorder.add(kinds.CLIP, "gradients", 0, options_of(given.arguments))
            result = clip(ordered, *args, **kwargs)
            if result is not None:
                self.recorder.add(kinds.CLIP, "gradients", 0, {"total_norm": result})
            return result

        return clipping

    def _grouped(self) -> Iterator[Tuple[str, torch.Tensor, Dict[str, Any]]]:
        """Yield name, parameter and group, in the optimizer's order; frozen parameters are in some groups, too."""
        for group in self.training.optimizer.param_groups:
            for param in group["params"]:
                if param.requires_grad:
                    yield self._names[id(param)], param, group

    def _record_state(self) -> None:
        for name, param, _ in self._grouped():
            self.recorder.add(kinds.OPTIM_STATE, name, 0, self.training.optimizer.state.get(param, {}))
        # what training sets as an attribute may be in the state dict a second time: the names of the start only
        after = self.model.state_dict()
        for name in sorted(self._start):
            self.recorder.add(kinds.STATE, name, 0, after[name])

    def _force(self, phase: str, states: RecordedStates) -> None:
        weights, kept = self.model.state_dict(), self.training.optimizer.state
        with torch.no_grad():
            for kind, name, slot, value in states.after(phase):
                held = weights.get(name) if kind == kinds.STATE else kept.get(self._trained.get(name), {}).get(slot)
                # the optimizer's counter stays this side's own: it is compared, and nothing rounds in it
                if held is not None and held.shape == value.shape and slot != "step":
                    held.copy_(value)
        if self.plan.perturb is not None:
            perturb([*self.model.parameters(), *self.model.buffers()], self.plan.perturb)


def wrapper_of(trained: torch.nn.Module) -> Dict[str, Any]:
    """Tell what a model is wrapped in for several ranks, with the options by which such wrappers differ."""
    options = {name: getattr(trained, name, None) for name in ("broadcast_buffers", "find_unused_parameters")}
    return dict(options, name=type(trained).__name__)


def kind_of(thing: Any) -> str:
    """Return the name of the class whose methods ``thing`` has: a subclass that overrides none is that class."""
    classes = type(thing).__mro__
    for place, cls in enumerate(classes):
        own = [name for name, value in vars(cls).items() if _is_defined_in(cls, value)]
        if cls.__module__.partition(".")[0] in ("torch", "mmengine") or any(
            hasattr(base, name) for base in classes[place + 1 : -1] for name in own if name != "__init__"
        ):
            return cls.__name__
    return classes[0].__name__


def _is_defined_in(cls: type, value: Any) -> bool:
    """Tell a method of ``cls`` from one that was put there: torch wraps ``step`` in the class of every optimizer."""
    function = inspect.unwrap(value) if callable(value) else value
    return inspect.isfunction(function) and function.__qualname__.rpartition(".")[0] == cls.__qualname__


def prepare(job: Job, adapter: Any, model: torch.nn.Module, recorder: Recorder) -> StepLoop:
    """Make the training that ``job`` asks for.

    Raises:
        legacy_adapters.adapter.UnableError: if the adapter cannot train.
    """
    states = None if job.states is None else RecordedStates(job.states, job.state_names)
    plan = Plan(
        job.steps,
        job.epoch_length,
        job.clip_order,
        job.clip_names,
        states,
        job.perturb,
        job.resume_at,
        job.checkpoint_to,
        job.checkpoint_from,
        job.seed,
        job.rank,
    )
    if job.rank is None:
        return StepLoop(adapter.training(model, job.options, job.epoch_length), model, recorder, plan)
    trained = contract.result(adapter, "distributed", model, job.options)
    training = adapter.training(trained, job.options, job.epoch_length)
    return StepLoop(training, model, recorder, plan, trained, Meeting(job))


def inputs_of(job: Job, adapter: Any, step: int) -> Dict[str, torch.Tensor]:
    """Read the inputs of a step, perturbed like the weights where the job asks for that."""
    with as_stored():
        tensors = load_file(job.step_inputs[(step - 1) * job.ranks + (job.rank or 0)])
    tensors = placed(tensors, job.device, getattr(torch, job.dtype))
    if job.perturb is not None:
        perturb(adapter.perturbed(tensors), job.perturb)
    return tensors

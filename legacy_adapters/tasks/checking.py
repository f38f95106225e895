"""Run the checks of a job: inference, losses with their gradients, training steps, and what taps are probed with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence

import torch

from .. import contract
from ..adapter import Adapter
from ..inputs import PREDICT, TRAIN
from ..job import Job
from ..named_inputs import NamedInputs
from ..numerics.precision import autocasting
from ..numerics.seeding import seed_all
from ..recording import kinds
from ..recording.recorder import Recorder
from ..recording.taps import Tap, installed
from ..recording.untouched import Untouched
from ..training import steps
from . import made_up, probes


@dataclass(frozen=True)
class Checks:
    """What the checks of a job are run on.

    Attributes:
        job: which checks, and how.
        adapter: of the side.
        model: of the side, on its device.
        inputs: tensors of each phase by their names.
        recorder: of everything that is computed.
        replay: decisions and draws to go on with; None for the side's own.
        loop: the training, if it is among the checks.
        taps: of the adapter.
        untouched: looks whether a batch is changed.
    """

    job: Job
    adapter: Adapter
    model: torch.nn.Module
    inputs: Dict[str, Dict[str, torch.Tensor]]
    recorder: Recorder
    replay: Optional[Dict[str, torch.Tensor]]
    loop: Optional[steps.StepLoop]
    taps: Sequence[Tap]
    untouched: Untouched

    def run(self) -> None:
        """Run them in the order in which one leaves the model as the next one wants it."""
        loaded = sorted(self.model.state_dict())
        with installed(self.taps, self.recorder, self.replay, self.job.decide):
            if "forward" in self.job.checks:
                self._infer()
            if "loss" in self.job.checks or "grad" in self.job.checks:
                self._compute_losses(loaded)
            if self.loop is not None:
                self.loop.run(self._step_losses)
            if "forward" in self.job.checks:
                self._probe()

    def _infer(self) -> None:
        self.model.eval()
        seed_all(self.job.seed, PREDICT)
        with torch.no_grad(), self.recorder.in_phase(PREDICT, draws=True):
            with self.untouched.given(PREDICT, self.inputs[PREDICT], self.adapter.batch) as batch, self._autocasting():
                results = contract.result(self.adapter, "predict", self.model, batch)
            self._add_results(results)
        if not self.job.force:  # module by module nothing is new in these
            self._run_variants()
        self._infer_made_up()

    def _run_variants(self) -> None:
        """Run the other forms of inference that the adapter names, each on the samples in another order.

        So every batch of images is padded to one size and holds other sizes in it: what code keeps for a padded size,
        or for a place in the batch, is wrong in the next. Where the job asks for that, module calls are recorded in the
        first of them, so that this is seen where it happens.
        """
        for number, (name, run) in enumerate(self.adapter.variants(self.model).items(), 1):
            seed_all(self.job.seed, name)
            calls = self.job.variant_calls and number == 1
            tensors = self.adapter.rotated(self.inputs[PREDICT], number)
            with torch.no_grad(), self.recorder.in_phase(name, calls=calls, methods=True):
                with self.untouched.given(name, tensors, self.adapter.batch) as batch, self._autocasting():
                    results = run(batch)
                for index, result in enumerate(results):
                    self.recorder.add(kinds.TAP, kinds.RESULT, index, result)

    def _infer_made_up(self) -> None:
        """Run inference on made-up predictions, where the model is known to have such."""
        name = self.adapter.predictor(self.model)
        if name is None:
            return
        batch = self.adapter.batch(self.inputs[PREDICT])
        seed_all(self.job.seed, made_up.PHASE)
        with torch.no_grad(), self.recorder.in_phase(made_up.PHASE, calls=False), self._autocasting():
            results = made_up.run(lambda: self.adapter.predict(self.model, batch), self.model.get_submodule(name))
            for index, result in enumerate(results):
                self.recorder.add(kinds.TAP, made_up.NAME, index, result, scope=name)

    def _compute_losses(self, loaded: Sequence[str]) -> None:
        """Compute losses, and gradients if they are asked for; record the weights of the names ``loaded`` afterwards.

        What a training step sets as an attribute may be in the state dict a second time, under further names.
        """
        self.model.train()
        seed_all(self.job.seed, TRAIN)
        with self.recorder.in_phase(TRAIN, draws=True):
            # backward is outside, as torch asks: it computes in the types of the forward pass
            with self.untouched.given(TRAIN, self.inputs[TRAIN], self.adapter.batch) as batch, self._autocasting():
                terms, total = contract.result(self.adapter, "losses", self.model, batch)
            for name, value in terms.items():
                self.recorder.add(kinds.LOSS, name, 0, value)
            self.recorder.add(kinds.LOSS, "total", 0, total)
            if "grad" in self.job.checks:
                total.backward()
                for name, param in sorted(self.model.named_parameters()):
                    if param.grad is not None:
                        self.recorder.add(kinds.GRAD, name, 0, param.grad)
            after = self.model.state_dict()
            for name in loaded:
                self.recorder.add(kinds.STATE, name, 0, after[name])

    def _step_losses(self, step: int) -> Any:
        phase = self.loop.plan.phase(step)
        tensors = NamedInputs(phase, steps.inputs_of(self.job, self.adapter, step))
        with self.untouched.given(phase, tensors, self.adapter.batch) as batch:
            self.loop.objects[phase] = self.adapter.objects(batch)
            return contract.result(self.adapter, "losses", self.loop.trained, batch)

    def _probe(self) -> None:
        self.model.eval()
        with torch.no_grad(), self.recorder.in_phase(probes.PHASE):
            for tap in self.taps:
                for arguments in tap.probe() if tap.probe is not None else ():
                    getattr(tap.owner, tap.attribute)(*arguments)

    def _add_results(self, results: Any) -> None:
        for index, result in enumerate(self.adapter.results(results)):
            self.recorder.add(kinds.TAP, kinds.RESULT, index, result)

    def _autocasting(self) -> Any:
        return autocasting(self.job.device, self.job.amp)

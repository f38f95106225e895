"""The job file: what the parent process asks a worker to do. A JSON object, one field per attribute.

Imports the standard library only, so that an interpreter without torch can still report that.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Optional, Tuple

from .ground.files import write_whole

CHECKS = ("forward", "loss", "grad", "init", "train")


@dataclass(frozen=True)
class Job:
    """One run of one side.

    Attributes:
        family: of the legacy side; written into the trace.
        variant: of the model; written into the trace.
        adapter: path of the adapter's Python file.
        title: what the code base is called, where the adapter does not say.
        options: given to the adapter as they are, e.g. the repo's path and the config.
        weights: safetensors file of the state dict to load, strictly.
        inputs: safetensors file of the batches, one for inference and one for losses and gradients, see
            :mod:`legacy_adapters.inputs`.
        trace: folder to write the trace to.
        status: file to write ``{"ok": bool, "error": str, "place": str, "traceback": str}`` to; see
            :func:`legacy_adapters.origin.report`. An adapter that cannot be used adds ``"refused": true``.
        checks: some of ``forward``, ``loss``, ``grad``, ``init``, ``train``; ``grad`` implies ``loss``. None for
            ``eval``.
        seed: of all random draws: generators are set anew before each phase and step, see
            :mod:`legacy_adapters.numerics.seeding`.
        threads: of torch's CPU kernels.
        cpu_capability: ``default``, ``avx2`` or ``avx512``; None leaves torch its choice.
        device: ``cpu`` or ``cuda[:n]``.
        dtype: ``float32`` or ``float64``, of weights, inputs and everything computed.
        amp: ``bf16`` or ``fp16``: run the model under torch's autocast to that; None for none.
        perturb: seed of a perturbation of weights and images by one unit in the last place; None for none.
        replay: decisions bundle to force, or None.
        decide: make and record own decisions also under replay; False takes the replayed ones as they are.
        gradient_flow: with ``grad``, record gradients over the borders of module calls, where this torch can.
        target: fields of :class:`legacy_adapters.recording.extract.Target`, a call to save; None for none.
        force: file of values to go on with instead of own ones, see :mod:`.recording.forcing`; None for none.
        step_inputs: for ``train``, the file of each step's batch; of several ranks, of each rank's in turn.
        epoch_length: steps after which an epoch ends; None for never.
        clip_order: ``twin`` or ``own``, written into the trace.
        clip_names: parameters in the order in which their norms are summed; none for the optimizer's own.
        states: trace whose states each step starts from; None for where this side's own last step ended.
        resume_at: for ``train``, the step after which the training is stopped and goes on from a checkpoint;
            steps up to it are not recorded. 0 for none.
        checkpoint_to: file to write the checkpoint of that moment to; None for none.
        checkpoint_from: checkpoint to go on from, in place of taking the steps before; None to take them.
        state_names: names in that trace of this side's parameters and buffers, where they differ.
        images: to detect objects in image files in place of everything else: a JSON list of ``{"id", "file"}``, see
            :mod:`legacy_adapters.tasks.detecting`; None for a trace.
        detections: file to write what was found to; None for a trace.
        foreign: modules and places of the other side's code, see :func:`.provenance.executed.check_apart`; none of
            them may be loaded when the run ends.
        variant_calls: record module calls in inference without rescaling, too, not only taps and methods.
        beside: folder of the other side's trace, whose tensors are not stored again, or None.
        ranks: for ``train``, how many processes train together, see :mod:`legacy_adapters.training.ranks`.
        rank: which of several this process is; None for the one that starts them.
        meeting: file by which they find each other; must not exist; None for one rank.
        patience: seconds that a rank waits for another one.
        describe: file to describe the adapter's model in, see :mod:`legacy_adapters.tasks.describing`, in place of
            everything else; None for a trace.
        runs: the model whose layout is described will be run, so no operator of its code may be lacking.
        trains: describe the groups of the optimizer of the model's config, too.
        whole: a whole training or test by the code base's own runner, in place of everything else:
            ``{"kind", "request"}``, see :mod:`legacy_adapters.whole.request`; None for none.
        preprocess: images to run through the side's pipelines in place of everything else, see
            :mod:`legacy_adapters.tasks.preprocessing`; None for none.
        layout: file of the model's weights, name -> shape: only look whether the adapter can do the job, see
            :func:`legacy_adapters.contract.look`; None to do it.
    """

    family: str
    variant: str
    adapter: str
    options: Dict[str, Any]
    weights: str
    inputs: str
    trace: str
    status: str
    checks: Tuple[str, ...]
    seed: int
    threads: int
    cpu_capability: Optional[str]
    device: str
    dtype: str = "float32"
    amp: Optional[str] = None
    perturb: Optional[int] = None
    replay: Optional[str] = None
    decide: bool = True
    gradient_flow: bool = True
    force: Optional[str] = None
    target: Optional[Dict[str, Any]] = None
    step_inputs: Tuple[str, ...] = ()
    epoch_length: Optional[int] = None
    clip_order: str = "twin"
    clip_names: Tuple[str, ...] = ()
    states: Optional[str] = None
    resume_at: int = 0
    checkpoint_to: Optional[str] = None
    checkpoint_from: Optional[str] = None
    state_names: Dict[str, str] = field(default_factory=dict)
    title: str = ""
    images: Optional[str] = None
    detections: Optional[str] = None
    foreign: Tuple[str, ...] = ()
    variant_calls: bool = False
    beside: Optional[str] = None
    ranks: int = 1
    rank: Optional[int] = None
    meeting: Optional[str] = None
    patience: float = 600.0
    describe: Optional[str] = None
    runs: bool = False
    trains: bool = False
    whole: Optional[Dict[str, Any]] = None
    preprocess: Optional[Dict[str, Any]] = None
    layout: Optional[str] = None

    @property
    def steps(self) -> int:
        """How many steps ``train`` takes."""
        return len(self.step_inputs) // self.ranks

    def save(self, path: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=1, sort_keys=True)

    @classmethod
    def load(cls, path: str) -> "Job":
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
        for name in ("checks", "step_inputs", "clip_names", "foreign"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def write_json(path: str, value: object) -> None:
    """Write ``value`` as a whole file, keys in order."""
    write_whole(path, json.dumps(value, sort_keys=True, separators=(",", ":")))  # several times as fast as `dump`

"""Run one job: build a model with an adapter, run the checks, write the trace. ``python worker.py JOB.json``.

A job with images detects objects in these in place of checks, and writes what it finds. One of a whole training or test
hands over to the code base's own runner. One with a layout only looks
whether the adapter can do it. One of several ranks forks into a worker for each.

Runs in the interpreter of the code base under test, which need not have this toolkit installed: the package
``legacy_adapters`` is loaded from the folder this file lies in.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import platform
import sys
from typing import Any, Dict, Set

PACKAGE = "legacy_adapters"


def main(job_path: str) -> int:
    """Run the job; every failure ends up in its status file. Return the exit code."""
    gc.disable()  # until the code base is loaded: see `_loaded`
    _load_package()
    from legacy_adapters import contract
    from legacy_adapters.ground.packages import missing
    from legacy_adapters.job import Job, write_json
    from legacy_adapters.origin import UnusableInputError, report
    from legacy_adapters.provenance import executed

    executed.watch()
    job = Job.load(job_path)
    try:
        from legacy_adapters.loading import load_adapter
        from legacy_adapters.training import ranks  # which needs torch

        if job.layout is not None:
            contract.look(job, load_adapter)
        elif job.describe is not None:
            from legacy_adapters.tasks import describing

            describing.describe(job, contract.loaded(job.adapter, load_adapter))
        elif job.whole is not None:
            run_whole(job)
        elif job.preprocess is not None:
            run_preprocessing(job)
        elif job.ranks > 1 and job.rank is None:
            load_adapter(job.adapter)  # what it imports, each rank need not
            ranks.run(job, main)
        else:
            with ranks.joined(job):
                run(job)
        executed.check_apart(list(job.foreign))
    except BaseException as raised:  # the parent must learn of anything at all, SystemExit of a code base included
        error = contract.refusal(raised)
        refused = isinstance(error, UnusableInputError)
        write_json(job.status, dict(report(error), ok=False, refused=refused, missing=missing(raised)))
        return 1
    write_json(job.status, dict(ok=True, error="", place="", traceback=""))
    return 0


def _loaded() -> None:
    """Collect garbage from here on, but not among the modules of the code base, which stay: that takes seconds in all."""
    gc.freeze()
    gc.enable()


def run_whole(job: Any) -> None:
    """Train or test with the code base's own runner, and leave the outcome in the work dir."""
    from dataclasses import asdict

    from legacy_adapters import contract
    from legacy_adapters.job import write_json
    from legacy_adapters.loading import load_adapter
    from legacy_adapters.whole import request as whole

    if not job.device.startswith("cuda"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a runner takes a GPU wherever it sees one
    _set_numerics(job.threads)
    adapter = contract.loaded(job.adapter, load_adapter)
    _loaded()
    request = whole.from_plain(job.whole["kind"], job.whole["request"])
    outcome = (adapter.train_whole if job.whole["kind"] == whole.TRAIN else adapter.test_whole)(request)
    provenance = dict(_environment(job), **adapter.provenance(request.options))
    write_json(os.path.join(request.work_dir, whole.OUTCOME), dict(asdict(outcome), provenance=provenance))


def run_preprocessing(job: Any) -> None:
    """Record what the side's transforms make of image files."""
    from legacy_adapters import contract
    from legacy_adapters.loading import load_adapter
    from legacy_adapters.numerics.seeding import seed_all
    from legacy_adapters.provenance import executed
    from legacy_adapters.recording.trace_writer import TraceWriter
    from legacy_adapters.tasks import preprocessing

    _set_numerics(job.threads)
    adapter = contract.loaded(job.adapter, load_adapter)
    seed_all(job.seed, "build")
    model = adapter.build(job.options, job.device)
    _loaded()
    with executed.unwatched():
        told = adapter.provenance(job.options)
    provenance = dict(_environment(job), **dict(dict(code_base=job.title), **told))
    provenance.update(files=executed.files(), packages=executed.packages())
    preprocessing.run(job, adapter, model, TraceWriter(job.trace, job.beside), provenance)


def run(job: Any) -> None:
    """Build, run, record."""
    import torch
    from safetensors.torch import load_file

    from legacy_adapters import contract
    from legacy_adapters.loading import load_adapter
    from legacy_adapters.numerics.seeding import seed_all
    from legacy_adapters.provenance import executed
    from legacy_adapters.recording.trace_writer import TraceWriter
    from legacy_adapters.tasks import detecting, initialising

    _set_numerics(job.threads)
    adapter = load_adapter(job.adapter)
    writer = TraceWriter(job.trace, job.beside) if job.images is None else None
    initial = initialising.record(job, adapter, writer) if initialising.CHECK in job.checks else None
    seed_all(job.seed, "build")
    model = adapter.build(job.options, job.device)
    _loaded()
    contract.check_operators(model, job.adapter)
    _load_weights(model, load_file(job.weights))
    dtype = getattr(torch, job.dtype)
    model.to(job.device)
    torch.nn.Module.to(model, dtype)  # some models' own `to` takes a device and nothing else
    with executed.unwatched():  # it reads code to tell which it is
        told = adapter.provenance(job.options)
    provenance = dict(_environment(job), **dict(dict(code_base=job.title), **told))
    if writer is None:
        detecting.run(job, adapter, model, provenance)
    else:
        more = {} if initial is None else {initialising.INIT: initial}
        _record(job, adapter, model, dtype, provenance, writer, more)


def _record(
    job: Any,
    adapter: Any,
    model: Any,
    dtype: Any,
    provenance: Dict[str, Any],
    writer: Any,
    more: Dict[str, Any],
) -> None:
    """Run the checks and write the trace; if they end with an error, of what was recorded until then.

    The error, which is raised again, stands in the trace's provenance as ``stopped``. ``more`` is coverage beside what
    the recorder tells.
    """
    from safetensors.torch import load_file

    from legacy_adapters import contract
    from legacy_adapters.inputs import PREDICT, TRAIN, of_phase, placed
    from legacy_adapters.named_inputs import NamedInputs
    from legacy_adapters.numerics.precision import computing_in, perturb
    from legacy_adapters.origin import report
    from legacy_adapters.provenance import executed
    from legacy_adapters.recording.untouched import Untouched
    from legacy_adapters.tasks.checking import Checks
    from legacy_adapters.training import steps

    given = load_file(job.inputs)
    inputs = {
        phase: NamedInputs(phase, placed(of_phase(given, phase), job.device, dtype)) for phase in (PREDICT, TRAIN)
    }
    replay = load_file(job.replay) if job.replay else None
    recorder = _recorder(job, adapter, model, writer)
    if job.perturb is not None:
        changed = [tensor for tensors in inputs.values() for tensor in adapter.perturbed(tensors)]
        perturb([*model.parameters(), *model.buffers(), *changed], job.perturb, job.amp)
    parameters = dict(model.named_parameters())  # training may add names
    loop, untouched = None, Untouched()
    provenance["batch_sizes"] = {phase: adapter.sizes(contract.batch(adapter, tensors)) for phase, tensors in inputs.items()}
    try:
        with computing_in(job.dtype):
            loop = steps.prepare(job, adapter, model, recorder) if "train" in job.checks else None
            taps = contract.result(adapter, "taps", model)
            provenance["detects"] = adapter.result_keys is not None
            provenance["classes"] = adapter.classes(model)
            provenance["probed"] = any(tap.probe is not None for tap in taps)
            Checks(job, adapter, model, inputs, recorder, replay, loop, taps, untouched).run()
    except BaseException as error:
        provenance["stopped"] = report(error)
        raise
    finally:
        provenance.update(loop.provenance() if loop is not None else {})
        provenance.update(files=executed.files(), packages=executed.packages(), peak_memory=_peak_memory(job.device))
        reached = loop.reached if loop is not None else set()
        coverage = dict(recorder.coverage(), **_gradient_coverage(parameters, reached), **more)
        coverage["changed_inputs"] = untouched.changed
        recorder.writer.finish(provenance, coverage)


def _recorder(job: Any, adapter: Any, model: Any, writer: Any) -> Any:
    """Let a recorder watch the model, whose weights it records first."""
    from legacy_adapters.recording import kinds
    from legacy_adapters.recording.extract import Target
    from legacy_adapters.recording.forcing import Forcing
    from legacy_adapters.recording.recorder import Recorder
    from legacy_adapters.training import phases

    forcing = Forcing(job.force) if job.force else None
    target = Target(**job.target) if job.target else None
    recorder = Recorder(writer, _records_flow(job), forcing, target, adapter.aside(model), adapter.methods)
    recorder.attach(model)
    with recorder.in_phase(phases.on_rank("weights", job.rank)):
        for name, tensor in sorted(model.state_dict().items()):
            recorder.add(kinds.PARAM, name, 0, tensor)
    return recorder


def _records_flow(job: Any) -> bool:
    """Tell whether gradients are recorded where they cross the borders of module calls."""
    from legacy_adapters.recording import gradients

    return "grad" in job.checks and job.gradient_flow and gradients.supported()


def _load_weights(model: Any, weights: Dict[str, Any]) -> None:
    """Load strictly, but leave whole-number buffers the file lacks (counters, index tables) as the model made them.

    What the model then holds is recorded like every weight, so the two sides are compared in this, too.
    """
    constants = {key: value for key, value in model.state_dict().items() if not value.is_floating_point()}
    model.load_state_dict({**constants, **weights}, strict=True)


def _gradient_coverage(parameters: Dict[str, Any], reached: Set[str]) -> dict:
    """List frozen parameters, and the others that have no gradient and are not among those ``reached`` earlier."""
    trained = {name: param for name, param in sorted(parameters.items()) if param.requires_grad}
    without = [name for name, param in trained.items() if param.grad is None and name not in reached]
    return dict(without_gradient=without, frozen=sorted(set(parameters) - set(trained)))


def _set_numerics(threads: int) -> None:
    """Make a run repeatable: fixed threads, no TF32, no autotuned or nondeterministic cuDNN kernels."""
    import torch

    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _environment(job: Any) -> dict:
    import numpy
    import torch

    capability = getattr(torch.backends, "cpu", None)
    environment = dict(
        python=platform.python_version(),
        executable=sys.executable,
        torch=torch.__version__,
        numpy=numpy.__version__,
        threads=torch.get_num_threads(),
        cpu_capability=capability.get_cpu_capability() if capability is not None else "unknown",
        machine=platform.machine(),
        family=job.family,
        variant=job.variant,
        device=job.device,
        dtype=job.dtype,
        amp=job.amp,
        seed=job.seed,
        checks=list(job.checks),
        replayed=job.replay is not None,
        gradient_flow=_records_flow(job),
    )
    if job.ranks > 1:
        environment["ranks"] = job.ranks
    if job.device.startswith("cuda"):
        environment["gpu"] = torch.cuda.get_device_name(job.device)
    return environment


def _peak_memory(device: str) -> Dict[str, int]:
    """Return the most bytes held so far: by this process, and by torch on the GPU it computes on."""
    import resource

    import torch

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there
    found = dict(process=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.max_memory_allocated(device)
    return found


def _load_package() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    # a script's folder is put first on sys.path; its modules must not shadow those of the code base
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != folder]
    if PACKAGE not in sys.modules:
        _load_module(PACKAGE, os.path.join(folder, "__init__.py"), folder)


def _load_module(name: str, path: str, package_folder: str) -> None:
    search = [package_folder] if package_folder else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise ImportError("cannot load {}".format(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    code = main(sys.argv[1])
    gc.freeze()  # else Python looks through all that is there once more before it ends
    sys.exit(code)

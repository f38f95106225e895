"""Make a twin of a trace in which every record differs a little: ``python -m benchmarks.twin TRACE TWIN``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from legacy_adapters.recording.trace_writer import TraceWriter
from parity.traces.trace import Trace


def make_twin(trace: Trace, folder: Path) -> None:
    """Write ``folder`` with the records of ``trace``, each with other values of the same dtype and shape."""
    writer = TraceWriter(str(folder))
    for record in trace.records:
        tensor = off_by_a_little(trace.tensor(record))
        writer.add(record.phase, record.kind, record.name, record.call, record.slot, tensor, record.scope)
    writer.finish(trace.provenance, trace.coverage)


def off_by_a_little(tensor: Tensor) -> Tensor:
    """Return ``tensor`` with the numbers changed in the last places; zeros, NaN and Inf stay, but for the first."""
    if not tensor.numel():
        return tensor
    flat = tensor.reshape(-1)
    if flat.is_floating_point():
        other = flat * (1 + 2 * torch.finfo(flat.dtype).eps)
    else:
        other = ~flat if flat.dtype == torch.bool else flat + 1
    if other[0] == flat[0]:
        other[0] = 1.0
    return other.reshape(tensor.shape)


if __name__ == "__main__":
    make_twin(Trace.load(Path(sys.argv[1])), Path(sys.argv[2]))

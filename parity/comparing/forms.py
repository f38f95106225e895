"""Bring what the legacy side computes to the new side's form: another order of dimensions, or a part of it.

Only what a family's forms name is changed, never what would fit by its shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from legacy_adapters.family import Form
from legacy_adapters.recording.trace_writer import Record, content_digest

from ..traces.kinds import OF_MODULES, OF_TAPS, Kind
from ..traces.trace import Trace

#: Names of the coverage under which the records are listed that were changed, and those of which a part is left out.
PERMUTED, SELECTED = "permuted", "selected"


@dataclass(frozen=True)
class FormView:
    """A recorded tensor in the new side's form.

    Attributes:
        source: the record.
        form: of the new side.
    """

    source: Record
    form: Form

    def made(self, trace: Trace) -> Tensor:
        """Read the record, checked, and return the tensor."""
        return _changed(trace.checked_tensor(self.source), self.source, self.form)


@dataclass(frozen=True)
class Formed:
    """A record in the new side's form.

    Attributes:
        record: in that form.
        view: what its tensor is.
    """

    record: Record
    view: FormView

    @property
    def kind(self) -> str:
        return SELECTED if self.view.form.select else PERMUTED

    @property
    def entry(self) -> list[str | int]:
        """Key and text, for the coverage."""
        return [*self.record.key, self.view.form.text]


def formed(legacy: Trace, records: Sequence[Record], forms: Sequence[Form]) -> Iterator[Formed]:
    """Yield those of ``records`` that have another form on the new side, in that form, each content read once.

    Raises:
        parity.traces.trace.TraceError: if a tensor cannot be read or is not what was recorded.
    """
    known: dict[tuple[str, Form, bool], tuple[tuple[int, ...], str]] = {}
    for record in records:
        form = _form_of(record, forms)
        if form is None:
            continue
        view = FormView(record, form)
        content = (record.digest, form, _is_shape(record))
        if content not in known:
            tensor = view.made(legacy)
            known[content] = tuple(tensor.shape), content_digest(tensor)
        shape, digest = known[content]
        yield Formed(replace(record, shape=shape, digest=digest), view)


def _form_of(record: Record, forms: Sequence[Form]) -> Form | None:
    """Return the first form that fits a record; None if none does, or it leaves the record as it is."""
    if record.kind not in OF_MODULES | OF_TAPS:
        return None
    form = next((form for form in forms if form.covers(record) and _fits(form, record)), None)
    return form if form is not None and (form.permute or form.select) else None


def _fits(form: Form, record: Record) -> bool:
    if _is_shape(record) and record.shape == (len(form.permute),) and not form.select:
        return True
    if form.permute and len(form.permute) != len(record.shape):
        return False
    if not form.select:
        return True
    shape = [record.shape[dim] for dim in form.permute] if form.permute else record.shape
    dim, *elements = form.select
    return dim < len(shape) and (elements[1] if len(elements) == 2 else elements[0] + 1) <= shape[dim]


def _is_shape(record: Record) -> bool:
    """Tell whether a record is the shape that a draw was asked for."""
    return record.kind == Kind.BASIS and not record.is_float and record.slot.rpartition(".")[2] == "shape"


def _changed(tensor: Tensor, record: Record, form: Form) -> Tensor:
    if _is_shape(record):
        return tensor[list(form.permute)]
    if form.permute:
        tensor = tensor.permute(form.permute)
    if len(form.select) == 2:
        tensor = tensor.select(*form.select)
    elif form.select:
        dim, start, stop = form.select
        tensor = tensor.narrow(dim, start, stop - start)
    return tensor.contiguous()

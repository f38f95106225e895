"""What a first difference in a record shows, in one sentence."""

from __future__ import annotations

from legacy_adapters.ground.words import capital
from legacy_adapters.recording.kinds import DRAWN
from legacy_adapters.recording.scripts import PHASE as SCRIPT
from legacy_adapters.recording.trace_writer import Record
from legacy_adapters.tasks import made_up
from legacy_adapters.training.phases import step_of

from ..traces.kinds import OF_METHODS, Kind

DETECTOR = "the detector"

#: What a first difference in a record of each kind shows; see :func:`_sentence` for what the fields are.
_SENTENCES = {
    Kind.RANDOM: "The code of {scope} leaves another random state: {name}'s generator ({phase} phase).",
    Kind.INIT: "`{name}` is initialised differently.",
    Kind.PARAM: "The weights differ before anything runs: `{name}`.",
    Kind.MODULE_IN: "The code of {scope} calls `{name}` ({call}) with another `{slot}`.",
    Kind.MODULE_OUT: "`{name}` ({call}{output}) gives another output for equal inputs.",
    Kind.METHOD_IN: "The code of {scope} calls `{method}` ({call}) with another `{item}`.",
    Kind.METHOD_OUT: "`{method}` of {module} ({call}{result}) gives another result for equal arguments.",
    Kind.BASIS: "{Scope} decides on another `{slot}`: tap `{name}` ({call}).",
    Kind.TAP: "{Scope} decides differently: tap `{name}` ({call}).",
    Kind.LOSS: "The loss term `{name}` differs; all module calls are equal.",
    Kind.OUT_GRAD: "Backward, the code of {scope} makes another gradient of output{space}{slot} of `{name}` ({call}).",
    Kind.IN_GRAD: "Backward, `{name}` ({call}) makes another gradient of its `{slot}` from equal ones.",
    Kind.GRAD: "The gradient of `{name}` differs; all gradients that flow between modules are equal.",
    Kind.STATE: "Training leaves `{name}` different; outputs, losses and gradients are equal.",
}
#: Of the model itself, where a script records its calls.
_OF_ROOT = {
    Kind.MODULE_IN: "The scripts give {scope} another `{slot}` ({call}).",
    Kind.MODULE_OUT: "{Scope} ({call}{output}) gives another output; all that was compared before it is equal.",
    Kind.OUT_GRAD: "Backward, another gradient of output{space}{slot} comes to {scope} ({call}); outputs are equal.",
    Kind.IN_GRAD: "Backward, {scope} ({call}) makes another gradient of its `{slot}` from equal ones.",
}
#: Of what a script changes or records itself.
_CHANGED = "`{name}` differs before the script's call {number}; all outputs, losses and gradients before that are equal."
_RECORDED = "`{name}`, which the script records ({call}{output}), differs; all that was compared before it is equal."
#: Slots of decisions and draws; what else is a tap of a script is a value of its own.
_OF_DECISIONS = ("indices", "rows", "cols", "keep", DRAWN)
_OF_MADE_UP = "Of equal made-up logits and boxes {scope} or what follows makes other `{slot}` ({call})."


def sentence_of(kind: Kind, record: Record, has_flow: bool = True) -> str:
    """Say what a first difference in ``record`` shows; the slot of a method's begins with the method's name.

    Args:
        kind: of the record.
        record: of the new side.
        has_flow: gradients that flow between modules were compared.
    """
    slot, scope = record.slot, quoted(record.scope)
    method, _, item = slot.partition(".") if kind in OF_METHODS else ("", "", slot)
    is_made_up = kind is Kind.TAP and (record.phase, record.name) == (made_up.PHASE, made_up.NAME)
    if kind is Kind.GRAD and not has_flow:
        return f"The gradient of `{record.name}` differs; gradients between modules were not recorded."
    of_script = _OF_ROOT.get(kind) if not record.name else None
    if record.phase == SCRIPT and kind is Kind.STATE:
        of_script = _CHANGED
    elif is_own_value(record):
        of_script = _RECORDED
    return (_OF_MADE_UP if is_made_up else of_script or _SENTENCES[kind]).format(
        name=record.name, number=record.call, phase=record.phase, call=call_of(record), slot=slot, space=" " if slot else "",
        scope=scope, Scope=capital(scope), output=f", output {slot}" if slot else "",
        method=".".join(filter(None, (record.name, method))), module=quoted(record.name), item=item,
        result=f", result {item}" if item else "",
    )  # fmt: skip


def is_own_value(record: Record) -> bool:
    """Tell whether a tap is a value that a script records itself, and no decision of the model's."""
    return record.phase == SCRIPT and record.kind == Kind.TAP and record.slot not in _OF_DECISIONS


def call_of(record: Record) -> str:
    """Say which call a record is of; a script has one phase only."""
    if record.phase == SCRIPT:
        return f"call {record.call}"
    is_step = step_of(record.phase) is not None
    return f"call {record.call} " + (f"in {record.phase}" if is_step else f"of the {record.phase} phase")


def quoted(scope: str) -> str:
    """Return a module's path as it stands in a sentence."""
    return f"`{scope}`" if scope else DETECTOR

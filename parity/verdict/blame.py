"""Name the place where two runs part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from legacy_adapters.ground.words import capital, counted
from legacy_adapters.recording.scripts import PHASE as SCRIPT
from legacy_adapters.recording.trace_writer import Record
from legacy_adapters.training.phases import step_of

from ..comparing.compare import Comparison
from ..traces.kinds import FLOW, OF_MODULES, OF_OPTIMIZERS, OF_TAPS, Blame, Kind, Turn
from .counterparts import Counterparts
from .sentences import DETECTOR, call_of, is_own_value, quoted, sentence_of

OPTIMIZER, SCHEDULE, CLIPPING = "the optimizer", "the schedule", "gradient clipping"
WRAPPER = "the optimizer wrapper"
#: Share of the trained parameters from which on what differs is none of their own.
NEARLY_ALL = 0.9
#: The same of gradients: an error in one loss leaves those of the other branches alone, some percent of all; one that is
#: within what rounding explains may be among those that differ.
ALL_GRADIENTS = 0.99


@dataclass(frozen=True)
class Divergence:
    """The first place where the new side computes something else.

    Attributes:
        where: new-side module path, parameter or loss term; ``the detector`` for the detector's own code; in training
            also ``the optimizer``, ``the optimizer wrapper``, ``the schedule`` and ``gradient clipping``.
        modules: path of the blamed module on the legacy and on the new side; None where no module is blamed.
        message: one sentence for a person.
        comparison: the pair it was seen on; None if the new side lacks the record.
        hint: what the family knows of such a difference; empty if nothing.
        is_cut: a tensor that needs a gradient on the legacy side needs none on the new one.
    """

    where: str
    modules: tuple[str, str] | None
    message: str
    comparison: Comparison | None
    hint: str = ""
    is_cut: bool = False


@dataclass(frozen=True)
class NotFinite:
    """A result of a module that is not finite, of a call that is not recorded.

    Attributes:
        phase: of the call.
        where: path of the module that makes it; empty for the detector's own code.
        name: path of the called module.
        call: from 0.
        what: ``NaN`` or ``Inf``.
    """

    phase: str
    where: str
    name: str
    call: int
    what: str


def first_divergence(
    comparisons: Sequence[Comparison],
    missing: Sequence[Record] = (),
    order: Sequence[Record] = (),
    added: Sequence[Record] = (),
    cut_off: Sequence[Record] = (),
    not_finite: Sequence[NotFinite] = (),
    optimizers: tuple[str, str] = ("", ""),
    counterparts: Counterparts | None = None,
) -> Divergence | None:
    """Find the first rejected comparison or missing record, in the order the legacy side made its records.

    A module's inputs are recorded before its output and inner modules before outer ones. So a first difference in an
    output blames that module, whose inputs were equal; one in an input blames the code that made the call. Backward it
    is the other way round: a first difference in the gradient of an output blames the code that uses the output.

    Args:
        comparisons: all pairs, in legacy recording order.
        missing: legacy records that the new side should have and has not.
        order: all legacy records, in recording order.
        added: records that only the new side has, in its recording order; the first counts if there is nothing else.
        cut_off: gradients in ``missing`` whose tensors need none on the new side, in forward order.
        not_finite: results of the new side alone that are NaN or infinite, of module calls that are not recorded.
        optimizers: classes of the legacy and the new side's optimizer; empty where nothing is trained.
        counterparts: give what is missing its names on the new side; None if they are the same.
    """
    rejected = [comparison for comparison in comparisons if not comparison.accepted]
    position = {id(record): index for index, record in enumerate(order)}
    lost = min(missing, key=lambda record: position[id(record)], default=None)
    if lost is not None and (not rejected or position[id(lost)] < position[id(rejected[0].pair.legacy)]):
        if lost.kind in OF_OPTIMIZERS:
            of_both = {c.pair.legacy.key[:3] for c in comparisons}
            return _describe_lone_setting(lost, missing, of_both, "legacy", counterparts)
        if cut_off and lost.kind in FLOW:
            return _describe_cut(cut_off[0], counterparts)
        return describe_missing(lost, counterparts)
    strange = _strange(rejected[0].pair.new if rejected else None, not_finite)
    if strange is not None:
        return _describe_not_finite(strange, rejected[0] if rejected else None)
    options = [record for record in added if record.kind in OF_OPTIMIZERS]
    if options and (not rejected or _follows(rejected[0].pair.new, options[0])):
        return _describe_lone_setting(options[0], added, {c.pair.new.key[:3] for c in comparisons}, "new")
    if not rejected:
        return describe_added(_cause(added), counterparts) if added else None
    first = rejected[0]
    phase, kind = first.pair.new.phase, first.pair.new.kind
    if phase in ("train", SCRIPT) and kind == Kind.GRAD:
        alike = (phase, kind, first.pair.new.call)
        of_pass = [c for c in rejected if (c.pair.new.phase, c.pair.new.kind, c.pair.new.call) == alike]
        first = _deepest_gradient(of_pass, comparisons)
    return describe(first, comparisons, optimizers)


def _follows(record: Record, setting: Record) -> bool:
    """Tell whether a record of a training is made with the settings of its step or a later one."""
    one, two = step_of(record.phase) or 0, step_of(setting.phase) or 0
    return one > two or (one == two and Kind(record.kind).turn > Turn.SETTINGS)


def _describe_lone_setting(
    first: Record, lone: Sequence[Record], both: set[tuple], side: str, counterparts: Counterparts | None = None
) -> Divergence:
    """Tell an option that one side alone sets from a parameter that it alone trains; ``both`` are settings of both."""
    if first.key[:3] not in both:
        return describe_missing(first, counterparts) if side == "legacy" else describe_added(first)
    step = first.phase
    if first.kind == Kind.CLIP:
        return Divergence(CLIPPING, None, f"In {step} clipping has `{first.slot}` on the {side} side only.", None)
    if first.kind == Kind.UPDATE:
        text = f"In {step} the {first.name} has `{first.slot}` on the {side} side only."
        return Divergence(f"the {first.name}", None, text, None)
    alike = [record for record in lone if (*record.key[:2], record.slot) == (*first.key[:2], first.slot)]
    names = [(record if counterparts is None else counterparts.renamed(record)).name for record in alike]
    trained = sum(key[:2] == first.key[:2] for key in both)
    everywhere = len(names) == trained
    where = OPTIMIZER if everywhere else common_module(names) or OPTIMIZER
    all_of = "its only parameter" if trained == 1 else f"all {trained} parameters"
    whose = all_of if everywhere else f"{len(names)} of {trained} parameters, first `{names[0]}`"
    text = f"In {step} the optimizer's option `{first.slot}` is set on the {side} side only, for {whose}."
    return Divergence(where, None, text, None)


def _strange(first: Record | None, not_finite: Sequence[NotFinite]) -> NotFinite | None:
    """Return the first result that is not finite, if it comes before ``first``: forward of the same step or earlier."""
    if not not_finite:
        return None
    strange = not_finite[0]
    if first is None:
        return strange
    one, two = step_of(strange.phase) or 0, step_of(first.phase) or 0
    return strange if one < two or (one == two and Kind(first.kind).turn is Turn.FORWARD) else None


def _describe_not_finite(strange: NotFinite, comparison: Comparison | None) -> Divergence:
    step = strange.phase
    if strange.where == strange.name:
        text = f"In {step} `{strange.name}` (call {strange.call}) makes {strange.what} of finite numbers."
    else:
        text = f"In {step} the code of {quoted(strange.where)} gives {strange.what} to `{strange.name}`."
    return Divergence(strange.where or DETECTOR, (strange.where, strange.where), text, comparison)


def describe_missing(record: Record, counterparts: Counterparts | None = None) -> Divergence:
    """Describe a legacy record without a twin; the place is the new side's, as far as it has one."""
    legacy = record
    is_lone = False
    if counterparts is not None:
        is_lone = counterparts.is_lone(record)
        record = counterparts.renamed(record)
    caller = record.scope or DETECTOR
    call = call_of(record)
    if record.phase == SCRIPT and record.kind == Kind.STATE:
        text = f"`{record.name}` is changed before the script's call {record.call} on the legacy side only."
        return Divergence(record.name, None, text, None)
    if is_lone:
        text = f"Nothing on the new side stands for `{record.name}` ({call}), which the legacy side's code of "
        return Divergence(caller, (legacy.scope, record.scope), f"{text}{quoted(legacy.scope)} calls.", None)
    if record.kind == Kind.MODULE_IN and not record.name:
        return Divergence(DETECTOR, None, f"The new side calls {DETECTOR} ({call}) without `{record.slot}`, or not at all.", None)
    if record.kind == Kind.MODULE_IN:
        code = quoted(record.scope)
        text = f"The code of {code} calls `{record.name}` ({call}) without `{record.slot}`, or not at all."
        return Divergence(caller, (legacy.scope, record.scope), text, None)
    if record.kind == Kind.OUT_GRAD:
        text = f"Backward, no gradient comes from the code of {quoted(record.scope)} to `{record.name}` ({call})."
        return Divergence(caller, (legacy.scope, record.scope), text, None)
    if record.kind in (Kind.SETTING, Kind.CLIP):
        without = "clip gradients" if record.kind == Kind.CLIP else f"train `{record.name}`"
        text = f"In {record.phase} the new side's optimizer does not {without} as the legacy side's does."
        return Divergence(CLIPPING if record.kind == Kind.CLIP else record.name, None, text, None)
    text = f"The {Kind(record.kind).noun} {quoted(record.name)} ({call}{_slot(record)}) of the legacy side has no twin."
    return Divergence(_owner(record), None, text, None)


def _describe_cut(legacy: Record, counterparts: Counterparts | None) -> Divergence:
    """Describe where a tensor lost its way back; the place is the new side's."""
    record = legacy if counterparts is None else counterparts.renamed(legacy)
    call = call_of(record)
    if record.kind == Kind.IN_GRAD:
        given = f"an argument `{record.slot}` that is cut off"
        text = f"The code of {quoted(record.scope)} gives `{record.name}` ({call}) {given}"
        where, modules = record.scope or DETECTOR, (legacy.scope, record.scope)
    else:
        slot = f" {record.slot}" if record.slot else ""
        text = f"{capital(quoted(record.name))} ({call}) gives an output{slot} that is cut off"
        where, modules = record.name or DETECTOR, (legacy.name, record.name)
    return Divergence(where, modules, f"{text}: no gradient can come back through it.", None, is_cut=True)


def _cause(added: Sequence[Record]) -> Record:
    """Return the first record; of the gradients that flow for a parameter which gets one, that parameter's."""
    if added[0].kind not in FLOW:
        return added[0]
    return next((record for record in added if record.kind == Kind.GRAD), added[0])


def describe_added(record: Record, counterparts: Counterparts | None = None) -> Divergence:
    """Describe a record of the new side without a twin."""
    call = call_of(record)
    if record.phase == SCRIPT and record.kind == Kind.STATE:
        text = f"`{record.name}` is changed before the script's call {record.call} on the new side only."
        return Divergence(record.name, None, text, None)
    if counterparts is not None and record.kind in OF_MODULES and not counterparts.is_of_both(record.name):
        text = f"Nothing on the legacy side stands for `{record.name}` ({call}), which the code of "
        modules = (record.scope, record.scope)
        return Divergence(record.scope or DETECTOR, modules, f"{text}{quoted(record.scope)} calls.", None)
    if record.kind == Kind.MODULE_IN and not record.name:
        text = f"The new side calls {DETECTOR} ({call}) once more, or with `{record.slot}`."
        return Divergence(DETECTOR, None, text, None)
    if record.kind == Kind.MODULE_IN:
        text = f"The code of {quoted(record.scope)} calls `{record.name}` ({call}) once more, or with `{record.slot}`."
        return Divergence(record.scope or DETECTOR, (record.scope, record.scope), text, None)
    if record.kind in (Kind.SETTING, Kind.CLIP):
        what = "clips gradients" if record.kind == Kind.CLIP else f"trains `{record.name}`"
        text = f"In {record.phase} the new side's optimizer {what}, the legacy side's does not."
        return Divergence(CLIPPING if record.kind == Kind.CLIP else record.name, None, text, None)
    text = f"The {Kind(record.kind).noun} {quoted(record.name)} ({call}{_slot(record)}) of the new side has no twin."
    return Divergence(_owner(record), None, text, None)


def _owner(record: Record) -> str:
    by_caller = record.kind in (Kind.TAP, Kind.BASIS, Kind.RANDOM)
    return (record.scope if by_caller else record.name) or DETECTOR


def _slot(record: Record) -> str:
    """Say which output of the model a record is, where a script records the model's own calls."""
    return f", {record.slot}" if record.slot and not record.name else ""


def _deepest_gradient(rejected: Sequence[Comparison], comparisons: Sequence[Comparison]) -> Comparison:
    """Among gradients only: the one whose module ran last, for backward visits it first."""
    last_run: dict[str, int] = {}
    for index, comparison in enumerate(comparisons):
        record = comparison.pair.new
        if record.phase in ("train", SCRIPT) and record.kind == Kind.MODULE_OUT:
            last_run[record.name] = index
    return max(rejected, key=lambda comparison: _last_run(last_run, comparison.pair.new.name))


def _last_run(last_run: dict[str, int], parameter: str) -> int:
    """Return when the innermost recorded module holding ``parameter`` ran last, -1 if it never did."""
    path = parameter
    while "." in path:
        path = path.rpartition(".")[0]
        if path in last_run:
            return last_run[path]
    return -1


def describe(
    comparison: Comparison, comparisons: Sequence[Comparison] = (), optimizers: tuple[str, str] = ("", "")
) -> Divergence:
    """Say what a rejected comparison means if everything before it was equal.

    Args:
        comparison: to describe.
        comparisons: all, to tell how many are alike in the step of a training.
        optimizers: as in :func:`first_divergence`.
    """
    legacy, record = comparison.pair.legacy, comparison.pair.new
    kind = Kind(record.kind)
    if step_of(record.phase) is not None and kind.blame is Blame.NAME:
        return _describe_step(comparison, comparisons, optimizers)
    call, is_foreign = call_of(record), comparison.pair.scope != record.scope
    if (kind is Kind.MODULE_IN or kind in OF_TAPS) and is_foreign:
        expected, actual = comparison.pair.scope, quoted(record.scope)
        what = "Tap `{}` ({}) is reached" if kind in OF_TAPS else "`{}` ({}) is called"
        text = f"{what.format(record.name, call)} by the code of {actual}, on the legacy side by that of "
        text += f"{quoted(expected)}."
        return Divergence(expected or DETECTOR, (legacy.scope, expected), text, comparison)
    text = sentence_of(kind, record, has_flow=_has_flow(record, comparisons))
    if kind.blame is Blame.NAME or is_own_value(record):
        return Divergence(record.name, None, text, comparison)
    if kind is Kind.RANDOM:
        return Divergence(record.scope or DETECTOR, None, text, comparison)
    if kind.blame is Blame.MODULE:
        return Divergence(record.name or DETECTOR, (legacy.name, record.name), text, comparison)
    return Divergence(record.scope or DETECTOR, (legacy.scope, record.scope), text, comparison)


def _has_flow(record: Record, comparisons: Sequence[Comparison]) -> bool:
    """Tell whether gradients between modules were compared; a script may leave them out."""
    return record.phase != SCRIPT or not comparisons or any(c.pair.new.kind in FLOW for c in comparisons)


def _describe_step(
    comparison: Comparison, comparisons: Sequence[Comparison], optimizers: tuple[str, str]
) -> Divergence:
    """Describe the first difference in a step of a training; steps record in the order in which they compute."""
    record = comparison.pair.new
    step, name, slot = record.phase, record.name, record.slot
    if record.kind == Kind.SETTING:
        return _describe_setting(comparison, comparisons, step)
    if record.kind == Kind.CLIP and slot == "total_norm":
        text = f"In {step} the norm of all gradients together differs, though each is equal: another order or choice."
        return Divergence(CLIPPING, None, text, comparison)
    if record.kind == Kind.CLIP:
        return Divergence(CLIPPING, None, f"In {step} gradients are clipped by another `{slot}`.", comparison)
    if record.kind == Kind.UPDATE:
        what = f"has another `{slot}`"
        if slot == "class":
            known = len(set(optimizers)) > 1
            what = "is {1}, the legacy side's is {0}".format(*optimizers) if known else "is of another class"
        return Divergence(f"the {name}", None, f"In {step} the {name} {what}.", comparison)
    alike = [c for c in comparisons if (c.pair.new.phase, c.pair.new.kind) == (record.phase, record.kind)]
    trained = {c.pair.new.name for c in comparisons if c.pair.new.key[:2] == (record.phase, Kind.SETTING)}
    if record.kind == Kind.OPTIM_STATE:
        alike = [c for c in alike if c.pair.new.slot == slot]
    if record.kind in (Kind.STATE, Kind.OPTIM_STATE):
        alike = [c for c in alike if c.pair.new.name in trained]
    differing = sum(not c.accepted for c in alike)
    count = f"{differing} of {len(alike)}"
    differ = f"{differing} of {counted(len(alike), 'gradient')} differ{'s' * (differing == 1)}"
    if record.kind in (Kind.STATE, Kind.OPTIM_STATE) and 1 < differing >= NEARLY_ALL * len(alike):
        what = "parameters" if record.kind == Kind.STATE else f"parameters' `{slot}`"
        equal = "settings and optimizer state" if record.kind == Kind.STATE else "and settings"
        text = f"In {step} the optimizer leaves {count} {what} otherwise, `{name}` first; gradients, {equal} are equal."
        return Divergence(OPTIMIZER, None, text.replace("gradients, and", "gradients and"), comparison)
    if record.kind == Kind.GRAD and 1 < differing >= ALL_GRADIENTS * len(alike):
        text = f"In {step} {differ}, `{name}` first on the way back; losses and settings are equal."
        return Divergence(WRAPPER, None, text, comparison)
    text = {
        Kind.LOSS: f"In {step} the loss term `{name}` differs; everything up to there is equal.",
        Kind.GRAD: f"In {step} {differ}, `{name}` first on the way back; losses and settings are equal.",
        Kind.OPTIM_STATE: f"In {step} the optimizer's `{slot}` of `{name}` differs; gradients and settings are equal.",
        Kind.STATE: f"After {step} `{name}` differs; its gradient, settings and optimizer state are equal.",
    }[record.kind]
    return Divergence(name, None, text, comparison)


def _describe_setting(first: Comparison, comparisons: Sequence[Comparison], step: str) -> Divergence:
    """Tell a setting of single parameters from one of all; a learning rate that starts equal is the schedule's."""
    phase, _, _, _, slot = first.pair.new.key
    place = (phase, Kind.SETTING, slot)
    alike = [c for c in comparisons if (c.pair.new.phase, c.pair.new.kind, c.pair.new.slot) == place]
    names = [c.pair.new.name for c in alike if not c.accepted]
    if len(names) == len(alike):
        where = SCHEDULE if slot == "lr" else OPTIMIZER
        whose = "the only parameter" if len(names) == 1 else f"all {len(names)} parameters"
    else:
        where = common_module(names) or OPTIMIZER
        which = f": `{where}`" if where != OPTIMIZER else f", first for `{names[0]}`"
        whose = f"{len(names)} of {len(alike)} parameters{which}"
    return Divergence(where, None, f"In {step} `{slot}` differs for {whose}.", first)


def common_module(names: Sequence[str]) -> str:
    """Return the path that all names begin with; one name's is itself."""
    paths = [name.split(".") for name in names]
    shared = 0
    while all(len(path) > shared for path in paths) and len({path[shared] for path in paths}) == 1:
        shared += 1
    return ".".join(paths[0][:shared])

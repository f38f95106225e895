"""Work out what a conversion comes to, in memory: read, detect, convert, carry, and say what changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters import __version__, ready
from converters.carrying import casting, classes, counters, misfits, optimizer, parts, resuming
from converters.carrying.plans import Plan
from converters.errors import (
    AlreadyConvertedError,
    ClassMapError,
    ConversionError,
    MissingKeyError,
    OptimizerError,
    ShapeMismatchError,
    listed,
)
from converters.formats import finite
from converters.formats.stored import StoredTensor
from converters.options import DEFAULTS, Options
from converters.reading import checkpoint
from converters.reading.averages import EMA, STATE_DICT
from converters.rules import built, detect, engine, layout, loose, ports
from converters.rules.ledger import UNMAPPED, Account, Entry, Ledger
from converters.writing import hashing, manifest
from legacy_adapters.ground.names import LEGACY, NEW


def plan(
    source: str | Path, options: Options = DEFAULTS, suffix: str = ".pth", port: ports.Port | None = None
) -> Plan:
    """Work out what a conversion to a file of that suffix comes to; nothing is written.

    Args:
        source: A checkpoint.
        options: What is asked for.
        suffix: Of the file to write.
        port: The model that the source is of; None finds it among those that the options allow.

    Raises:
        CheckpointError: If the source cannot be read.
        AlreadyConvertedError: If the source has the layout asked for already, and nothing else is to be done.
        ClassMapError: If the class map does not fit.
        ConversionError: If the source does not fit.
        FamilyError: If there is no such family or variant.
        OSError: If the source cannot be read.
    """
    candidates = (port,) if port is not None else built.asked(options)
    loaded = checkpoint.read(source, options.key, options.prefix)
    variant = options.variant
    if options.rules is not None:
        candidates = (_port_of_rules(loaded, options),)
        variant = candidates[0].variant.name
    detected = built.detected(loaded.state_dict, candidates, variant)
    # where the keys are those of both sides a conversion is asked for all the same, of what it did not write itself
    told = resuming.told_side(loaded, detected)
    found = detected.taken_for(told or (LEGACY if options.to == NEW else NEW))
    selection = _selection(loaded, found, options)
    classes_held = None if selection is None else selection.source_classes
    training = resuming.training(loaded, found, options.to)
    loaded, old = (loaded, None) if training is None else (training.loaded, training.old)
    chosen = parts.choose(loaded, options.keep, _weights_only(options, suffix, selection), old)
    resuming.check_asked(loaded, found, options.to, options.keep, chosen)
    training = training if chosen.keep == parts.ALL else None
    if training is not None:
        training.check(chosen)
    source_layout = _layout(found, found.side, classes_held)
    counted = counters.mended(chosen.state_dict, source_layout)
    try:
        result = _converted(counted.tensors, found, options, classes_held, chosen.originals)
    except ConversionError as error:
        raise chosen.told(misfits.with_variant(misfits.with_prefix(error, loaded, found), found, options)) from error
    _check_average(result.ledger, chosen)
    carried = parts.carry(
        loaded,
        chosen,
        lambda tensors: _converted(counters.mended(tensors, source_layout).tensors, found, options, classes_held),
        None if found.side == options.to else _regrouping(found, options.to, classes_held, loaded.state_dict, training),
    )
    carried = carried if training is None else training.completed(carried)
    asked = _resolved(options, loaded, chosen.keep)
    meta = _meta(loaded.meta, found, asked)
    accounts = _accounts(_with_outside(result.ledger, loaded), chosen, carried)
    others = [] if chosen.other is None else [counters.mended(chosen.other, source_layout).tensors]
    taken = ({**counted.tensors, **loaded.outside}, *others)
    notes = (*_side_notes(found, told), *_wrapping_notes(loaded), *chosen.held.notes, *([counted.note] if counted.note else []))
    notes = (*notes, *(resuming.notes(loaded, found, chosen) if training is None else training.notes))
    planned = Plan(loaded, asked, found, result.rules, accounts, taken, result.state_dict, meta, notes=notes)
    done = {entry.target: entry.source for entry in result.ledger.entries if entry.source in counted.changes}
    planned = replace(planned, changes={target: (counted.changes[key],) for target, key in done.items()})
    # every further step takes a plan and returns one with other tensors, changes or parts
    meta_lines = parts.meta_lines(loaded, found.side, options.to) if chosen.keep == parts.ALL else ()
    planned = replace(planned, parts=carried.parts, part_lines=(*meta_lines, *carried.lines))
    planned = planned if selection is None else _with_classes(planned, selection)
    planned = planned if options.dtype is None else _cast(planned, casting.DTYPES[options.dtype])
    if planned.meta == meta and not options.changes_more_than_names and _is_idle(planned, suffix):
        raise AlreadyConvertedError(_nothing_to_do(planned, suffix))
    return _stripped(planned) if options.strip else planned


def _port_of_rules(loaded: checkpoint.Checkpoint, options: Options) -> ports.Port:
    """Return the model that a file of rules makes of the source."""
    like = None if options.like is None else checkpoint.read(options.like).state_dict
    source, target = (
        None if tensors is None else {key: layout.spec_of(tensor) for key, tensor in tensors.items()}
        for tensors in (loaded.state_dict, like)
    )
    return loose.port(options.rules, source, LEGACY if options.to == NEW else NEW, target)


def _resolved(options: Options, loaded: checkpoint.Checkpoint, keep: str) -> Options:
    """Return the options as the manifest records them: with what was found in place of what was not said."""
    if loaded.wrapping.is_plain:
        return replace(options, keep=keep)
    return replace(options, keep=keep, key=loaded.wrapping.key, prefix=loaded.wrapping.prefix)


def _with_outside(ledger: Ledger, loaded: checkpoint.Checkpoint) -> Ledger:
    """Add the keys that are left out because they lack the prefix that was asked for."""
    outside = (Entry(key, None, None, UNMAPPED) for key in loaded.outside)
    return Ledger(tuple(sorted((*ledger.entries, *outside), key=lambda entry: entry.source)))


def _side_notes(found: detect.Detection, told: str | None) -> tuple[str, ...]:
    """Say for which side a source was taken that its keys do not tell, and why."""
    if not found.is_of_either_side:
        return ()
    why = "as its metadata says" if told is not None else "for the other layout is asked for"
    return (
        "This model has the same keys on both sides, so they do not tell of which side the source is; it is taken for one "
        f"of the {found.side} side, {why}.",
    )


def _wrapping_notes(loaded: checkpoint.Checkpoint) -> tuple[str, ...]:
    """Say what was taken away of what the state dict was wrapped in."""
    facts = "; ".join(loaded.wrapping.facts())
    what = "The source has its weights " if facts.startswith("under") else "In the source "
    return (f"{what}{facts}. The output has the keys of the model alone.",) if facts else ()


def layout_after(port: ports.Port, options: Options) -> layout.Layout:
    """Return the layout of what a conversion with these options writes."""
    wanted = _layout(detect.Detection(port, options.to), options.to, options.num_classes)
    return wanted if options.dtype is None else casting.with_floats(wanted, casting.DTYPES[options.dtype])


def _layout(found: detect.Detection, side: str, num_classes: int | None) -> layout.Layout:
    """Return the layout of one side of the model that was found; None leaves its number of classes as it is."""
    mapping = found.port.mapping
    if num_classes is not None and side != NEW and mapping.changes_tensors:
        # what has a row per class may be a part of something there
        new = found.port.layout(NEW).with_classes(found.port.family.class_keys, num_classes)
        return new.mapped(mapping.inverse())
    wanted = found.port.layout(side)
    class_keys = found.port.family.class_keys
    return wanted if num_classes is None else wanted.with_classes(class_keys, num_classes)


def _selection(loaded: checkpoint.Checkpoint, found: detect.Detection, options: Options) -> classes.Selection | None:
    """Return which classes the output has, if it is said; a source that disagrees in their number is left for later."""
    if options.num_classes is None:
        if options.class_map is not None:
            raise ClassMapError("A class map needs the number of classes; pass --num-classes, too.")
        return None
    if not found.port.family.class_keys:
        raise ClassMapError(
            f"Family {found.port.family.name} does not say which tensors have one row per class, so --num-classes is not "
            "possible; leave it out."
        )
    counts = engine.classes_of(loaded.state_dict, engine.rules_between(found.port.mapping, found.side, NEW))
    if len(counts) != 1:
        return None
    names = classes.class_names(loaded.meta)
    return classes.select(options.num_classes, options.class_map, next(iter(counts)), names, options.seed)


def _weights_only(options: Options, suffix: str, selection: classes.Selection | None) -> str | None:
    """Say why nothing but weights can be written, if that is so."""
    if options.strip:
        return "An output of --strip"
    if selection is not None and not selection.keeps_rows:
        return "An output of other classes (--num-classes)"
    if options.dtype is not None:
        return "An output of --dtype"
    return "A .safetensors file" if suffix == ".safetensors" else None


def _is_idle(planned: Plan, suffix: str) -> bool:
    """Tell whether the output would hold what the source holds, in a form that can be loaded as it is."""
    loaded, side = planned.source, planned.detection.side
    return (
        not planned.changes
        and side == planned.options.to
        and loaded.wrapping.is_plain
        and _same_weights(planned)
        and ready.fault(loaded, side, suffix) is None
    )


def _same_weights(planned: Plan) -> bool:
    """Tell whether the output's state dict has the source's very tensors under the very same keys."""
    held = planned.source.state_dict
    same = all(planned.state_dict.get(key) is tensor for key, tensor in held.items())
    return same and planned.ledger.changes_nothing and len(held) == len(planned.state_dict)


def _check_average(ledger: Ledger, chosen: parts.Choice) -> None:
    """Refuse averaged weights of a part of the model; the rest would be those of training."""
    late = chosen.held.late if chosen.averaged_first else {}
    missing = [entry.source for entry in ledger.entries if entry.target is not None and entry.source in late]
    if missing:
        raise MissingKeyError(
            f"{len(missing)} key(s) of the model are missing from the averaged weights: {listed(missing)}; pass --keep "
            "model to convert the training weights."
        )


def _accounts(ledger: Ledger, chosen: parts.Choice, carried: parts.Carried) -> tuple[Account, ...]:
    """Account for every set of weights of the source."""
    if chosen.other is None:
        return (Account(chosen.held.single, chosen.held.own, STATE_DICT, ledger),)
    (name, other), (place, beside) = chosen.names, chosen.places
    first = Account(name, place, STATE_DICT, ledger)
    if carried.beside is not None:
        return first, Account(other, beside, EMA, carried.beside.ledger)
    return first, Account.left_out(other, beside, chosen.other)


def _converted(
    tensors: Mapping[str, StoredTensor],
    found: detect.Detection,
    options: Options,
    num_classes: int | None,
    originals: Mapping[str, StoredTensor] | None = None,
) -> engine.Conversion:
    mapping = found.port.mapping
    wanted = _layout(found, options.to, num_classes)
    if options.dtype is not None:
        rules = engine.rules_between(mapping, found.side, options.to)
        wanted = casting.accepting_floats(wanted, rules, tensors)
    step = engine.canonicalise if found.side == options.to else engine.convert
    return step(tensors, mapping, options.to, wanted, options.allow_unmapped, originals)


def _regrouping(
    found: detect.Detection,
    to: str,
    num_classes: int | None,
    keys: Mapping[str, Any],
    training: resuming.Training | None,
) -> Callable[[Mapping[str, Any]], optimizer.Regrouped]:
    """Return what carries an optimizer's state to the other side.

    A legacy layout follows from the new one, and an optimizer numbers parameters by the order in which the model makes
    them. Of the families of this package these orders are tested to agree. Of others the order is that of the source's
    `keys`; for a legacy target nothing tells it.
    """
    frozen_groups = to == LEGACY and found.port.family.legacy.frozen_groups
    source = _layout(found, found.side, num_classes)
    if not found.port.has_tested_order:
        if to == LEGACY:
            return _order_unknown
        source = resuming.in_model_order(source, keys)
    if training is not None:
        return lambda saved: training.regroup(saved, source)
    target = optimizer.Side(_layout(found, to, num_classes), frozen_groups)
    rules = engine.rules_between(found.port.mapping, found.side, to)
    return lambda saved: optimizer.regroup(saved, source, target, rules)


def _order_unknown(saved: Mapping[str, Any]) -> optimizer.Regrouped:
    raise OptimizerError(
        "The order in which the legacy model makes its parameters is not known, and an optimizer numbers them by it; "
        "pass --keep model to convert the weights alone."
    )


def _with_classes(planned: Plan, selection: classes.Selection) -> Plan:
    """Give the class branches and the label embedding the rows of a selection."""
    found, to = planned.detection, planned.options.to
    state_dict, changes = classes.apply(planned.state_dict, found.port.family.class_rows, selection)
    try:
        wanted = _layout(found, to, len(selection.rows)).tensors
    except ShapeMismatchError as error:
        raise ClassMapError(
            f"The rules make no {to} layout with {len(selection.rows)} classes, so --num-classes is not possible: "
            f"{error}"
        ) from error
    unfit = [key for key, tensor in sorted(state_dict.items()) if tensor.shape != wanted[key].shape]
    if unfit:
        raise ClassMapError(
            f"{len(unfit)} key(s) of the {to} layout hold rows of classes together with others, which --num-classes "
            f"cannot pick: {listed(unfit)}; convert to the new layout first, with --num-classes, and then back."
        )
    note = (
        f"All {len(selection.rows)} classes are initialised, because the source has {selection.source_classes} and no "
        "--class-map says which of them to take."
    )
    notes = (note,) if planned.options.class_map is None and not selection.keeps_rows else ()
    return replace(
        planned,
        state_dict=state_dict,
        changes={**planned.changes, **changes},
        meta=classes.with_names(planned.meta, selection),
        notes=(*planned.notes, *notes),
    )


def _cast(planned: Plan, dtype: str) -> Plan:
    """Round the floating tensors to a dtype."""
    done = casting.cast(planned.state_dict, dtype)
    changes = {
        key: planned.changes.get(key, ()) + done.changes.get(key, ()) for key in (planned.changes | done.changes)
    }
    lost = f"{sum(done.zeros.values())} elements of {listed(done.zeros)} are so small that they became 0 as {dtype}."
    notes = (*planned.notes, lost) if done.zeros else planned.notes
    return replace(planned, state_dict=done.state_dict, changes=changes, notes=notes)


def dotted(path: str) -> str:
    """Write the place of a tensor beside the state dict as `inspect` does: `ema_state_dict.module.bias`."""
    return path.removeprefix("/").replace("/", ".") if path.startswith("/") else path


def _stripped(planned: Plan) -> Plan:
    meta = {name: planned.meta[name] for name in checkpoint.CLASS_META if name in planned.meta}
    return replace(planned, meta=meta)


def _nothing_to_do(planned: Plan, suffix: str) -> str:
    """Say that a source of the wanted layout can be loaded as it is, and by what."""
    found, account = planned.detection, planned.accounts[0]
    family = found.port.family
    legacy = tuple(known.legacy.title for known in (family, *ports.same_layout(family)))
    other, loaders = (NEW, legacy) if found.side == LEGACY else (LEGACY, (family.new.title,))
    weights = f" and gives its {account.name}" if len(planned.accounts) > 1 else ""
    loading = f"it can be loaded as it is by {' and by '.join(loaders)}, or converted with --to {other}"
    if found.side == LEGACY and planned.source.format != "pth":
        loading = f"for {' and for '.join(loaders)}, which read .pth only, convert it into one"
    elif (suffix == ".safetensors") != (planned.source.format == "safetensors"):
        loading += f"; pass --keep model to write its weights as {suffix}"
    tensors = {**planned.state_dict, **manifest.part_tensors(planned.parts)}
    counts = hashing.not_finite({dotted(key): tensor for key, tensor in tensors.items()})
    weights += f" ({finite.listed_counts(counts)})" if counts else ""
    return (
        f"The source `{planned.source.path}` already has the {found.side} layout of {found.port}"
        f"{weights}; {loading}."
    )


def _meta(source: Mapping[str, Any], found: detect.Detection, options: Options) -> dict[str, Any]:
    kept = {name: value for name, value in source.items() if name != manifest.KEY}
    if options.keep != parts.ALL:
        kept = {name: kept[name] for name in checkpoint.CLASS_META if name in kept}
    return {
        **parts.meta(kept, found.side, options.to),
        "family": found.family,
        "variant": found.variant,
        "layout": options.to,
        "tool": "ddq-convert",
        "tool_version": __version__,
    }

"""Which aliases and forms of a family fit nothing in a run; a mistake in a name would stay unseen else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from converters.rules.mapping import Mapping as Rules
from converters.rules.pattern import Pattern
from legacy_adapters.correspondence import LOSS, MODULE, TAP, Alias, Form
from legacy_adapters.ground.names import LEGACY, NEW
from legacy_adapters.recording.trace_writer import Record

from ..traces.kinds import OF_MODULES, OF_TAPS, Kind, Subject
from ..traces.trace import Recording
from .forms import PERMUTED, SELECTED

_SUBJECTS = {Subject.MODULE: MODULE, Subject.TERM: LOSS, Subject.TAP: TAP}


def idle(legacy: Recording, new: Recording, rules: Rules) -> tuple[str, ...]:
    """Return the aliases and forms that fit nothing, as they are written.

    What is of loss terms or taps is left out where the run has none.

    Args:
        legacy: in the new side's form.
        new: the new side.
        rules: with the aliases and forms.
    """
    ours, theirs = _names(legacy), _names(new)
    aliases = (a for a in rules.aliases if ours[a.of] and theirs[a.of] and not _fits(a, ours[a.of], theirs[a.of]))
    forms = (form for form in rules.forms if not any(form.covers(one) for one in _formed(legacy, form)))
    return (*map(_alias_text, aliases), *map(form_text, forms))


def _names(recording: Recording) -> dict[str, set[str]]:
    names: dict[str, set[str]] = defaultdict(set)
    names[MODULE].update(recording.coverage.get("classes", {}))
    for kind, name in {(record.kind, record.name) for record in recording.records}:
        subject = Kind(kind).subject
        if subject in _SUBJECTS:
            names[_SUBJECTS[subject]].add(name)
    return names


def _fits(alias: Alias, ours: set[str], theirs: set[str]) -> bool:
    patterns = {side: tuple(map(Pattern, texts)) for side, texts in alias.patterns.items()}
    bindings = {b for pattern in patterns[LEGACY] for name in ours if (b := pattern.match(name)) is not None}
    return any(pattern.fill(values) in theirs for pattern in patterns[NEW] for values in bindings)


def _formed(legacy: Recording, form: Form) -> Iterator[Record]:
    """Yield the records that a form may have changed, by what the recording says of them; all if it changes none."""
    records = [record for record in legacy.records if record.kind in OF_MODULES | OF_TAPS]
    if not form.permute and not form.select:
        yield from records
        return
    texts = {tuple(entry) for kind in (PERMUTED, SELECTED) for entry in legacy.coverage.get(kind, ())}
    yield from (record for record in records if (*record.key, form.text) in texts)


def _alias_text(alias: Alias) -> str:
    of = "" if alias.of == MODULE else f', of="{alias.of}"'
    return f"Alias({_quoted(alias.legacy)}, {_quoted(alias.new)}{of})"


def form_text(form: Form) -> str:
    """Return a form as it is written in a family, without its reason."""
    parts = [_quoted(form.name)]
    parts += [f'{name}="{value}"' for name in ("slot", "kind", "phase", "scope") if (value := getattr(form, name)) != "*"]
    parts += [] if form.call is None else [f"call={form.call}"]
    parts += [f"{name}={value}" for name in ("permute", "select") if (value := getattr(form, name))]
    return f"Form({', '.join(parts)})"


def _quoted(names: str | tuple[str, ...]) -> str:
    return f'"{names}"' if isinstance(names, str) else "({})".format(", ".join(map(_quoted, names)))

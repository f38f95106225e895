"""Render a verdict as Markdown, short enough for a comment on a pull request: outcome, stages, first divergence, details."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from legacy_adapters.ground.words import counted

from ..comparing.pairing import LEGACY
from ..verdict.verdict import MATCH, Verdict
from . import sections
from .alone import backward_lines, lone_lines
from .report import (
    closing_line,
    culprit_lines,
    divergence_lines,
    exclusion_lines,
    initial_lines,
    provenance_line,
    tie_lines,
)
from .stages import record_name, stages

#: Lines of a list that are shown; GitHub refuses a comment of more than 65,536 characters.
MOST_LINES = 30
_SPECIAL = re.compile(r"([\\*_\[\]<>|~])")


def markdown(verdict: Verdict) -> str:
    """Return the Markdown."""
    return "\n".join(_lines(verdict)) + "\n"


def _lines(verdict: Verdict) -> Iterator[str]:
    provenance = verdict.provenance[LEGACY]
    title = " ".join(str(provenance[name]) for name in ("family", "variant") if provenance.get(name)) or "parity"
    yield f"### {verdict.outcome}: {_text(title)}"
    yield ""
    yield _text(closing_line(verdict).removeprefix(verdict.outcome).strip())
    if verdict.divergence is not None:
        yield from ("", f"**First divergence:** {_text(verdict.divergence.message)}")
        lines = [*divergence_lines(verdict), *backward_lines(verdict)]
        if lines:
            yield from ("", *(f"- {_text(line.strip())}" for line in lines))
    yield from _stages(verdict)
    if verdict.outcome != MATCH:
        yield from _folded("Reasons", verdict.reasons)
    yield from _folded("Built or initialised differently", initial_lines(verdict))
    if verdict.isolation is not None:
        yield from _folded("Differ by themselves, given equal inputs", culprit_lines(verdict.isolation))
    yield from _folded("Decided differently", [sections.decision_line(one) for one in verdict.decisions])
    yield from _folded("Accepted as ties", tie_lines(verdict))
    yield from _folded("Detections", sections.detection_lines(verdict.detections)[1:])
    yield from _folded("What was left out, and why", list(_coverage(verdict)))
    yield from _folded("Provenance", [provenance_line(side, of) for side, of in verdict.provenance.items()])


def _stages(verdict: Verdict) -> Iterator[str]:
    rows = stages(verdict.comparisons, verdict.without_effect)
    if not rows:
        return
    yield from ("", "| stage | records | bit-identical | equal | worst record |", "|---|---:|---:|---:|---|")
    for stage in rows:
        mark = "" if stage.accepted == stage.records else "**"
        worst = f"`{record_name(stage.worst.pair.new)}`".replace("|", "\\|") if stage.worst else ""
        yield f"| {mark}{_text(stage.name)}{mark} | {stage.records} | {stage.identical} | {stage.accepted} | {worst} |"


def _coverage(verdict: Verdict) -> Iterator[str]:
    coverage = verdict.coverage
    yield (
        f"leaf calls paired {coverage.paired_leaf_calls} of {coverage.legacy_leaf_calls}, "
        f"{counted(len(coverage.excluded_records), 'record')} excluded, {len(coverage.unaccounted)} unaccounted"
    )
    yield from (f"excluded {line}" for line in exclusion_lines(verdict))
    yield from sections.coverage_lines(coverage)
    yield from lone_lines(verdict)


def _folded(title: str, lines: Sequence[str]) -> Iterator[str]:
    """Yield a part that is opened by a click; nothing of nothing."""
    if not lines:
        return
    yield from ("", f"<details><summary>{title}</summary>", "")
    yield from (f"- {_text(line.strip())}" for line in lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        yield f"- and {len(lines) - MOST_LINES} more"
    yield from ("", "</details>")


def _text(text: str) -> str:
    """Return text that stands for itself, in one line; what is between backticks stays code."""
    parts = " ".join(text.split()).split("`")
    if len(parts) % 2 == 0:
        return "\\`".join(_SPECIAL.sub(r"\\\1", part) for part in parts)
    return "`".join(part.replace("|", "\\|") if number % 2 else _SPECIAL.sub(r"\\\1", part) for number, part in enumerate(parts))

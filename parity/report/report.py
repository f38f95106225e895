"""Render a verdict for a terminal of 80 columns."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from legacy_adapters.ground.words import counted
from legacy_adapters.provenance import originals
from legacy_adapters.recording.kinds import RESULT
from legacy_adapters.registry import shown_path
from legacy_adapters.training.phases import rank_of

from ..comparing.compare import EXACT, FIXED, Comparison
from ..comparing.metrics import Metrics
from ..comparing.pairing import LEGACY, NEW
from ..decisions.trials import DecisionDifference
from ..sides.places import is_of_model
from ..sides.shared import shared_code
from ..traces.kinds import OF_TAPS, Kind
from ..verdict.blame import Divergence
from ..verdict.isolation import Culprit, Isolation, count_line
from ..verdict.verdict import MATCH, Verdict
from . import sections
from .alone import backward_lines, lone_lines
from .captured import SEAL_DIGITS, too_large_under
from .diagnosis import diagnosis_lines
from .printing import print_wrapped
from .rounding import jumped_gradients, rounding_lines, without_effect_lines
from .stages import drift_stages, gap_text, record_name, stages
from .training import training_lines, zero_lines

MOST_LINES = 10
def print_verdict(verdict: Verdict, console: Console, quiet: bool, script: Path | None = None) -> None:
    """Write the table, the first divergence and, last, one line that can be grepped; that alone if ``quiet``.

    Args:
        verdict: to be told.
        console: to write to.
        quiet: the last line only.
        script: that shows the first error alone.
    """
    if not quiet:
        for side, provenance in verdict.provenance.items():
            console.print(provenance_line(side, provenance), markup=False, highlight=False)
        if (memory := memory_line(verdict.provenance)) != "":
            console.print(memory, markup=False, highlight=False)
        console.print(_table(verdict))
        _print_drifts(verdict, console)
        if (shared := shared_code(verdict.provenance)) is not None:
            print_wrapped(shared.line(), console)
        if seals := [f"{side} {seal[:SEAL_DIGITS]}" for side, seal in verdict.seals.items() if seal]:
            console.print(f"digests of the recordings: {', '.join(seals)}", markup=False, highlight=False)
        _print_coverage(verdict, console)
        if verdict.isolation is not None:
            _print_isolation(verdict.isolation, console)
        _print_divergence(verdict, console)
        for line in backward_lines(verdict):
            print_wrapped(line, console)
        if script is not None:
            alone = "shown, with the whole model," if is_of_model(script) else "shown alone"
            console.print(f"{alone} by: python {script}", markup=False, highlight=False, soft_wrap=True)
    console.print(closing_line(verdict), markup=False, highlight=False, soft_wrap=True)


def provenance_line(side: str, provenance: dict[str, Any]) -> str:
    """Tell in one line which code a side ran and under which conditions."""
    modules = ", ".join(f"{name} {module['version']}".strip() for name, module in provenance.get("modules", {}).items())
    code = " ".join(str(provenance[key]) for key in ("code_base", "commit") if key in provenance)
    threads, capability = provenance.get("threads"), provenance.get("cpu_capability")
    named = f" ({modules})" if modules else ""
    line = f"{side}: {code}{named}, torch {provenance.get('torch')}, {_threads(threads)}, {capability}"
    return f"{line}, {under}" if (under := _autocast(provenance)) else line


def _threads(number: int | None) -> str:
    return "threads unknown" if number is None else counted(number, "thread")


def _autocast(provenance: dict[str, Any]) -> str:
    """Tell under which autocast a side ran, and what was set for that; empty if under none."""
    amp, switch = provenance.get("amp"), provenance.get("switch")
    return f"{amp} autocast{f' with {switch}' if switch else ''}" if amp else ""


def memory_line(provenance: dict[str, dict[str, Any]]) -> str:
    """Tell the most memory that each side has held, in gigabytes of 10^9 bytes; empty where no side has recorded it."""
    held = {side: of["peak_memory"] for side, of in provenance.items() if "peak_memory" in of}
    parts = [
        f"{side} {peak['process'] / 1e9:.1f} GB" + (f" and {peak['gpu'] / 1e9:.1f} GB on the GPU" if "gpu" in peak else "")
        for side, peak in held.items()
    ]
    return f"peak memory: {', '.join(parts)}" if parts else ""


def _table(verdict: Verdict) -> Table:
    rows = stages(verdict.comparisons)
    alone = {stage.name: stage for stage in stages(verdict.isolation.comparisons)} if verdict.isolation else {}
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("stage", no_wrap=True, overflow="ellipsis", max_width=30)
    for title in ("records", "equal", *(["alone"] if alone else []), "max diff"):
        table.add_column(title, justify="right", no_wrap=True)
    # the only column that rich may shrink: of columns that all refuse to wrap it takes from each alike
    table.add_column("worst record" if any(stage.worst for stage in rows) else "")
    for stage in rows:
        style = None if stage.accepted == stage.records else "bold red"
        name = Text(record_name(stage.worst.pair.new) if stage.worst else "", no_wrap=True, overflow="ellipsis")
        counts = [stage.records, stage.accepted]
        if alone:
            counts.append(alone[stage.name].accepted if stage.name in alone else 0)
        table.add_row(Text(stage.name), *map(str, counts), gap_text(stage.worst), name, style=style)
    return table


def _print_drifts(verdict: Verdict, console: Console) -> None:
    """Print how far autocast moves the new side by itself, where the legacy side could not be compared."""
    if verdict.autocast_failure is None or not verdict.autocast_failure.drifts:
        return
    amp = verdict.provenance[NEW].get("amp")
    print_wrapped(
        f"the new side alone, under {amp} autocast against float32 with equal decisions and draws: root mean square of "
        "the difference, in % of that of the float32 result (figures, no verdict)",
        console,
    )
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("stage", no_wrap=True, overflow="ellipsis", max_width=30)
    for title in ("records", "median", "largest"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("of")
    for stage in drift_stages(verdict.autocast_failure.drifts):
        name = Text(record_name(stage.worst), no_wrap=True, overflow="ellipsis")
        shares = (f"{100 * share:.3g}" for share in (stage.median, stage.largest))
        table.add_row(Text(stage.name), str(stage.records), *shares, name)
    console.print(table)


def _print_coverage(verdict: Verdict, console: Console) -> None:
    coverage = verdict.coverage
    console.print(
        f"leaf calls paired {coverage.paired_leaf_calls} of {coverage.legacy_leaf_calls}, "
        f"records excluded {len(coverage.excluded_records)}, unaccounted {len(coverage.unaccounted)}",
        highlight=False,
    )
    for line in initial_lines(verdict):
        print_wrapped(line, console)
    for line in [*rounding_lines(verdict), *zero_lines(verdict), *without_effect_lines(verdict)]:
        print_wrapped(line, console)
    for line in training_lines(verdict):
        print_wrapped(line, console)
    if verdict.provenance[LEGACY].get("probed") and not verdict.provenance[NEW].get("probed"):
        print_wrapped("NMS never tried at its very threshold: no tap of the new side has a `probe`", console)
    for line in exclusion_lines(verdict):
        print_wrapped(f"  excluded {line}", console)
    if verdict.containers:
        pairs = [f"{one} and {two}" for one, two in verdict.containers]
        print_wrapped(sections.cut_list("  taken for one, for they hold the same parameters: ", pairs), console)
    idle = sections.idle_lines(verdict.idle_names, verdict.provenance[LEGACY].get("family"))
    lines = [*verdict.labels.lines(), *sections.coverage_lines(coverage), *lone_lines(verdict), *idle]
    lines += sections.decision_lines(verdict.decisions)
    if any(not c.identical and c.pair.new.name == RESULT for c in verdict.comparisons):
        lines += sections.detection_lines(verdict.detections)
    for line in lines:
        print_wrapped(line, console)


def initial_lines(verdict: Verdict) -> list[str]:
    """Return a heading and a line for each of the first places that are built or initialised differently."""
    differences = verdict.initial
    if not differences:
        return []
    left = len(differences) - MOST_LINES
    lines = [f"built or initialised differently: {len(differences)}"]
    lines += [f"  {item.message}" for item in differences[:MOST_LINES]]
    return [*lines, f"  and {left} more; see --json"] if left > 0 else lines


def tie_lines(verdict: Verdict) -> list[str]:
    """Return one line per decision that differs and was accepted, with its margin."""
    return [
        f"{c.pair.new.phase} {c.pair.new.name}#{c.pair.new.call} {c.pair.new.slot}: {c.difference.note}"
        for c in verdict.comparisons
        if c.pair.new.kind == Kind.TAP and not c.pair.new.is_float and c.accepted and c.difference is not None
    ]


def exclusion_lines(verdict: Verdict) -> list[str]:
    """Return one line per exclusion that is in use or was asked for: count, side, record pattern, reason."""
    counts = Counter(item.exclusion for item in verdict.coverage.excluded_records)
    counts.update(dict.fromkeys(verdict.idle_exclusions, 0))
    return [
        f"{count} x {exclusion.side} {exclusion.kind} {exclusion.name} {exclusion.slot}: {exclusion.reason}"
        + (f"; compared in their place: {exclusion.by}" if exclusion.by else "")
        for exclusion, count in counts.items()
        if exclusion is not None
    ]


def _print_isolation(isolation: Isolation, console: Console) -> None:
    culprits = isolation.culprits
    for reason in isolation.reasons:
        print_wrapped(f"isolated: not comparable: {reason}", console)
    if not culprits and isolation.reasons:
        return
    if not culprits:
        console.print("isolated: given equal inputs, no module differs", highlight=False)
        return
    console.print(f"isolated: {count_line(culprits)}", highlight=False)
    for line, culprit in list(zip(culprit_lines(isolation), culprits))[:MOST_LINES]:
        for part in (f"  {line}", *(f"    {said}" for said in diagnosis_lines(culprit.explanation.diagnoses))):
            print_wrapped(part, console)
    if len(culprits) > MOST_LINES:
        console.print(f"  and {len(culprits) - MOST_LINES} more; see --json", markup=False, highlight=False)


def culprit_lines(isolation: Isolation) -> list[str]:
    """Return a line per culprit: what differs there first, by how much alone, with what came before, what follows."""
    return [
        f"{culprit.where}: {counted(culprit.records, 'record')}, "
        f"first {culprit.record.kind} {record_name(culprit.record)} "
        + (f"{gap_text(culprit.alone)} (accumulated {gap_text(culprit.accumulated)})" if culprit.alone else "is missing")
        + _following(culprit)
        for culprit in isolation.culprits
    ]


def _following(culprit: Culprit) -> str:
    count = len(culprit.follows)
    return f", and {count} place{'s' * (count > 1)} that follow{'s' * (count == 1)} from it" if count else ""


def _print_divergence(verdict: Verdict, console: Console) -> None:
    divergence = verdict.divergence
    if divergence is None:
        return
    console.print(f"first divergence: {divergence.message}", style="bold", markup=False, highlight=False)
    for line in divergence_lines(verdict):
        print_wrapped(f"  {line}", console)


def divergence_lines(verdict: Verdict) -> list[str]:
    """Return what there is to say of the first divergence beside its message; nothing without one."""
    divergence = verdict.divergence
    if divergence is None:
        return []
    known = [f"known of this family: {divergence.hint}"] if divergence.hint else []
    layout = [*layout_lines(verdict), *reduction_lines(verdict), *class_lines(verdict)]
    return [*_difference_lines(verdict, divergence), *diagnosis_lines(verdict.explanation.diagnoses), *layout, *known]


def _difference_lines(verdict: Verdict, divergence: Divergence) -> list[str]:
    """Say how large the difference is; of a decision, and of what one rests on, how far it is from a tie."""
    comparison = divergence.comparison
    if comparison is None or comparison.difference is None:
        return []
    difference, decision = comparison.difference, decision_at(verdict, comparison)
    share = f"{difference.differing:.1%} of the elements differ, largest by {difference.max_abs:.3g}"
    if not comparison.pair.new.shape:
        share = f"differs by {difference.max_abs:.3g}"
    if decision is None:
        metrics = difference.metrics
        is_zero = comparison.finding is not None and comparison.finding.is_zero
        shown = [figures(metrics, is_zero)] if metrics is not None and metrics.ulps is not None else []
        return [difference.note or share, *shown]
    lines = [difference.note or share] if comparison.pair.new.kind == Kind.BASIS else []
    return [*lines, sections.decision_line(decision), *filter(None, [sections.witness_line(decision)])]


def layout_lines(verdict: Verdict) -> list[str]:
    """Say what differs in its layout only, and which forms would tell that."""
    lines = [verdict.layout] if verdict.layout else []
    if verdict.forms:
        left = len(verdict.forms) - MOST_LINES
        lines += ["in another layout only; put into `forms` of FAMILY:", *(f"  {one}," for one in verdict.forms[:MOST_LINES])]
        lines += [f"  and {left} more; see --json"] if left > 0 else []
    return lines


def decision_at(verdict: Verdict, comparison: Comparison) -> DecisionDifference | None:
    """Return the decision that a tap or a basis record is part of, if it differs."""
    record = comparison.pair.new
    if record.kind not in OF_TAPS:
        return None
    place = (record.phase, record.name, record.call)
    return next((decision for decision in verdict.decisions if decision.call_key == place), None)


def figures(metrics: Metrics, is_zero: bool = False) -> str:
    """Return what was measured in one line, but for the share of differing elements.

    Of what is zero but for rounding only absolute numbers say something.
    """
    said = [f"max {metrics.max_abs:.3g}", f"mean {metrics.mean_abs:.3g}"]
    if not is_zero:
        said.insert(1, f"relative {metrics.max_rel:.3g}")
        said += [f"cosine {metrics.cosine:.9g}", f"{metrics.ulps} ULP"]
    counts = (("NaN", metrics.nan), ("Inf", metrics.inf))
    said += [f"{what} {legacy} and {new}" for what, (legacy, new) in counts if legacy or new]
    return ", ".join(said)


def reduction_lines(verdict: Verdict) -> list[str]:
    """Say how often each side's code sums something over ranks where they part, if one does it less often."""
    comparison = verdict.divergence.comparison if verdict.divergence is not None else None
    phase = comparison.pair.new.phase if comparison is not None else ""
    counts = {side: verdict.provenance[side].get("reductions", {}).get(phase, {}) for side in (LEGACY, NEW)}
    if sum(counts[LEGACY].values()) == sum(counts[NEW].values()):
        return []
    said = [
        f"{side} " + (", ".join(f"{count} in {name or 'the detector'}" for name, count in modules.items()) or "none")
        for side, modules in counts.items()
    ]
    return [f"sums over ranks in the forward pass: {'; '.join(said)}"]


def class_lines(verdict: Verdict) -> list[str]:
    """Return a line per side with the class of the blamed module, where its code is to be looked for."""
    divergence = verdict.divergence
    if divergence is None or divergence.modules is None:
        return []
    sides = [(side, path) for side, path in zip((LEGACY, NEW), divergence.modules) if path in verdict.classes[side]]
    return [f"{side} code: {shown_path(verdict.classes[side][path])}" for side, path in sides]


def closing_line(verdict: Verdict) -> str:
    """Return the verdict in one line, e.g. ``MATCH 4654 of 4654 records bit-identical``."""
    total = len(verdict.comparisons)
    identical = sum(comparison.identical for comparison in verdict.comparisons)
    remark = ", ".join(filter(None, (seed_remark(verdict), originals.remark(verdict.provenance[LEGACY]))))
    if verdict.outcome == MATCH:
        tolerance = verdict.tolerance
        bounds = f" (rtol {tolerance.rtol:g}, atol {tolerance.atol:g})" if tolerance.name == FIXED else ""
        within = total - len(verdict.without_effect)
        accepted = "" if identical == within else f", {within} within {tolerance.name} tolerance{bounds}"
        if accepted and tolerance.name == EXACT:
            accepted = f", {within - identical} differ without effect"
        if jumped := jumped_gradients(verdict):
            accepted += f", {counted(len(jumped), 'gradient')} of these within half their size only"
        if verdict.without_effect:
            accepted += f", {total - within} between methods differ without effect"
        if verdict.renamed_outputs:
            accepted += f", outputs under other names: {_renamed_outputs(verdict)}"
        replayed = ", legacy decisions and draws replayed" if verdict.provenance[NEW].get("replayed") else ""
        under = f", under {autocast}" if (autocast := _autocast(verdict.provenance[NEW])) else ""
        said = f"MATCH {identical} of {counted(total, 'record')} bit-identical{accepted}{replayed}{under}"
        return f"{said}, {remark}" if remark else said
    where = f" First at {_place_of(divergence)}." if (divergence := verdict.divergence) is not None else ""
    return f"{verdict.outcome} {' '.join(verdict.reasons)}{where}{as_sentence(remark)}"


def _renamed_outputs(verdict: Verdict) -> str:
    pairs = verdict.renamed_outputs
    more = f" and {len(pairs) - 2} more" if len(pairs) > 2 else ""
    return ", ".join(f"`{one}` is `{two}`" for one, two in pairs[:2]) + more


def seed_remark(verdict: Verdict) -> str:
    """Say that the run was made under another seed than was asked for; empty if it was not."""
    if not verdict.seeds_before:
        return ""
    return f"under seed {verdict.provenance[LEGACY].get('seed')}, because {too_large_under(verdict.seeds_before)}"


def _place_of(divergence: Divergence) -> str:
    """Return where a divergence is; of several ranks also in which step and on which rank."""
    phase = divergence.comparison.pair.new.phase if divergence.comparison is not None else ""
    return divergence.where if rank_of(phase) is None else f"{divergence.where} in {phase}"


def as_sentence(remark: str) -> str:
    """Return a remark as a sentence that follows others; nothing of none."""
    return f" {remark[0].upper()}{remark[1:]}." if remark else ""

"""The page of a rehearsal: what was aligned, with which evidence; one file of HTML that needs nothing beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from legacy_adapters.ground.files import write_whole

from . import judging, plan
from .judging import Finding
from .legacy_runs import provenance_of
from .parting import Parting
from .setup import FREE, TWIN, Setup
from .stages import Mark, Stage

PAGE, DATA = "report.html", "report.json"
_MOST_ROWS = 80
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d1d1f; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .35rem .6rem; vertical-align: top; }
th { border-bottom: 2px solid #999; } td { border-bottom: 1px solid #ddd; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 12.5px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; } img { max-width: 100%; height: auto; }
.MATCH { color: #14713b; } .MISMATCH { color: #b3261e; } .INCOMPARABLE { color: #8a5a00; }
b.MATCH, b.MISMATCH, b.INCOMPARABLE { white-space: nowrap; } figure { margin: 1rem 0; } figcaption { color: #555; }
"""


def write(setup: Setup, stages: Sequence[Stage], marks: Mapping[str, Mark], found: Sequence[Finding]) -> None:
    """Write the page and the same as JSON into the folder of the rehearsal."""
    curves = json.loads((setup.folder / plan.CURVES / "curves.json").read_text())
    partings = list(judging.partings(setup))
    data = dict(
        verdict=judging.outcome(list(found)),
        summary=judging.closing_line(list(found), marks),
        model=str(setup.port),
        steps=setup.steps,
        seeds=setup.seeds,
        findings=[asdict(finding) for finding in found],
        partings=[dict(reference=one, other=other, **asdict(parting)) for one, other, parting in partings],
        stages=[dict(name=stage.name, command=stage.line, **asdict(marks[stage.name])) for stage in stages],
        provenance=provenance_of(setup.folder / plan.legacy_name(0)),
    )
    write_whole(setup.folder / DATA, json.dumps(data, indent=1, sort_keys=True) + "\n")
    write_whole(setup.folder / PAGE, "".join(_page(setup, stages, marks, found, partings, curves, data)))


def _page(
    setup: Setup, stages: Sequence[Stage], marks: Mapping[str, Mark], found: Sequence[Finding],
    partings: Sequence[tuple[str, str, Parting]], curves: Mapping[str, Any], data: Mapping[str, Any],
) -> Iterator[str]:  # fmt: skip
    verdict, summary = data["verdict"], data["summary"]
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Rehearsal of {escape(str(setup.port))}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    yield f"<h1>Rehearsal of {escape(str(setup.port))}</h1>"
    yield f'<p><b class="{verdict}">{verdict}</b> {escape(summary.partition(" ")[2])}</p>'
    yield f"<p>{setup.seeds} legacy trainings and the new side's, {setup.steps} steps each. {_code(data['provenance'])}</p>"
    if setup.new_settings:
        changed = ", ".join(f"<code>{escape(text)}</code>" for text in setup.new_settings)
        yield f"<p>The new side's config was changed: {changed}.</p>"
    yield "<h2>What holds, and the evidence</h2>"
    rows = [
        (f'<b class="{f.outcome}">{f.outcome}</b>', escape(f.claim), escape(f.evidence), f"<code>{f.stage}</code>")
        for f in found
    ]
    yield _table(("verdict", "claim", "evidence", "stage"), rows)
    yield "<h2>Steps of two trainings, compared bit by bit</h2>"
    yield _table(("reference", "compared with", "steps", "identical", "same losses", "parts at", "because of"), [
        (one, other, str(p.compared), str(p.equal), str(p.same_losses), "never" if p.step is None else f"step {p.step}", escape(p.cause))
        for one, other, p in partings
    ], numbers=(2, 3, 4))  # fmt: skip
    yield from _aps(setup, curves)
    yield "<h2>Curves</h2>"
    yield _figure(setup.folder / plan.CURVES / "curves.png", f"All legacy trainings and {FREE}.")
    yield "<h2>Loss terms</h2>"
    yield _quantities(curves)
    yield "<h2>Detections of both sides</h2>"
    for picture in sorted((setup.folder / plan.EVAL).glob("worst-*.png")):
        yield _figure(picture, "Legacy side left, new side right; the trained weights and their conversion.")
    yield "<h2>Stages</h2>"
    yield _table(("stage", "what", "seconds", "command"), [
        (s.name, escape(s.title), f"{marks[s.name].seconds:.0f}", f"<code>{escape(s.line)}</code>") for s in stages
    ], numbers=(2,))  # fmt: skip
    yield "</html>\n"


def _code(provenance: Mapping[str, Any]) -> str:
    known = provenance.get("commit") or "no known commit"
    machine = f"{provenance['device']}, {provenance['threads']} thread, {provenance['cpu_capability']}"
    return escape(f"Legacy code: {provenance['code_base']}, {known}; torch {provenance['torch']} on {machine}.")


def _aps(setup: Setup, curves: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Box AP of the last validation</h2>"
    rows = [(plan.legacy_name(seed), f"{ap:.3f}") for seed, ap in enumerate(judging.legacy_aps(setup))]
    rows += [(name, f"{judging.ap_of(setup.folder / name):.3f}") for name in (TWIN, FREE)]
    yield _table(("training", "AP"), rows, numbers=(1,))
    last = [q for q in curves["quantities"] if q["kind"] == "ap" and q["allowed"] is not None]
    if last:
        interval = max(last, key=lambda q: q["end"])
        low, high = interval["mean"] - interval["allowed"], interval["mean"] + interval["allowed"]
        yield f"<p>A training equal to the legacy ones lies between {low:.3f} and {high:.3f} (level {curves['level']:g}).</p>"


def _quantities(curves: Mapping[str, Any]) -> str:
    rows = [
        (escape(q["name"]), f"{q['end']:g}", _number(q["mean"]), _number(q["b"]), _number(q["allowed"]), str(q["accepted"]))
        for q in curves["quantities"]
        if q["kind"] != "stretch"
    ]
    names = ("quantity", "until step", "mean of legacy", "new side", "may differ by", "within")
    return _table(names, rows[:_MOST_ROWS], numbers=(1, 2, 3, 4))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f'<{tag}{" class=number" if i in numbers else ""}>{cell}</{tag}>' for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><tr>{cells('th', head)}</tr>{body}</table>"


def _figure(file: Path, caption: str) -> str:
    if not file.is_file():
        return f"<p>{escape(file.name)} is not there.</p>"
    image = base64.b64encode(file.read_bytes()).decode()
    return f'<figure><img src="data:image/png;base64,{image}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'

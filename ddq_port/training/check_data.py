"""What `ddq-train check-data` prints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click

from ddq_port.data.check import ERROR, KINDS, NOTE, WARNING, Findings, check
from ddq_port.training.console import DONE, NOT_SO, Failure

_COLORS = {ERROR: "red", WARNING: "yellow", NOTE: None}
_SHOWN = 5  # problems of each kind on the terminal


def command(ann_file: Path, images: Path | None, read_images: bool, as_json: bool, quiet: bool) -> int:
    """Check a data set, print what was found and return the exit code."""
    if images is not None and not images.is_dir():
        raise Failure(f"There is no folder `{images}`; --images names the folder that file names are relative to.")
    try:
        findings = check(ann_file, images, read_images=read_images)
    except OSError as error:
        raise Failure(f"Cannot read `{ann_file}`: {error.strerror or error}.") from error
    if as_json:
        click.echo(json.dumps(findings.as_dict(), indent=2))
        return DONE if findings.ok else NOT_SO
    if not quiet:
        for line in (*_classes(findings), *_problems(findings)):
            click.echo(line)
    click.echo(verdict(findings))
    return DONE if findings.ok else NOT_SO


def verdict(findings: Findings) -> str:
    """Return the closing line."""
    found = ", ".join(_number(findings.count(severity), severity) for severity in (ERROR, WARNING, NOTE))
    size = (
        f"{_number(findings.images, 'image')} ({findings.without_objects} without objects), "
        f"{_number(findings.annotations, 'annotation')}, {_number(len(findings.objects), 'class')}"
    )
    return f"{'USABLE' if findings.ok else 'UNUSABLE'} {findings.ann_file}: {size}; {found}"


def listing(findings: Findings, severities: tuple[str, ...] = (ERROR, WARNING, NOTE)) -> Iterator[tuple[str, str]]:
    """Yield (severity, line): each kind with its number and meaning, below it its first problems."""
    for kind, (severity, meaning) in KINDS.items():
        number = findings.counts.get(kind, 0)
        if not number or severity not in severities:
            continue
        yield severity, f"{severity} {kind} ({number}): {meaning}"
        shown = [problem for problem in findings.problems if problem.kind == kind][:_SHOWN]
        for problem in shown:
            yield severity, f"  {problem}"
        if number > len(shown):
            yield severity, f"  and {number - len(shown)} more"


def _classes(findings: Findings) -> Iterator[str]:
    if findings.objects:
        width = max(len("class"), *map(len, findings.objects))
        yield f"label  {'class':{width}}  annotations"
        for label, (name, number) in enumerate(findings.objects.items()):
            yield f"{label:5}  {name:{width}}  {number:11}"


def _problems(findings: Findings) -> Iterator[str]:
    for severity, line in listing(findings):
        plain = line.startswith(" ") or os.environ.get("NO_COLOR")
        yield line if plain else click.style(line, fg=_COLORS[severity])


def _number(number: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{number} {what}{'' if number == 1 else plural}"

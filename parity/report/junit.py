"""Render a verdict as JUnit's XML, which every CI shows: the verdict, its stages, and the modules of the first two levels.

The verdict is a test case of its own. It fails where the sides differ and is an error where they cannot be compared,
whatever the other cases say: what is missing on one side, for instance, belongs to no stage that was compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from legacy_adapters.ground.words import counted

from ..comparing.pairing import LEGACY
from ..verdict.verdict import INCOMPARABLE, MISMATCH, Verdict
from .modules import modules
from .report import closing_line, divergence_lines
from .stages import record_name, stages

_LEVELS = 2
#: What XML 1.0 has no place for.
_UNSPEAKABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(verdict: Verdict) -> str:
    """Return the XML."""
    provenance = verdict.provenance[LEGACY]
    title = ".".join(str(provenance[name]) for name in ("family", "variant") if provenance.get(name)) or "parity"
    top = ElementTree.Element("testsuites", name="ddq-parity")
    for suite in (_of_verdict(verdict, title), _of_stages(verdict, title), _of_modules(verdict, title)):
        for outcome in ("failure", "error"):
            count = len(suite.findall(f"testcase/{outcome}"))
            suite.set(f"{outcome}s", str(count))
        suite.set("tests", str(len(suite)))
        suite.set("skipped", "0")
        top.append(suite)
    for name in ("tests", "failures", "errors"):
        top.set(name, str(sum(int(suite.get(name, "0")) for suite in top)))
    ElementTree.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(top, encoding="unicode") + "\n"


def _of_verdict(verdict: Verdict, title: str) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=f"{title}.verdict")
    case = _case(suite, f"{title}.verdict", "verdict")
    outcomes = {MISMATCH: "failure", INCOMPARABLE: "error"}
    if verdict.outcome in outcomes:
        _put(case, outcomes[verdict.outcome], closing_line(verdict), [*verdict.reasons, *_divergence(verdict)])
    return suite


def _of_stages(verdict: Verdict, title: str) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=f"{title}.stages")
    for stage in stages(verdict.comparisons, verdict.without_effect):
        case = _case(suite, f"{title}.stages", stage.name)
        if stage.accepted < stage.records:
            worst = [f"worst: {record_name(stage.worst.pair.new)}"] if stage.worst else []
            _put(case, "failure", _differ(stage.records - stage.accepted, stage.records), [*worst, *_divergence(verdict)])
    return suite


def _of_modules(verdict: Verdict, title: str) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=f"{title}.modules")
    for module in modules(verdict.comparisons, verdict.without_effect):
        if not 1 <= module.level <= _LEVELS:
            continue
        case = _case(suite, f"{title}.modules", module.path)
        if module.first is not None:
            first = verdict.comparisons[module.first].pair.new
            here = [f"first here: {first.phase} {first.kind} {record_name(first)}"]
            _put(case, "failure", _differ(module.records - module.accepted, module.records), [*here, *_divergence(verdict)])
    return suite


def _differ(wrong: int, total: int) -> str:
    return f"{wrong} of {counted(total, 'record')} {'differs' if wrong == 1 else 'differ'}"


def _divergence(verdict: Verdict) -> list[str]:
    if verdict.divergence is None:
        return []
    return [f"first divergence: {verdict.divergence.message}", *(f"  {line}" for line in divergence_lines(verdict))]


def _case(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=_spoken(classname), name=_spoken(name), time="0")


def _put(case: ElementTree.Element, outcome: str, message: str, lines: Iterable[str]) -> None:
    found = ElementTree.SubElement(case, outcome, message=_spoken(message), type=outcome)
    found.text = _spoken("\n".join(lines))


def _spoken(text: str) -> str:
    return _UNSPEAKABLE.sub("?", text)

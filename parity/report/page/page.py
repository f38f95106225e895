"""Write a verdict as a page: one file of HTML, with its style, scripts and data in it, that asks nothing of the network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ddq_port import __version__

from ...decisions.audit import AuditedDecision
from ...verdict.verdict import Verdict
from .facts import facts

_ASSETS = Path(__file__).with_name("assets")
_CHART = _ASSETS / "uplot"
CHART_VERSION = "1.6.32"
_CODE = re.compile("`([^`]+)`")


def page(
    verdict: Verdict, audited: Sequence[AuditedDecision] = (), reworded: Callable[[Any], Any] = lambda data: data
) -> str:
    """Return the page of a verdict.

    Args:
        verdict: to be shown.
        audited: decisions of one side, to show how close they were; none if they were not examined.
        reworded: is given everything that is shown, plain data, and returns what is shown in its place.
    """
    shown = reworded(facts(verdict, audited))
    scripts = (file.read_text(encoding="utf-8") for file in sorted(_ASSETS.glob("*.js")))
    environment = Environment(
        loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["coded"] = _coded
    return environment.get_template("page.html.jinja").render(
        **{**shown, "data": _embedded(shown["data"])},
        version=__version__,
        chart_version=CHART_VERSION,
        chart_style=_verbatim(_CHART / "uPlot.min.css"),
        chart_script=_verbatim(_CHART / "uPlot.iife.min.js"),
        chart_licence=Markup(f"/*\n{(_CHART / 'LICENSE').read_text(encoding='utf-8').strip()}\n*/"),
        style=_verbatim(_ASSETS / "page.css"),
        script=Markup("\n".join(scripts)),
    )


def _coded(text: str) -> Markup:
    """Return text in which what stands between backticks is code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _verbatim(file: Path) -> Markup:
    """Return an own file as it is; of a verdict nothing may come into a page this way."""
    return Markup(file.read_text(encoding="utf-8").strip())


def _embedded(data: Any) -> Markup:
    """Return JSON that can stand in a script: nothing in it ends one."""
    return Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))

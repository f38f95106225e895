"""Files that tell a verdict beside what is printed: a page, JUnit's XML, Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from legacy_adapters.ground.files import write_whole

from .output import check_new_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..decisions.audit import AuditedDecision
    from ..verdict.verdict import Verdict


@dataclass(frozen=True)
class ReportFiles:
    """Where a verdict is written; None for what nobody asked for.

    Attributes:
        html: the page.
        junit: XML, as JUnit writes it.
        markdown: the summary for a pull request.
    """

    html: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None

    def given(self) -> Iterator[tuple[str, Path]]:
        """Yield each option that was given, with its file."""
        for field in fields(self):
            file = getattr(self, field.name)
            if file is not None:
                yield f"--{field.name}", file

    def check(self, force: bool) -> None:
        """Refuse files that may not be replaced, or not be written, before anything is computed for them.

        Raises:
            OSError: saying why.
            click.BadParameter: if two of them are one.
        """
        taken: dict[Path, str] = {}
        for option, file in self.given():
            other = taken.setdefault(file.absolute(), option)
            if other != option:
                raise click.BadParameter(f"{option} and {other} are both {file}; choose another name for one of them.")
            check_new_file(file, force)

    def write(self, verdict: Verdict, words: Mapping[str, str], audited: Sequence[AuditedDecision] = ()) -> None:
        """Write what was asked for, each file whole or not at all.

        Args:
            verdict: to be told.
            words: what it is told with in place of what, see :func:`.console.renamed`.
            audited: decisions of one side, for the page.

        Raises:
            OSError: if a file cannot be written.
        """
        from .console import renamed

        if self.html is not None:
            from ..report.page.page import page

            write_whole(self.html, page(verdict, audited, lambda data: renamed(data, words)))
        if self.junit is not None:
            from ..report.junit import junit

            write_whole(self.junit, renamed(junit(verdict), words))
        if self.markdown is not None:
            from ..report.markdown import markdown

            write_whole(self.markdown, renamed(markdown(verdict), words))

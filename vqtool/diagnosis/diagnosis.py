"""A report as Python users hold it: it prints as on a terminal, and writes its page."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from vqtool.diagnosis import page, terminal
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.report import Report
from vqtool.diagnosis.view import View


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis(Report):
    """A report with its findings: `.healthy`, `.worst()`, `.findings` (causes and fixes), `.codebooks` (figures)."""

    def __str__(self) -> str:
        return terminal.text(View(self))

    def __repr__(self) -> str:
        view = View(self)
        return f"<Diagnosis of {view.file}: {view.state}, {view.verdict}>"

    def to_html(self, path: str | Path) -> None:
        """Write the page that `vqtool diagnose --report` writes; it needs no network.

        Raises:
            VqtoolError: the file cannot be written.
        """
        page.write(self, Path(path))


def diagnosis_of(report: Report) -> Diagnosis:
    """The report with its findings."""
    found = diagnosed(report)
    return Diagnosis(**{one.name: getattr(found, one.name) for one in fields(found)})

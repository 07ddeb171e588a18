"""The one mechanism of findings: every check reads the report, and what another finding explains is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from vqtool.catalog import catalog
from vqtool.diagnosis import adversarial_findings, codebook_findings, foreign_findings, history, run_findings
from vqtool.diagnosis.report import SEVERITIES, Finding, Report

Check = Callable[[Report], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (*codebook_findings.CHECKS, *foreign_findings.CHECKS, *run_findings.CHECKS, *history.CHECKS,
                             *adversarial_findings.CHECKS)  # fmt: skip

# What one problem brings along: where the first is found, the others are its symptoms and are left out.
EXPLAINS: dict[str, frozenset[str]] = {
    "nan": frozenset({"collapse", "dead-codes", "dead-level", "duplicate-codes", "range-drift", "dc-offset",
                      "perplexity-falling", "loss-stuck", "frozen-codebook", "outputs-fed", "dimension-collapse"}),
    "not-started": frozenset({"collapse", "dead-codes", "dead-level", "duplicate-codes", "frozen-codebook"}),
    "zero-codebook": frozenset({"collapse", "dead-codes", "dead-level", "duplicate-codes", "frozen-codebook",
                                "codebook-lags", "dimension-collapse", "outputs-fed"}),
    "frozen-codebook": frozenset({"collapse", "dead-codes", "dead-level", "duplicate-codes", "perplexity-falling",
                                  "commitment-growing", "codebook-lags", "codes-ignored", "soft-hard-gap",
                                  "loss-stuck"}),
    "outputs-fed": frozenset({"collapse", "dead-codes", "dead-level", "duplicate-codes", "perplexity-falling",
                              "commitment-growing", "codebook-lags", "codes-ignored", "loss-stuck"}),
    "collapse": frozenset({"dead-codes", "dead-level", "duplicate-codes", "perplexity-falling", "commitment-growing",
                           "loss-stuck", "codes-ignored", "repeated-tokens", "hot-code", "codebook-lags",
                           "range-drift", "dc-offset", "no-negatives", "dimension-collapse"}),
    "commitment-growing": frozenset({"perplexity-falling"}),
    "dead-level": frozenset({"perplexity-falling"}),
    "dead-codes": frozenset({"perplexity-falling"}),
    "exploding-norms": frozenset({"duplicate-codes", "dimension-collapse"}),
    "soft-hard-gap": frozenset({"range-drift", "dc-offset", "codebook-lags", "commitment-growing"}),
    "no-negatives": frozenset({"loss-stuck"}),
    "loss-stuck": frozenset({"codes-ignored"}),
}  # fmt: skip


def diagnosed(report: Report) -> Report:
    """The report with its findings and those of plugins, the worst first."""
    found = [finding for check in CHECKS for finding in check(report)]
    found += catalog().hooks.collect("vqtool_diagnose", Finding, report=report)
    found = list(without_symptoms((history.begun(finding, report) for finding in found), report))
    found.sort(key=lambda finding: -SEVERITIES.index(finding.severity))
    return replace(report, findings=tuple(found))


def without_symptoms(findings: Iterable[Finding], report: Report) -> Iterator[Finding]:
    """The findings that no other one explains; the first of two with the same id and place.

    What is wrong with one codebook explains nothing of another.
    """
    books = {book.name for book in report.codebooks}
    every = list(findings)
    bad = [finding for finding in every if finding.severity in ("warn", "fail")]
    seen: set[tuple[str, str]] = set()
    for finding in every:
        causes = [cause for cause in bad if finding.id in EXPLAINS.get(cause.id, ())]
        if any(cause.where == finding.where or not {cause.where, finding.where} <= books for cause in causes):
            continue
        if (finding.id, finding.where) in seen:
            continue
        seen.add((finding.id, finding.where))
        yield finding

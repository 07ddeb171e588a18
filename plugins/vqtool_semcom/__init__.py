"""Digital semantic communication: the bits of codes on QAM symbols through noise, with data, metrics and baselines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from vqtool.catalog import Component, Limit, hookimpl, scan

if TYPE_CHECKING:
    from vqtool.diagnosis.report import Finding, Report

LIMITS = (
    Limit(
        "transmit-power",
        "dB between the transmitted and the nominal power",
        0.5,
        3.0,
        "a soft symbol at temperature 0.7 sends 4.8 dB too little (our own measurement)",
        shown=("tx_power", "transmitted power", "{:.3f}"),
    ),
    Limit(
        "llr-scale",
        "mean |LLR| over its expectation for the channel, or the inverse where that is less",
        0.80,
        0.50,
        "exact LLRs measured against their expectation; a half is the factor 2 of a mistaken noise variance",
        "low",
        shown=("llr.ratio", "|LLR| over the expected", "{:.3f}"),
    ),
)


@hookimpl
def vqtool_components() -> list[Component]:
    """Everything in this package, found by file name; imports none of it."""
    folders = (
        ("data", "data"),
        ("quantizers", "quantizer"),
        ("channels", "channel"),
        ("losses", "loss"),
        ("metrics", "metric"),
        ("baselines", "baseline"),
    )
    return [part for folder, role in folders for part in scan(f"vqtool_semcom.{folder}", role=role)]


@hookimpl
def vqtool_limits() -> tuple[Limit, ...]:
    """The limits of the findings about a link."""
    return LIMITS


@hookimpl
def vqtool_diagnose(report: Report) -> Iterable[Finding]:
    """The findings about a link."""
    from vqtool_semcom.findings import findings

    return list(findings(report))

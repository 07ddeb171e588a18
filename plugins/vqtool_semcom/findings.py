"""Findings of `vqtool diagnose` about a link: the power that it transmits, and the scale of the LLRs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vqtool.diagnosis import fixes
from vqtool.diagnosis.measures import folded
from vqtool.diagnosis.report import Finding, Report


def findings(report: Report) -> Iterator[Finding]:
    """Both findings, as far as the figures are known."""
    power, ratio = report.measures.get("tx_power"), report.measures.get("llr.ratio")
    if power is not None:
        yield transmit_power(report, power)
    if ratio is not None:
        yield llr_scale(report, ratio)


def transmit_power(report: Report, power: float) -> Finding:
    """Whether the transmitted power, as a multiple of the nominal power, is too low or too high."""
    off = abs(10 * math.log10(power)) if power > 0 else 200.0
    return report.judge(
        "transmit-power", off, f"the mean transmitted power is {power:.3g} of the nominal power ({off:.2g} dB off)",
        why=". Mixtures of constellation points have less power: harden the symbols, or transmit the points themselves",
        fix=fixes.hardening(report),
    )  # fmt: skip


def llr_scale(report: Report, ratio: float) -> Finding:
    """Whether the LLRs are as large as the noise of the channel lets expect."""
    return report.judge(
        "llr-scale", folded(ratio), f"mean |LLR| is {ratio:.3g} of what is expected at the noise of the channel",
        why=". The receiver assumes another noise variance than the channel has (per real dimension instead of complex "
        "total is a factor of 2), or another transmitted power",
    )  # fmt: skip

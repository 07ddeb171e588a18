"""Really trained runs: every planted fault is named as its own disease and nothing else; no healthy run is accused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.diagnosis.conftest import Trained
from tests.diagnosis.reports import pasted
from tests.diagnosis.unhealthy import CASES, UNHEALTHY, healthy
from vqtool.commands.diagnose_data import encoded
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.reading import report_of
from vqtool.diagnosis.report import Report

# The cause says what to do; what hides every negative here is in the code, no option of the recipe.
WITHOUT_FIX = ("not-started", "range-drift", "dc-offset", "no-negatives", "repeated-tokens", "llr-scale")


def found(report: Report) -> set[str]:
    """The ids of what warns or fails."""
    return {finding.id for finding in report.findings if finding.severity in ("warn", "fail")}


def both(name: str, run: Path) -> list[Report]:
    """The diagnosis of the checkpoint alone, and that over the encoded validation rows; the fault is in the code."""
    alone = report_of(run / "tokenizer.safetensors")
    with CASES[name].plant():
        counted, _ = encoded(alone, None, "valid", "cpu", count=True, pictures=False)
    return [diagnosed(alone), diagnosed(counted)]


@pytest.mark.parametrize("name", [case.name for case in UNHEALTHY])
def test_a_sick_run_gets_its_finding_and_no_other(name: str, trained: Trained) -> None:
    for report in both(name, trained(name)):
        assert found(report) == {CASES[name].disease}
        (finding,) = (f for f in report.findings if f.id == CASES[name].disease and f.severity in ("warn", "fail"))
        assert finding.cause
        assert finding.fix or finding.id in WITHOUT_FIX
        pasted(report, finding)
        assert not report.healthy


@pytest.mark.parametrize("name", [case.name for case in healthy()])
def test_a_healthy_run_gives_no_alarm(name: str, trained: Trained) -> None:
    for report in both(name, trained(name)):
        assert found(report) == set()
        assert report.healthy
        assert len(report.findings) >= 3, "nothing was looked at"

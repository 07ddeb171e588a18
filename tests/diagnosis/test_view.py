"""The view of a report: one set of rows and words, which the terminal and the page both show in full."""

from __future__ import annotations

from dataclasses import replace
from html import unescape

import pytest

from tests.diagnosis.handmade import codebook, report, rows
from tests.diagnosis.reports import report as counted
from tests.diagnosis.test_page import FINDINGS
from vqtool.diagnosis import terminal
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.page import page
from vqtool.diagnosis.view import MAX_POINTS, View, charts, line_of

MEASURES = {"codes.snr_db": 12.3, "dc": 0.012}


@pytest.mark.parametrize("made", [
    replace(report(codebook(), findings=FINDINGS, history=rows()), measures=MEASURES),
    replace(diagnosed(counted()), measures=MEASURES),
])  # fmt: skip
def test_terminal_and_page_show_the_same(made) -> None:
    view = View(made)
    shown = {
        "terminal": " ".join(terminal.text(view).split()),
        "page": " ".join(unescape(page(made, None)).replace("<code>", "`").replace("</code>", "`").split()),
    }
    wanted = [*view.codebooks.head, *view.codebooks.rows[0], view.passed, view.state, view.verdict, *view.subject]
    wanted += [f"{meaning} {figure}" for meaning, figure in view.summary]
    for card in view.cards:
        wanted += [card.title, card.figure, card.text, card.basis, *card.finding.fix]
    for where, text in shown.items():
        missing = [words for words in wanted if words not in text]
        assert not missing, where


def test_the_worst_finding_comes_first_and_keeps_its_number_in_the_history() -> None:
    view = View(report(codebook(), findings=FINDINGS, history=rows()))
    assert [(card.number, card.finding.id) for card in view.cards] == [(1, "nan"), (2, "dead-codes")]
    (stage,) = view.history
    assert [card.number for card in stage.marks] == [1, 2]
    assert view.verdict == "1 fail, 1 warn"


def test_columns_without_a_value_are_left_out() -> None:
    head = View(report(codebook())).codebooks.head
    assert "error" not in head
    assert "drift" not in head
    assert head[:3] == ("codebook", "codes", "used")


def test_a_long_history_is_thinned_to_its_ends() -> None:
    history = [{"stage": "a", "step": step, "split": "train", "loss": float(step)} for step in range(1, 5001)]
    line = line_of("loss", history, "train")
    assert len(line) <= MAX_POINTS + 1
    assert (line[0], line[-1]) == ((1.0, 1.0), (5000.0, 5000.0))


def test_charts_with_most_information_come_first() -> None:
    row = {"stage": "a", "step": 1, "split": "valid", "seconds": 2.0, "zeta": 1.0, "mse": 1.0, "loss": 1.0}
    assert [chart.name for chart in charts([row])] == ["loss", "mse", "zeta"]

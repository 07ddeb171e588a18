"""What a terminal shows of a diagnosis."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np

from tests.diagnosis.handmade import codebook, report
from vqtool.diagnosis.measures import usage
from vqtool.diagnosis.page import page
from vqtool.diagnosis.report import Codebook
from vqtool.diagnosis.terminal import summary, text
from vqtool.diagnosis.view import WHOLE, View, dead_note


def counted(counts: np.ndarray) -> Codebook:
    """A codebook of these counts."""
    return Codebook("codebook", len(counts), counts, None, usage(counts))


def test_codes_whose_turn_did_not_come_are_not_called_dead_without_a_word() -> None:
    rng = np.random.default_rng(0)
    few = np.bincount(rng.integers(0, 256, 256), minlength=256)  # all alive
    dead = int((few == 0).sum())
    result = dead_note([counted(few)])
    assert f"these {dead} codes" in result
    hit = int(result.split("about ")[1].split(" ")[0])
    assert 0.6 * dead < hit <= dead
    assert "these" in page(report(counted(few)), None)
    assert result.replace("\n", " ") in text(View(report(counted(few))), io.StringIO()).replace("\n", " ")


def test_what_is_dead_needs_no_word() -> None:
    really = np.r_[np.full(20, 50), np.zeros(12, int)]
    assert dead_note([counted(really)]) == ""
    assert dead_note([counted(np.full(8, 9))]) == ""
    assert dead_note([codebook()]) == ""  # how many are alive is not known
    assert dead_note([]) == ""


def test_measures_of_all_codebooks_are_shown() -> None:
    figures = {name: 1.0 for name, _, _ in WHOLE}
    measured = summary(View(replace(report(codebook()), measures=figures, tokens=1000)), io.StringIO()).replace(
        "\n", " "
    )
    assert all(meaning in measured for _, meaning, _ in WHOLE)
    assert summary(View(replace(report(codebook()), measures={})), io.StringIO()) == ""


def test_tuples_that_hardly_repeat_give_no_entropy() -> None:
    """830 tokens in 820 tuples have 9.7 bits whatever the codebooks are like."""
    figures = {"joint.used": 820.0, "joint.entropy_bits": 9.7, "dc": 0.1}
    measured = summary(View(replace(report(codebook()), measures=figures, tokens=830)), io.StringIO())
    assert "together 9" not in measured
    assert "mean error" in measured

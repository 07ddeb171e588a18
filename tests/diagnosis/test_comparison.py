"""Two diagnoses side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.cli.run import vqtool
from tests.diagnosis.conftest import Trained
from tests.diagnosis.handmade import codebook, report
from vqtool.diagnosis import comparison, page, terminal
from vqtool.diagnosis.report import Finding, Report
from vqtool.diagnosis.view import View

DEAD = Finding("dead-codes", "fail", 0.5, 0.4, "by hand", "half of the codes are dead", where="level1")
ROUGH = Finding("range-drift", "warn", 1.5, 1.2, "by hand", "the output is too loud")


def before() -> Report:
    return report(codebook("level0", dead=4), codebook("level1", dead=8), findings=(DEAD,))


def now() -> Report:
    return report(codebook("level0", dead=4), codebook("level1", dead=1), findings=(ROUGH,))


def test_each_codebook_before_and_now() -> None:
    head, rows = comparison.rows(before(), now())
    assert head[:4] == ("codebook", "used", "dead", "perplexity")
    assert rows[1][:3] == ("level1", "8 -> 15", "8 -> 1")


def test_a_codebook_of_one_alone() -> None:
    _, rows = comparison.rows(before(), report(codebook("level0")))
    assert [row[0] for row in rows] == ["level0", "level1"]
    assert rows[1][1] == "8 -> none"


def test_names_of_another_library_go_by_order() -> None:
    _, rows = comparison.rows(before(), report(codebook("layers.0", dead=2), codebook("layers.1", dead=3)))
    assert [row[:2] for row in rows] == [("layers.0", "12 -> 14"), ("layers.1", "8 -> 13")]


def test_findings_that_are_gone_and_new() -> None:
    assert comparison.findings(before(), now()) == (("fail dead-codes in level1",), ("warn range-drift",))
    assert comparison.sentences(now(), now()) == ("the same findings",)


def test_the_terminal_and_the_page_show_it() -> None:
    shown = terminal.text(View(now(), before()))
    assert "8 -> 15" in shown
    assert "gone: fail dead-codes in level1" in shown
    assert "8 -&gt; 15" in page.page(now(), None, before=before())
    assert "->" not in terminal.text(View(now()))


def test_the_command(trained: Trained) -> None:
    run = str(trained("healthy-ema"))
    done = vqtool("diagnose", run, "--against", run, "--json")
    against = json.loads(done.stdout)["against"]
    assert against["gone"] == against["new"] == []
    assert against["codebooks"]
    assert all(book["before"] == book["now"] for book in against["codebooks"])


def test_an_earlier_model_that_is_not_there(trained: Trained) -> None:
    done = vqtool("diagnose", str(trained("healthy-ema")), "--against", "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr


def test_a_measure_that_neither_has_is_left_out() -> None:
    head, rows = comparison.rows(before(), now())
    assert "error" not in head
    assert len(head) > 1
    assert all(" -> " in cell for row in rows for cell in row[1:])


def test_a_finding_that_became_worse_is_new() -> None:
    worse = report(findings=(replace(ROUGH, severity="fail"),))
    assert comparison.findings(now(), worse) == (("warn range-drift",), ("fail range-drift",))


def test_what_was_counted_is_shown_where_it_differs() -> None:
    other = replace(now(), tokens=7, counted="split test")
    assert comparison.sentences(now(), other)[-1].endswith(" -> 7 tokens of split test")


def test_names_of_tensors_are_of_the_other_model_alone(trained: Trained, tmp_path: Path) -> None:
    run, other = str(trained("healthy-ema")), str(tmp_path / "other.npz")
    np.savez(other, table=np.random.default_rng(0).normal(size=(16, 8)).astype("f4"), hits=np.arange(1, 17))
    names = ("--vectors", "table", "--usage", "hits", "--json")
    foreign = json.loads(vqtool("diagnose", other, "--against", run, *names).stdout)
    own = json.loads(vqtool("diagnose", run, "--against", other, *names).stdout)
    assert foreign["tokens"] == 136
    assert foreign["against"]["checkpoint"] == own["checkpoint"]
    assert own["family"] is None


def test_a_split_is_encoded_by_both(trained: Trained) -> None:
    run = str(trained("healthy-ema"))
    found = json.loads(vqtool("diagnose", run, "--against", run, "--split", "train", "--json").stdout)
    assert found["counted"] == "split train"
    assert all(book["before"] == book["now"] for book in found["against"]["codebooks"])

"""What people see while a stage trains: a line per validation, why a stage ends early, and rows that say the rest."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path

import pytest

from tests.training.test_resume import killed_at, session
from tests.training.tiny import write_recipe
from vqtool.errors import VqtoolError
from vqtool.model.runs import rows_of
from vqtool.progress import progress_for
from vqtool.training.headline import Headline, holds
from vqtool.training.rundir import RunDir
from vqtool.training.runtime import Runtime
from vqtool.training.session import resume

SHORT = ["stage.tokenizer.steps=8", "stage.tokenizer.valid_every=2"]


def test_every_validation_has_a_line_with_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert session(write_recipe(tmp_path), tmp_path / "run", SHORT).train() == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tokenizer ") and "snr" in line]
    assert [line.split()[1] for line in lines] == ["2/8", "4/8", "6/8", "8/8"]
    rows = [row for row in rows_of(tmp_path / "run" / "metrics.jsonl") if row["split"] == "valid"]
    for line, row in zip(lines, rows, strict=True):
        assert f"loss {row['loss']:.4g}" in line
        assert f"snr {row['output.snr_db']:.2f} dB" in line
        assert f"perplexity {row['codes.perplexity']:.0f}/8" in line
        assert f"used {row['codes.used']:.0%}" in line
        assert f"epoch {row['epoch']}/2" in line  # 80 rows, 16 a step


def test_a_line_says_where_the_best_was(capsys: pytest.CaptureFixture[str]) -> None:
    headline = Headline("stage", 30, {"loss": "min", "accuracy": "max", "llr": None})
    for step, row in [(10, (1.0, 0.5)), (20, (2.0, 0.7)), (30, (1.5, float("nan")))]:
        headline.show(step, {"loss": row[0], "accuracy": row[1], "llr": 3.0, "other": 1.0}, {}, "")
    assert capsys.readouterr().err.splitlines() == [
        "stage 10/30  loss 1  accuracy 0.5  llr 3",
        "stage 20/30  loss 2 (best 1 at 10)  accuracy 0.7 (best)  llr 3",
        "stage 30/30  loss 1.5 (best 1 at 10)  accuracy nan  llr 3",
    ]


@pytest.mark.parametrize(
    ("value", "asked", "met"),
    [(0.5, "< 0.6", True), (0.6, "< 0.6", False), (0.6, "<= .6", True), (2.0, ">1e0", True), (1.0, ">= 1.5", False),
     (float("nan"), "< 1", False), (float("nan"), "> 1", False)],
)  # fmt: skip
def test_conditions(value: float, asked: str, met: bool) -> None:
    assert holds(value, asked) is met


def test_a_stage_ends_where_all_conditions_hold_in_one_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    assert session(recipe, tmp_path / "free", SHORT).train() == 0
    valid = [row for row in rows_of(tmp_path / "free" / "metrics.jsonl") if row["split"] == "valid"]
    capsys.readouterr()
    limit = (valid[0]["loss"] + valid[1]["loss"]) / 2
    when = f'stage.tokenizer.stop_when={{"loss" = "< {limit}", "codes.used" = "> 0"}}'
    assert valid[1]["loss"] < limit < valid[0]["loss"]
    assert session(recipe, tmp_path / "run", [*SHORT, when]).train() == 0
    assert rows_of(tmp_path / "run" / "metrics.jsonl")[-1]["step"] == 4
    assert f"stage `tokenizer` ends at step 4 of 8: loss < {limit} and codes.used > 0" in capsys.readouterr().err
    never = f'stage.tokenizer.stop_when={{"loss" = "< {limit}", "codes.used" = "> 1"}}'
    assert session(recipe, tmp_path / "never", [*SHORT, never]).train() == 0
    assert rows_of(tmp_path / "never" / "metrics.jsonl")[-1]["step"] == 8


def test_patience_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lr = "stage.tokenizer.lr=0.3"
    assert session(write_recipe(tmp_path), tmp_path / "run", [*SHORT, lr, "train.patience=1"]).train() == 0
    said = capsys.readouterr().err
    assert re.search(r"stage `tokenizer` ends at step \d of 8: no gain in 1 validations \(best loss \S+ at \d\)", said)


@pytest.mark.parametrize("asked", ["0.5", "about 3", "< one", "== 3"])
def test_a_condition_that_is_none_is_refused(tmp_path: Path, asked: str) -> None:
    with pytest.raises(VqtoolError, match=r"stop_when.*should be a comparison such as"):
        session(write_recipe(tmp_path), tmp_path / "run", [f'train.stop_when={{"loss" = "{asked}"}}'])


def test_a_condition_on_a_figure_that_is_not_there_is_refused(tmp_path: Path) -> None:
    when = 'stage.tokenizer.stop_when={"accuracy.hard" = "> 0.9"}'
    with pytest.raises(VqtoolError, match=r"`stop_when` names `accuracy\.hard`, which is not among") as caught:
        session(write_recipe(tmp_path), tmp_path / "run", [*SHORT, when]).train()
    assert "codes.used, " in str(caught.value.hint)
    assert "level0" not in str(caught.value.hint), "the hint lists no figure of a single codebook"


def test_a_run_resumed_after_its_condition_held_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the validation that ends a stage and its end: the steps that are left are not trained."""
    when = 'stage.tokenizer.stop_when={"loss" = "< 1e9"}'
    made = session(write_recipe(tmp_path), tmp_path / "run", [*SHORT, when])
    with monkeypatch.context() as patch:
        patch.setattr("vqtool.training.loop.StageLoop._ends_early", lambda self: False)
        killed_at(patch, made, 3)
    again, state = resume(RunDir.open(tmp_path / "run"), Runtime(made.runtime.device))
    assert state.metadata["met"]
    assert again.train(state=state) == 0
    assert max(row["step"] for row in rows_of(tmp_path / "run" / "metrics.jsonl")) == 2


def test_bests_survive_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = session(write_recipe(tmp_path), tmp_path / "run", SHORT)
    killed_at(monkeypatch, made, 5)
    _, state = resume(RunDir.open(tmp_path / "run"), Runtime(made.runtime.device))
    rows = [row for row in rows_of(tmp_path / "run" / "metrics.jsonl") if row["split"] == "valid"]
    best = min(rows, key=lambda row: row["loss"])
    assert state.metadata["headline"]["loss"] == [best["loss"], best["step"]]


def test_knobs_that_are_set_or_scheduled_are_in_every_row(tmp_path: Path) -> None:
    knobs = [*SHORT, 'stage.tokenizer.set={"losses.commitment" = 0.5}',
             'stage.tokenizer.schedule={"losses.mse" = {kind = "linear", from = 1.0, to = 2.0}}']  # fmt: skip
    assert session(write_recipe(tmp_path), tmp_path / "run", [*knobs, "train.log_every=1"]).train() == 0
    rows = rows_of(tmp_path / "run" / "metrics.jsonl")
    assert {row["losses.commitment"] for row in rows} == {0.5}
    train = [row["losses.mse"] for row in rows if row["split"] == "train"]
    assert train[0] == 1.0
    assert train[-1] == 2.0
    assert [row["losses.mse"] for row in rows if row["split"] == "valid"][-1] == 2.0
    assert [row["epoch"] for row in rows if row["split"] == "train"] == [1] * 5 + [2] * 3


def test_figures_that_a_recipe_asks_to_show_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show = 'stage.tokenizer.show={"codes.tokens" = "max"}'
    assert session(write_recipe(tmp_path), tmp_path / "run", [*SHORT, show]).train() == 0
    rows = [row for row in rows_of(tmp_path / "run" / "metrics.jsonl") if row["split"] == "valid"]
    assert f"codes.tokens {rows[0]['codes.tokens']:.4g}" in capsys.readouterr().err
    unknown = 'stage.tokenizer.show={"codes.nothing" = "max"}'
    with pytest.raises(VqtoolError, match=r"`show` names `codes\.nothing`"):
        session(write_recipe(tmp_path), tmp_path / "other", [*SHORT, unknown]).train()


def test_the_first_plain_line_comes_after_two_seconds() -> None:
    stream, clock = io.StringIO(), itertools.count()
    with progress_for(100, "stage", silent=False, stream=stream) as lines:
        lines._clock = lambda: float(next(clock))  # type: ignore[attr-defined]  # of `Lines`
        lines._began = lines._reported = -1.0  # type: ignore[attr-defined]
        for step in range(30):
            lines.advance(1, loss=float(step), epoch="1/2")
            reported = [line.split()[1] for line in stream.getvalue().splitlines()]
            assert bool(reported) == (step >= 1)
    assert "epoch 1/2" in stream.getvalue()

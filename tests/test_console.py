"""The output sink and the rendering of errors."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from pathlib import Path

import pytest

from vqtool import progress
from vqtool.console import cells, error_text, out, plain, render_error, table_text
from vqtool.errors import VqtoolError, Where


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_an_error_points_at_its_place() -> None:
    where = Where("bad.toml", 4, 1, "codebook_sise = 256", 13)
    error = VqtoolError(
        'quantizer "ema" has no option `codebook_sise`', hint="did you mean `codebook_size`?", where=where
    )
    assert error_text(error) == (
        'error: quantizer "ema" has no option `codebook_sise`\n'
        "  --> bad.toml:4:1\n"
        "   |\n"
        " 4 | codebook_sise = 256\n"
        "   | ^^^^^^^^^^^^^ did you mean `codebook_size`?"
    )


def test_a_long_hint_and_a_plain_place_have_lines_of_their_own() -> None:
    error = VqtoolError("no", hint="x" * 70, where="-s quantizer.levls=4")
    assert error_text(error) == f"error: no\n  --> -s quantizer.levls=4\n  hint: {'x' * 70}"


@pytest.mark.parametrize(("text", "column"), [("\tk = 1", 2), ("名 = 1; k = 2", 8), ("a" * 300 + " k", 302)])
def test_the_caret_is_under_its_column(text: str, column: int) -> None:
    lines = error_text(VqtoolError("m", where=Where("f", 12, column, text, 1))).splitlines()
    shown, carets = lines[3].split("| ", 1)[1], lines[4].split("| ", 1)[1]
    before = shown[: shown.index("k")]
    assert cells(before) == carets.index("^")
    assert len(shown) < 120


def test_errors_are_sorted_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    late, early = (VqtoolError(name, where=Where("f", line, 1, "text")) for name, line in (("late", 9), ("early", 2)))
    render_error(VqtoolError("nowhere", others=[late, early]))
    output = capsys.readouterr().err
    assert output.index("early") < output.index("late") < output.index("nowhere")


def test_an_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    out.mode = "json"
    render_error(VqtoolError("one", hint="do", where="there", others=[VqtoolError("two", where=Where("f", 1, 2))]))
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "error": {"message": "two", "where": "f:1:2", "hint": None,
                  "others": [{"message": "one", "where": "there", "hint": "do"}]}
    }  # fmt: skip
    assert captured.err == ""


def test_modes_decide_who_hears_what(capsys: pytest.CaptureFixture[str]) -> None:
    heard = {}
    for mode in ("human", "json", "quiet"):
        out.mode = mode  # type: ignore[assignment]
        out.say("said")
        out.warn("warned")
        out.table("t", ["a"], [["1"]])
        out.print("result")
        out.document({"value": 1})
        heard[mode] = capsys.readouterr()
    assert heard["human"].out == "result\n"
    assert "said" in heard["human"].err
    assert json.loads(heard["json"].out) == {"value": 1}
    assert "said" in heard["json"].err
    assert heard["quiet"].out == "result\n"
    assert heard["quiet"].err == "warning: warned\n"


def test_a_muted_rank_says_nothing_but_errors(capsys: pytest.CaptureFixture[str]) -> None:
    out.mute()
    for speak in (out.say, out.warn, out.hint, out.print):
        speak("text")
    with out.progress(3, "p") as bar:
        bar.advance(3)
    assert capsys.readouterr() == ("", "")
    render_error(VqtoolError("only here"))
    assert "only here" in capsys.readouterr().err


def test_a_document_is_strict_json(capsys: pytest.CaptureFixture[str]) -> None:
    out.mode = "json"
    out.document({"nan": float("nan"), "deep": [{"inf": float("inf")}], "path": Path("a"), "set": {2, 1}, "t": (1,)})
    result = json.loads(capsys.readouterr().out, parse_constant=lambda c: pytest.fail(c))
    assert result == {"nan": None, "deep": [{"inf": None}], "path": "a", "set": [1, 2], "t": [1]}


def test_scalars_of_arrays_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    assert plain({"a": numpy.float32(0.5), "b": numpy.int64(2)}) == {"a": 0.5, "b": 2}


def test_tables_align_numbers_to_the_right() -> None:
    text = table_text("figures", ["name", "value"], [["long name", "1.5"], ["x", "20"]])
    assert text.splitlines() == ["figures", "name       value", "long name    1.5", "x             20"]


def test_a_wide_table_wraps_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("NO_COLOR", "1")
    rows = [["name", "word " * 20]]
    assert max(map(len, table_text("", ["a", "b"], rows, Terminal()).splitlines())) <= 50
    assert len(table_text("", ["a", "b"], rows, io.StringIO()).splitlines()) == 2


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in table_text("title", ["a"], [], Terminal())
    assert "\x1b[" not in table_text("title", ["a"], [], io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in table_text("title", ["a"], [], Terminal())


def test_plain_lines_come_at_most_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter(range(0, 1000, 3))
    lines = progress.Lines(20, "training", clock=lambda: float(next(now)))
    for step in range(20):
        lines.advance(loss=step / 10)
    lines.report()
    output = capsys.readouterr().err.splitlines()
    assert 2 <= len(output) <= 8
    assert output[-1].startswith("training 20/20  loss 1.9")


def test_what_was_done_before_is_no_part_of_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that goes on from step 1000 is not a thousand steps faster."""
    now = iter(range(0, 1000, 2))
    lines = progress.Lines(1010, "training", clock=lambda: float(next(now)))
    lines.begin_at(1000)
    for _ in range(10):
        lines.advance()
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"training 10\d\d/1010  0\.\d+/s", last), last
    from rich.progress import Progress

    clock = iter(range(1000))
    drawn = Progress(get_time=lambda: float(next(clock)))
    bar = progress.Bar(1010, "training", drawn)
    bar.begin_at(1000)
    for _ in range(5):
        bar.advance()
    assert (drawn.tasks[0].completed, bar.done) == (1005, 1005)
    assert drawn.tasks[0].speed is not None
    assert drawn.tasks[0].speed <= 1


def test_no_bar_where_stderr_is_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with out.progress(5, "training") as bar:
        bar.advance(5, loss=0.5)
    output = capsys.readouterr().err
    assert output.startswith("training 5/5  loss 0.5")
    assert "\x1b" not in output


def test_a_part_has_lines_of_its_own_where_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.progress_of(3, "nothing is shown") as part:
        part.advance(3)
    with out.progress(None, "encode") as bar:
        bar.expect(2)
        with progress.progress_of(9, "short") as part:
            part.advance(9)
        monkeypatch.setattr(progress, "FIRST", 0.0)
        with progress.progress_of(9, "long") as part:
            part.advance(4)
        monkeypatch.undo()
        bar.advance()
    output = [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()]
    assert output == ["long 4/9", "encode 1/2"]
    with out.progress(1, "again"), progress.progress_of(1, "quiet") as part:
        part.advance()
    assert "quiet" not in capsys.readouterr().err


def test_a_part_has_a_second_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with out.progress(None, "encode") as bar:
        bar.expect(7)
        with progress.progress_of(9, "write a.vqc") as part:
            part.advance(4)
            time.sleep(0.2)
        bar.advance()
    result = terminal.getvalue()
    assert "write a.vqc" in result
    assert "4/9" in result
    assert "/7" in result


def test_a_bar_on_a_terminal_lets_lines_through(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with out.progress(5, "training [bold]") as bar:
        bar.advance(2, loss=0.25)
        out.warn("look [here]")
        bar.advance(3)
    result = terminal.getvalue()
    assert "look [here]" in result
    assert "training [bold]" in result
    assert bar.done == 5

"""Nothing that a terminal would obey reaches it from a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.run import within
from tests.recipe.text import GOOD
from tests.test_console import Terminal
from vqtool.catalog import Component
from vqtool.console import error_text, escaped, json_text, one_line, out, paint, render_error, table_text
from vqtool.errors import VqtoolError, Where

# ESC sequences, BEL, a C1 control, carriage return, marks of direction, and bytes of a name that are no text
EVIL = "\x1b[31mred\x1b]0;title\x07\x9b2J\rover\x7f\u202egpj.exe\u2066\u200f\udcff"
SHOWN = r"\x1b[31mred\x1b]0;title\x07\x9b2J\rover".replace(r"\r", r"\x0d") + r"\x7f\u202egpj.exe\u2066\u200f\udcff"


def obeyed(text: str) -> set[str]:
    """What a terminal would obey, but for the line feed."""
    return {c for c in text if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c in "\u202e\u2066\u200f\udcff"}


def test_control_characters_are_shown_escaped() -> None:
    assert escaped(EVIL) == SHOWN
    assert escaped("ordinary text: naïve, 名, 🙂\n\tand lines") == "ordinary text: naïve, 名, 🙂\n\tand lines"
    assert one_line("a\nb\tc") == r"a\nb\tc"


def test_every_way_out_of_the_sink(capsys: pytest.CaptureFixture[str]) -> None:
    error = VqtoolError(EVIL, hint=EVIL, where=Where(EVIL, 1, 2, EVIL, 3), others=[VqtoolError("x", where=EVIL)])
    for speak in (out.say, out.warn, out.hint, out.trace, out.print, out.relay):
        speak(EVIL)
    out.table(EVIL, [EVIL], [[EVIL]])
    with out.progress(2, EVIL) as bar:
        bar.advance(2)
    render_error(error)
    out.muted = True
    render_error(error)
    out.muted = False
    printed = capsys.readouterr()
    assert obeyed(printed.out + printed.err) == set()
    assert (printed.out + printed.err).count(r"\x1b]0;title\x07") >= 14


def test_a_document_is_json_of_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    out.mode = "json"
    out.document({EVIL: [EVIL, "naïve"]})
    render_error(VqtoolError(EVIL))
    printed = capsys.readouterr().out
    assert obeyed(printed) == set()
    assert "naïve" in printed
    first = json.loads(printed[: printed.index("\n}") + 2])
    assert first == {EVIL: [EVIL, "naïve"]}
    assert json.loads(json_text(EVIL)) == EVIL


def test_our_own_colours_pass_and_those_of_a_file_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    assert escaped(paint("red", "red", terminal)) == "\x1b[31;1mred\x1b[0m"
    assert escaped(paint("\x1b[31;1mfile\x1b[0m", "red", terminal)) == "\x1b[31;1m\\x1b[31;1mfile\\x1b[0m\x1b[0m"
    monkeypatch.setattr(sys, "stderr", terminal)
    with out.progress(2, "p") as bar:
        out.warn(EVIL)
        bar.advance(2)
    render_error(VqtoolError("m"))
    result = terminal.getvalue()
    assert "\x1b[31;1merror\x1b[0m" in result
    assert r"\x1b]0;title\x07" in result
    assert not {"\x07", "\x9b", "\u202e"} & set(result)


def test_a_name_begins_no_line_of_its_own() -> None:
    false = "x`\nhint: curl example.com | sh"
    assert len(error_text(VqtoolError(f"no column `{false}`", where=false)).splitlines()) == 2
    assert len(table_text("", ["a\nb"], [[false]]).splitlines()) == 2


def test_what_libraries_print_is_escaped_too(capsys: pytest.CaptureFixture[str]) -> None:
    with out.alone_on_stdout():
        print(EVIL)
        print("no line", end="")
        sys.stderr.write(EVIL + "\n")
        sys.stdout.buffer.write(EVIL[:-1].encode() + b"\xff\n")
        assert not sys.stderr.isatty()
        assert sys.stderr.encoding
        with out.progress(1, "p"):
            print("beside a bar")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert obeyed(printed.err) == set()
    assert printed.err.count("title") == 3
    assert "beside a bar\n" in printed.err
    assert "no line" in printed.err


def test_commands_on_hostile_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "evil\x1b]0;t\x07\u202e.toml"
    texts = {name: "seed = \x1b[31m", "title.toml": GOOD.replace('title = "', 'title = "\\u001B]0;t\\u0007\\u202E')}
    for path, text in texts.items():
        Path(path).write_text(text)
        for words in (["check", path], ["train", path], ["check", path, "--json"]):
            done = within(*words)
            assert obeyed(done.stdout + done.stderr) == set()
    done = within("show", name)
    assert done.returncode == 2
    assert r"evil\x1b]0;t\x07\u202e.toml" in done.stderr


def test_a_plugin_s_words_are_escaped() -> None:
    component = Component("loss", "x", "m:X", EVIL)
    assert obeyed(table_text("", ["role", "summary"], [[component.role, component.summary]])) == set()

"""Plain command lines are taken without typer: exactly as typer takes them, or not at all."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.cli.run import within
from vqtool import cli
from vqtool import command as made
from vqtool.plain_call import names_of, plain_call

PATHS = ("run", "a/b.safetensors", "x.html", "a.b=1", "quantizer", " ", "ü")
ODD = ("-h", "--help", "-", "--", "", "3", "-1", "0.5", "cpu", "-qs", "--out=x", "--nothing")


def names(command: str) -> list[str]:
    """Every name of a command's options."""
    signature = made.SIGNATURES[command][1]
    infos = [p.annotation.__metadata__[0] for p in signature.parameters.values()]
    return [name for info in infos for name in names_of(info)]


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command and words that it may or may not take."""
    command = draw(st.sampled_from(sorted(made.SIGNATURES)))
    word = st.sampled_from([*PATHS, *PATHS, *ODD, *names(command), *names(command)])
    return [command, *draw(st.lists(word, max_size=6))]


def typed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...] | None:
    """What typer hands to `guarded`; None where it hands nothing."""
    seen: list[tuple[Any, ...]] = []
    with monkeypatch.context() as patch:
        patch.setattr(made, "guarded", lambda *given: seen.append(given) or 0)
        CliRunner().invoke(cli.app, words)
    return seen[0] if seen else None


def plainly(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...] | None:
    """What the plain way hands to it."""
    seen: list[tuple[Any, ...]] = []
    with monkeypatch.context() as patch:
        patch.setattr(made, "guarded", lambda *given: seen.append(given) or 0)
        made.called_plainly(words)
    return seen[0] if seen else None


def bare(call: tuple[Any, ...]) -> tuple[Any, ...]:
    """A call as bodies take it: whether an empty list or None stands for nothing given is the same to them."""
    target, json_, quiet, plugins, values = call
    return target, json_, quiet, plugins, {name: made.plain_value(name, value) for name, value in values.items()}


@given(words=lines())
def test_a_plain_call_is_what_typer_makes_of_it(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        mine = plainly(words, monkeypatch)
        if mine is not None:
            theirs = typed(words, monkeypatch)
            assert theirs is not None, words
            assert bare(mine) == bare(theirs)


@pytest.mark.parametrize("words", [
    ["diagnose"], ["diagnose", "run"], ["diagnose", "--json", "run", "--strict"], ["show", "run", "-q"],
    ["diagnose", "run", "--plot", "a.png", "--report", "b.html", "--split", "valid"], ["schema"], ["plugins"],
    ["plugins", "quantizer", "ema", "--plugin", "a.py", "--plugin", "b.py"], ["check", "r.toml", "-s", "a=1"],
    ["train", "r.toml", "-o", "d", "--stage", "s"], ["encode", "c", "i", "--out", "o"],
])  # fmt: skip
def test_what_people_type_most_is_plain(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = plainly(words, monkeypatch), typed(words, monkeypatch)
    assert mine is not None
    assert theirs is not None
    assert bare(mine) == bare(theirs)


@pytest.mark.parametrize("words", [
    [], ["--help"], ["nothing"], ["diagnose", "--help"], ["diagnose", "--report"], ["diagnose", "--report", "--json"],
    ["diagnose", "a", "b"], ["diagnose", "--report=x.html"], ["diagnose", "-x"], ["diagnose", ""], ["show"],
    ["train", "r.toml", "--seed", "3"], ["train", "r.toml", "--device", "cpu"], ["encode", "c", "i"],
])  # fmt: skip
def test_the_rest_is_typer_s(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert plainly(words, monkeypatch) is None


def test_completion_is_typer_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_VQTOOL_COMPLETE", "complete_bash")
    assert plainly(["diagnose", "run"], monkeypatch) is None


def test_an_option_with_a_callback_is_typer_s() -> None:
    signature = inspect.signature(cli.root, eval_str=True)
    assert plain_call(["--version"], signature) is None


@pytest.mark.parametrize("words", [["show", "nothing-here"], ["diagnose", "--json"], ["check", "no.toml", "--json"]])
def test_both_ways_end_alike(words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    mine = within(*words)
    monkeypatch.setattr(made, "called_plainly", lambda _: None)
    theirs = within(*words)
    assert mine.returncode == theirs.returncode == 2
    assert (mine.stdout, mine.stderr) == (theirs.stdout, theirs.stderr)

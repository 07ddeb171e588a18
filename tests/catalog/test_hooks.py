"""Guarded broadcast."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest

from vqtool.catalog import hookimpl
from vqtool.catalog.hooks import Hooks


def plugin(**functions: Callable[..., Any]) -> types.ModuleType:
    module = types.ModuleType("plug")
    for name, function in functions.items():
        setattr(module, name, hookimpl(function))
    return module


def test_every_plugin_answers_and_none_is_left_out() -> None:
    hooks = Hooks()
    hooks.register(plugin(vqtool_diagnose=lambda report: [report, 1]), "one")
    hooks.register(plugin(vqtool_diagnose=lambda report: (n for n in (2, 3))), "two")
    hooks.register(plugin(vqtool_diagnose=lambda: None), "three")
    assert hooks.vqtool_diagnose(report="r") == [["r", 1], [2, 3]]


def test_a_failing_plugin_is_reported_once_and_muted(capsys: pytest.CaptureFixture[str]) -> None:
    calls = []

    def fails(row: Any) -> None:
        calls.append(row)
        raise RuntimeError("no tensor board")

    hooks = Hooks()
    hooks.register(plugin(vqtool_metrics=fails), "bad", "plug-bad 1.2")
    heard: list[Any] = []
    hooks.register(plugin(vqtool_metrics=lambda row: heard.append(row)), "good")
    for row in range(3):
        hooks.vqtool_metrics(run=None, row=row)
    assert calls == [0]
    assert heard == [0, 1, 2]
    output = capsys.readouterr().err
    assert (
        output.count("plugin `bad` of plug-bad 1.2 failed in `vqtool_metrics` and is muted: RuntimeError: no tensor b")
        == 1
    )
    assert "VQTOOL_PLUGINS=-bad" in output


def test_a_generator_that_fails_late_is_guarded_too(capsys: pytest.CaptureFixture[str]) -> None:
    def late(report: Any) -> Any:
        yield 1
        raise ValueError("late")

    hooks = Hooks()
    hooks.register(plugin(vqtool_diagnose=late), "bad")
    assert hooks.vqtool_diagnose(report=None) == []
    assert "ValueError: late" in capsys.readouterr().err


def test_a_plugin_ends_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    def leaves(report: Any) -> Any:
        raise SystemExit(0)

    hooks = Hooks()
    hooks.register(plugin(vqtool_diagnose=leaves), "bad")
    hooks.register(plugin(vqtool_diagnose=lambda report: [2]), "good")
    assert hooks.vqtool_diagnose(report=None) == [[2]]
    assert "plugin `bad` failed in `vqtool_diagnose` and is muted: SystemExit" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "named"), [(0.5, "float"), ([2, "x"], "str"), ("xy", "str"), ([[1]], "list")])
def test_what_a_hook_must_not_yield_is_reported(answer: Any, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    hooks = Hooks()
    hooks.register(plugin(vqtool_diagnose=lambda report: answer), "bad", "plug-bad 1.2")
    hooks.register(plugin(vqtool_diagnose=lambda report: (n for n in (2, 3))), "good")
    hooks.register(plugin(vqtool_diagnose=lambda report: None), "silent")
    assert hooks.collect("vqtool_diagnose", int, report=None) == [2, 3]
    output = capsys.readouterr().err
    assert (
        f"plugin `bad` of plug-bad 1.2 failed in `vqtool_diagnose` and is muted: TypeError: it gave {named}" in output
    )


def test_what_a_hook_prints_is_kept_apart_from_results(capsys: pytest.CaptureFixture[str]) -> None:
    hooks = Hooks()
    hooks.register(plugin(vqtool_metrics=lambda row: print("a\nb")), "loud")
    hooks.vqtool_metrics(run=None, row={})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "plugin `loud`: a" in captured.err
    assert "plugin `loud`: b" in captured.err


def test_debugging_shows_the_traceback_and_continues(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(row: Any) -> None:
        raise RuntimeError("seen")

    hooks = Hooks()
    hooks.register(plugin(vqtool_metrics=fails), "bad")
    monkeypatch.setenv("VQTOOL_DEBUG", "1")
    assert hooks.vqtool_metrics(run=None, row=None) == []
    output = capsys.readouterr().err
    assert "Traceback" in output
    assert "RuntimeError: seen" in output


def test_there_are_ten_hooks_each_with_its_meaning() -> None:
    from vqtool.catalog import hookspecs

    names = Hooks().names()
    assert len(names) == 10
    assert all(getattr(hookspecs, name).__doc__ for name in names)


def test_an_unknown_hook_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="vqtool_nothing"):
        Hooks().vqtool_nothing()

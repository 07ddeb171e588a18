"""`vqtool plugins`."""

from __future__ import annotations

import json

import pytest

from vqtool.commands import plugins
from vqtool.console import out
from vqtool.errors import VqtoolError

pytestmark = pytest.mark.usefixtures("toy")


def test_everything_is_listed_with_its_provider(capsys: pytest.CaptureFixture[str]) -> None:
    plugins.run(role=None, name=None, timings=False)
    output = capsys.readouterr().out
    assert [line for line in output.splitlines() if line.split()[:4] == ["quantizer", "toy-two", "vqtool-toy", "1.2"]]
    assert "skipped" not in output


def test_one_role(capsys: pytest.CaptureFixture[str]) -> None:
    out.mode = "json"
    plugins.run(role="schedule", name=None, timings=True)
    result = json.loads(capsys.readouterr().out)
    assert {component["role"] for component in result["components"]} == {"schedule"}
    (toy,) = [plugin for plugin in result["plugins"] if plugin["name"] == "toy"]
    assert (toy["distribution"], toy["components"], toy["hooks"]) == ("vqtool-toy", 10, ["vqtool_components"])
    assert toy["milliseconds"] >= 0


def test_one_component_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    plugins.run(role="loss", name="toy", timings=False)
    output = capsys.readouterr().out
    assert 'loss "toy", provided by vqtool-toy 1.2' in output
    assert "A loss with an option that TOML calls `from`." in output
    assert any(line.split() == ["from", "int", "0", "first", "sample"] for line in output.splitlines())
    out.mode = "json"
    plugins.run(role="data", name="toy", timings=False)
    options = json.loads(capsys.readouterr().out)["options"]
    assert options[0] == {"name": "path", "type": "path", "required": True, "default": None, "doc": "a file"}


def test_broken_plugins_are_listed_and_reported_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VQTOOL_PLUGINS", "toy,nowhere")
    plugins.run(role=None, name=None, timings=False)
    captured = capsys.readouterr()
    assert "skipped" in captured.out
    assert "VQTOOL_PLUGINS names it, but nothing installed offers it" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("role", "name", "message", "hint"),
    [
        ("quantiser", None, "there is no role called `quantiser`", "did you mean `quantizer`?"),
        ("xyz", None, "there is no role called `xyz`", "`data`"),
        ("loss", "tyo", 'there is no loss called "tyo"', "did you mean `toy`?"),
        ("quantizer", "exponential", 'there is no quantizer called "exponential"', "`exponential` is a schedule"),
    ],
)
def test_unknown_names(role: str, name: str | None, message: str, hint: str) -> None:
    with pytest.raises(VqtoolError) as caught:
        plugins.run(role=role, name=name, timings=False)
    assert caught.value.message == message
    assert hint in str(caught.value.hint)

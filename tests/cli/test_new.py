"""`vqtool new`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run import document, vqtool
from vqtool.commands import new
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.recipe import shipped

# recipes of data whose licence does not let us ship a sample
BRING_YOUR_OWN = {"semcom-cifar", "semcom-questions", "semcom-text"}


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one shipped recipe, and a working directory elsewhere."""
    there = tmp_path / "shipped"
    there.mkdir()
    (there / "one.toml").write_text('[data]\nkind = "toy"\n')
    monkeypatch.setattr(shipped, "folder", lambda: there)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return there


@pytest.mark.parametrize(("name", "file"), [("mine", "mine.toml"), ("mine.toml", "mine.toml"), ("a/b", "a/b.toml")])
@pytest.mark.usefixtures("one")
def test_a_new_recipe(name: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert new.run(name=name, source=None) == 0
    assert Path(file).is_file()
    captured = capsys.readouterr()
    assert captured.out.strip() == file
    assert f"vqtool train {file}" in captured.err


def test_which_recipe_is_begun_from(one: Path) -> None:
    (one / "two.toml").write_text("# two\n")
    new.run(name="two", source=None)
    assert Path("two.toml").read_text() == "# two\n"
    new.run(name="mine", source="two")
    assert Path("mine.toml").read_text() == "# two\n"
    with pytest.raises(VqtoolError, match="recipe to copy is missing") as caught:
        new.run(name="other", source=None)
    assert caught.value.hint == "--from one of `one` and `two`"


@pytest.mark.usefixtures("one")
def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    out.mode = "json"
    new.run(name="mine", source="one")
    assert json.loads(capsys.readouterr().out) == {"recipe": "mine.toml", "from": "one", "files": ["mine.toml"]}


@pytest.mark.parametrize("name", shipped.names())
def test_a_copy_of_every_shipped_recipe_is_sound_from_anywhere(name: str, tmp_path: Path) -> None:
    result = document("new", "mine", "--from", name, cwd=tmp_path)
    assert (tmp_path / result["recipe"]).is_file()
    without = ["-s", "data.real=0"] if name == "pretrain-forecast" else []  # real series are of another package
    checked = document("check", "mine.toml", *without, cwd=tmp_path)
    path = checked["resolved"]["data"]["options"].get("path")
    if path is not None and name not in BRING_YOUR_OWN:
        copied, original = tmp_path / path["$path"], shipped.folder() / path["$path"]
        assert copied.exists()
        assert sorted(p.name for p in copied.rglob("*")) == sorted(p.name for p in original.rglob("*"))
    again = vqtool("new", "mine", "--from", name, cwd=tmp_path)
    assert again.returncode == 2
    assert "`mine.toml` exists already" in again.stderr


@pytest.mark.parametrize("name", ["vqtool", "torch", "random", "plugin"])
def test_a_plugin_hides_no_package(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VqtoolError, match="name of an installed package"):
        new.run(name="plugin", plugin_name=name, source=None)
    assert not list(tmp_path.iterdir())


def test_a_plugin_is_not_named_by_a_python_keyword(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VqtoolError, match="a keyword of Python"):
        new.run(name="plugin", plugin_name="class", source=None)


def test_an_installation_without_the_template_says_so(one: Path) -> None:
    with pytest.raises(VqtoolError, match="carries no plugin to copy"):
        new.run(name="plugin", plugin_name="my-vq", source=None)

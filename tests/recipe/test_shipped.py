"""Shipped recipes and copying one."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqtool.errors import VqtoolError
from vqtool.recipe import shipped

TEXT = """\
#:schema ./recipe.schema.json
# vqtool train recipes/one.toml
[data]
kind = "toy"
path = "data/one.npy"
also = ["data/two.npy", "data/none.npy", "../outside.npy"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two shipped recipes with samples, and a working directory elsewhere."""
    there = tmp_path / "shipped"
    (there / "data").mkdir(parents=True)
    (there / "one.toml").write_text(TEXT)
    (there / "two.toml").write_text("")
    (there / "recipe.schema.json").write_text("{}")
    for name in ("data/one.npy", "data/two.npy", "../outside.npy"):
        (there / name).write_bytes(name.encode())
    monkeypatch.setattr(shipped, "folder", lambda: there)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return there


def test_this_installation_carries_recipes_with_their_samples() -> None:
    assert shipped.names()
    for name in shipped.names():
        assert shipped.find(name).is_file()


def test_names_and_suggestions(folder: Path) -> None:
    assert shipped.names() == ["one", "two"]
    with pytest.raises(VqtoolError, match="there is no shipped recipe called `onee`") as caught:
        shipped.find("onee")
    assert caught.value.hint == "did you mean `one`?"


def test_a_copy_has_its_samples_and_a_command_that_works(folder: Path) -> None:
    written = shipped.copy(folder / "one.toml", Path("sub/mine.toml"))
    assert [path.as_posix() for path in written] == [
        "sub/mine.toml", "sub/data/one.npy", "sub/data/two.npy", "sub/recipe.schema.json",
    ]  # fmt: skip
    text = Path("sub/mine.toml").read_text()
    assert "# vqtool train sub/mine.toml\n" in text
    assert text.replace("sub/mine.toml", "recipes/one.toml") == TEXT
    assert Path("sub/data/two.npy").read_bytes() == b"data/two.npy"


def test_nothing_is_ever_overwritten(folder: Path) -> None:
    Path("mine.toml").write_text("mine")
    with pytest.raises(VqtoolError, match=r"`mine.toml` exists already"):
        shipped.copy(folder / "one.toml", Path("mine.toml"))
    assert Path("mine.toml").read_text() == "mine"
    assert not Path("data").exists()
    Path("data").mkdir()
    Path("data/two.npy").write_text("my own")
    with pytest.raises(VqtoolError, match=r"two.npy` exists and differs"):
        shipped.copy(folder / "one.toml", Path("other.toml"))
    assert Path("data/two.npy").read_text() == "my own"
    assert not Path("other.toml").exists()
    assert not Path("data/one.npy").exists()


def test_a_second_copy_shares_the_samples(folder: Path) -> None:
    shipped.copy(folder / "one.toml", Path("a.toml"))
    assert shipped.copy(folder / "one.toml", Path("b.toml")) == [Path("b.toml")]


def test_a_place_that_cannot_be_written_is_one_error(folder: Path) -> None:
    Path("file").write_text("")
    with pytest.raises(VqtoolError, match="cannot make the folder `file`") as caught:
        shipped.copy(folder / "two.toml", Path("file/mine.toml"))
    assert caught.value.exit_code == 1
    assert "a file of that name" in str(caught.value.hint)


def test_a_wheel_s_recipes_are_found_by_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vqtool

    class File:
        def __init__(self, path: Path) -> None:
            self.path = path

        def locate(self) -> Path:
            return self.path

    share = tmp_path / "share" / "vqtool" / "recipes"
    files = [File(tmp_path / "vqtool" / "x.toml"), File(share / "data" / "a.npz"), File(share / "one.toml")]
    share.mkdir(parents=True)
    (share / "one.toml").write_text("")
    monkeypatch.setattr(vqtool, "__file__", str(tmp_path / "site" / "vqtool" / "__init__.py"))
    monkeypatch.setattr(shipped.importlib.metadata, "files", lambda name: files)
    assert shipped.folder() == share.resolve()
    monkeypatch.setattr(shipped.importlib.metadata, "files", lambda name: None)
    target = tmp_path / "site" / "share" / "vqtool" / "recipes"  # where `pip install --target` puts them
    target.mkdir(parents=True)
    (target / "one.toml").write_text("")
    assert shipped.folder() == target
    (target / "one.toml").unlink()
    with pytest.raises(VqtoolError, match="carries no recipes"):
        shipped.folder()

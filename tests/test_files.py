"""Outputs: what is refused before any work, links, devices, modes, hints by cause, cells of CSV."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from vqtool import files
from vqtool.errors import VqtoolError
from vqtool.files import (
    as_given,
    cannot_write,
    cell_text,
    check_outputs,
    is_own,
    make_dir,
    missing_file,
    replacing,
    require_parent_dir,
    text_cell,
    write_atomic,
)


def refused(*outputs: Path, **how: object) -> str:
    """What is said about outputs that are refused."""
    with pytest.raises(VqtoolError) as caught:
        check_outputs(*outputs, **how)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    return f"{caught.value.message}; {caught.value.hint}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file that is read."""
    path = tmp_path / "data.csv"
    path.write_text("a user's only copy")
    return path


def test_an_output_that_is_an_input_is_refused_by_whatever_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(data)
    (tmp_path / "hard").hardlink_to(data)
    (tmp_path / "sub").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = ["link", "hard", "sub/../data.csv", "folder/data.csv", "./data.csv"]
    for name in (*map(Path, names), data):
        for force in (False, True):
            assert "is an input as well" in refused(name, inputs=[data], force=force)
        assert "is an input as well" in refused(data, inputs=[name], force=True)


def test_a_folder_that_is_read_is_checked_file_by_file(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "circle").symlink_to(folder)
    (folder / "deep" / "one").hardlink_to(data)
    assert "is an input as well" in refused(data, inputs=[folder], force=True)
    assert "is an input as well" in refused(folder / "a.vqc", inputs=[folder], folder=folder)
    check_outputs(tmp_path / "new", inputs=[folder, None, tmp_path / "missing"])
    check_outputs(folder / "deep" / "new", inputs=[data])


def test_a_file_that_is_there_needs_force(data: Path, tmp_path: Path) -> None:
    assert "`--force`" not in refused(data)
    assert "--force to replace it" in refused(data)
    check_outputs(data, force=True)
    assert "--force" in refused(tmp_path / "out" / "a", data, folder=tmp_path / "out")
    assert "would be written twice" in refused(tmp_path / "x", tmp_path / "." / "x")


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s"))
    (tmp_path / "null").symlink_to(os.devnull)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, kind in ((tmp_path, "is a folder"), (tmp_path / "pipe", "is a pipe"), (tmp_path / "s", "is a socket"),
                       (Path(os.devnull), "is a device"), (tmp_path / "null", "is a device")):  # fmt: skip
        result = refused(path, force=True)
        assert f"`{path}` {kind}" in result
        with pytest.raises(VqtoolError, match=kind):
            write_atomic(path, b"x")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    assert (tmp_path / "null").is_symlink()
    assert "no folder" in refused(tmp_path / "missing" / "x")
    assert "no folder" in refused(tmp_path / "file" / "x")
    assert "is a file" in refused(tmp_path / "file" / "x", folder=tmp_path / "file")
    with pytest.raises(VqtoolError, match="cannot write") as caught:
        check_outputs(tmp_path / "loop", force=True)
    assert "circle" in str(caught.value.hint)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    assert "permission" in refused(tmp_path / "x")
    with pytest.raises(VqtoolError, match="cannot write to the folder"):
        require_parent_dir(tmp_path / "x")


def test_what_vqtool_wrote_and_can_write_again(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from vqtool.model import checkpoint

    def made(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    checkpoint.save(tmp_path / "codes", {"codes": torch.zeros(1)}, {"kind": "codes", "long": "x" * 4000})
    checkpoint.save(tmp_path / "model", {"w": torch.zeros(1)}, {"stage": "s"})
    assert is_own(tmp_path / "codes")
    assert is_own(made("v", b"VQC\x02rest"))
    assert is_own(made("page", b"<!doctype html>\n<head>\n" + files.PAGE_MARK.encode()))
    assert not is_own(tmp_path / "model"), "nobody trains it again in a minute"
    for other in (b"", b"VQC of mine", b"<!doctype html>", b"\xff" * 8 + b"{", b"\2\0\0\0\0\0\0\0{}", b"\0" * 900):
        assert not is_own(made("other", other))
    assert not is_own(tmp_path / "missing")


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "t"
    (tmp_path / "link").symlink_to(target)
    for content in (b"made", b"replaced"):
        write_atomic(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink()
        assert target.read_bytes() == content
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["link", "real", "t"]


def test_modes(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "new", b"")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
        for mode in (0o600, 0o664, 0o755):
            (tmp_path / "new").chmod(mode)
            write_atomic(tmp_path / "new", b"again")
            assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_an_error_leaves_what_was_there_and_nothing_else(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), replacing(data) as file:  # noqa: PT012 - the block is what fails
        file.write(b"half")
        raise RuntimeError
    with pytest.raises(VqtoolError, match="no space left") as caught, replacing(data) as file:  # noqa: PT012
        file.write(b"half")
        raise OSError(errno.ENOSPC, "no space left on device")
    assert "free some space" in str(caught.value.hint)
    assert "untouched" in caught.value.message
    assert data.read_text() == "a user's only copy"
    assert [p.name for p in tmp_path.iterdir()] == ["data.csv"]


def test_the_hint_fits_the_cause(tmp_path: Path) -> None:
    hints = {}
    for name in ("ENOSPC", "EDQUOT", "EISDIR", "ENOTDIR", "ENAMETOOLONG", "EROFS", "EACCES", "ENOENT", "EIO"):
        error = cannot_write(tmp_path / "x", OSError(getattr(errno, name), name))
        assert error.exit_code == 1
        hints[name] = error.hint or ""
    assert {name for name, hint in hints.items() if "space" in hint} == {"ENOSPC", "EDQUOT"}
    words = {"EISDIR": "folder", "ENOTDIR": "is a file", "ENAMETOOLONG": "shorter", "EROFS": "file system",
             "EACCES": "permission", "ENOENT": "mkdir -p"}  # fmt: skip
    for name, word in words.items():
        assert word in hints[name], name
    assert hints["EIO"] == ""
    assert str(cannot_write(tmp_path, OSError(errno.ENOSPC, ""), "then go on").hint).endswith("place, then go on")
    with pytest.raises(VqtoolError, match="cannot write") as caught:
        write_atomic(tmp_path / ("n" * 300), b"")
    assert "shorter" in str(caught.value.hint)
    write_atomic(tmp_path / ("n" * 255), b"as long as a name may be")
    (tmp_path / "f").write_text("")
    with pytest.raises(VqtoolError, match="cannot make the folder"):
        make_dir(tmp_path / "f" / "g")


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-x", "@sum", "\tx", "\rx", "'=x", "''-x"])
def test_a_name_is_not_a_formula(name: str) -> None:
    assert text_cell(name) == f"'{name}"
    assert cell_text(text_cell(name)) == name


@pytest.mark.parametrize("name", ["a", "-1.5", "+3", "-1e-05", "'tis", "", "é=1", "O'Brien"])
def test_other_cells_are_as_they_were(name: str) -> None:
    assert text_cell(name) == name
    assert cell_text(name) == name


def test_a_path_as_it_may_be_passed_on() -> None:
    assert as_given(Path("runs/a.csv")) == str(Path("runs/a.csv"))
    assert as_given(Path("/secret/of/a.csv")) == "a.csv"


def test_a_path_that_leads_nowhere_names_the_nearest_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "AirPassengers.csv").touch()
    cases = {
        "sub/airpassenger.csv": ("there is no file `sub/airpassenger.csv`", "did you mean `sub/AirPassengers.csv`?"),
        "sub/quite-another": ("there is no file `sub/quite-another`", None),
        "none/a.csv": ("there is no file `none/a.csv`, and no folder `none`", None),
        "sub": ("`sub` is a folder, not a file", "ls sub"),
    }
    for path, (message, hint) in cases.items():
        error = missing_file(Path(path))
        assert (error.message, error.hint) == (message, hint)

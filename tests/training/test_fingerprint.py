"""The data's fingerprint: what changes it, what does not, and how little of large data it reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vqtool.errors import VqtoolError
from vqtool.training import fingerprint as module
from vqtool.training.fingerprint import changes, fingerprint


def folder(base: Path) -> Path:
    (base / "data" / "deep").mkdir(parents=True)
    (base / "data" / "a.bin").write_bytes(bytes(range(250)) * 4)
    (base / "data" / "deep" / "b.bin").write_bytes(b"b" * 500)
    return base / "data"


def test_contents_names_and_sizes_count_and_nothing_else_does(tmp_path: Path) -> None:
    data = folder(tmp_path)
    options = {"path": data, "rows": 3, "files": (data / "a.bin",), "picks": None}
    before = fingerprint(options)
    assert before.keys() == {"path", "files.0"}
    assert str(tmp_path) not in str(before)
    os.utime(data / "a.bin", (1, 1))
    (data / ".hidden").write_text("made by a file browser")
    (data / "runs").mkdir()
    (data / "runs" / "resolved.json").write_text("{}")
    data.rename(tmp_path / "moved")
    moved = {"path": tmp_path / "moved", "files": (tmp_path / "moved" / "a.bin",)}
    assert fingerprint(moved) == before
    assert changes(before, fingerprint(moved)) == []
    (tmp_path / "moved" / "deep" / "b.bin").write_bytes(b"b" * 499 + b"c")
    assert changes(before, fingerprint(moved)) == ["`data.path` still has 2 files of 1,500 bytes, with other contents"]
    (tmp_path / "moved" / "c.bin").write_bytes(b"")
    assert changes(before, fingerprint(moved)) == [
        "`data.path` had 2 files of 1,500 bytes and has 3 files of 1,500 bytes"
    ]


def test_of_a_folder_only_what_is_read_counts(tmp_path: Path) -> None:
    data = folder(tmp_path)
    before = fingerprint({"path": data}, lambda path: [path / "a.bin"])
    assert before["path"]["files"] == 1
    (data / "codes.csv").write_text("what vqtool encode wrote there")
    assert fingerprint({"path": data}, lambda path: [path / "a.bin"]) == before

    def fails(_: Path) -> list[Path]:
        raise VqtoolError("holds no sounds")

    assert fingerprint({"path": data}, fails)["path"]["files"] == 0


def test_what_is_not_there_is_left_to_the_reader(tmp_path: Path) -> None:
    assert fingerprint({"path": tmp_path / "nothing"})["path"]["files"] == 0


def test_of_large_data_blocks_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHOLE", 2**20)
    monkeypatch.setattr(module, "MOST_BLOCKS", 8)
    monkeypatch.setattr(module, "BLOCK", 1024)
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(2**30)  # sparse
    before = fingerprint({"path": large})
    with large.open("r+b") as file:
        file.seek(2**30 - 1)
        file.write(b"!")
    assert changes(before, fingerprint({"path": large}))
    many = tmp_path / "many"
    many.mkdir()
    for number in range(100):
        (many / str(number)).write_bytes(bytes(2**14))
    original, read = Path.open, []
    monkeypatch.setattr(Path, "open", lambda self, *arguments: (read.append(self), original(self, *arguments))[1])
    fingerprint({"path": many})
    assert 0 < len(read) <= 8

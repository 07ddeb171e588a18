"""A run's folder on a disk that fails, after processes that were killed, and beside others."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.training.tiny import write_recipe
from vqtool.errors import VqtoolError
from vqtool.recipe import load
from vqtool.training import rundir
from vqtool.training.rundir import RunDir, new_folder


def made(folder: Path) -> RunDir:
    return RunDir.create(load(write_recipe(folder), []), folder / "run", argv=[], device="cpu")


class Full(io.FileIO):
    """A file on a disk on which only so many bytes are free."""

    free = 10

    def write(self, data: Any) -> int:
        room = min(len(data), Full.free)
        Full.free -= room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(bytes(data)[:room])


def test_a_row_is_complete_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(tmp_path) as run:
        run.log({"stage": "tokenizer", "step": 1})
        before = run.path("metrics.jsonl").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", lambda self, mode, buffering: Full(self, mode))
            with pytest.raises(VqtoolError, match=r"metrics.jsonl.*No space left") as error:
                run.log({"stage": "tokenizer", "step": 2})
        assert error.value.hint == "free some space, then train again"  # nothing was saved yet
        assert run.path("metrics.jsonl").read_bytes() == before
        run.path("resume.safetensors").touch()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", lambda self, mode, buffering: Full(self, mode))
            with pytest.raises(VqtoolError) as error:
                run.log({"stage": "tokenizer", "step": 2})
        assert error.value.hint == f"free some space, then run `vqtool resume {run.folder}`"


def test_a_torn_last_line_is_dropped_before_anything_is_appended(tmp_path: Path) -> None:
    with made(tmp_path) as run:
        run.path("metrics.jsonl").write_text('{"stage": "tokenizer", "step": 1}\n{"stage": "tokenizer", "st')
        run.forget_after(["tokenizer"], "tokenizer", 5)
        run.log({"stage": "tokenizer", "step": 6})
        steps = [json.loads(line)["step"] for line in run.path("metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 6]


@pytest.mark.parametrize("name", rundir.BEGUN)
def test_where_a_run_cannot_be_begun_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    original = rundir.write_atomic

    def fails(path: Path, content: bytes) -> str:
        if path.name == name:
            raise VqtoolError("no space") from OSError(errno.ENOSPC, "no space")
        return original(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(rundir, "write_atomic", fails)
        with pytest.raises(VqtoolError) as error:
            made(tmp_path)
    assert "train again" in (error.value.hint or "")
    assert not (tmp_path / "run").exists()
    made(tmp_path).close()


def test_what_a_killed_process_left_is_removed_and_other_files_stay(tmp_path: Path) -> None:
    made(tmp_path).close()
    run = tmp_path / "run"
    left = [".resume.safetensors.abcd1234", ".tokenizer.safetensors.x_y_z_12", ".metrics.jsonl.abcdefgh"]
    kept = [
        ".notes.txt.abcd1234",
        ".resume.safetensors.short",
        "resume.safetensors.abcd1234",
        ".other.safetensors.abcd1234",
    ]
    for name in (*left, *kept):
        (run / name).touch()
    with RunDir.open(run):
        assert not any((run / name).exists() for name in left)
        assert all((run / name).exists() for name in kept)


def test_a_folder_is_taken_again_where_nothing_was_saved(tmp_path: Path) -> None:
    made(tmp_path).close()
    run = tmp_path / "run"
    (run / ".recipe.toml.abcd1234").touch()
    (run / "environment.json").unlink()
    made(tmp_path).close()
    assert sorted(os.listdir(run)) == sorted(rundir.BEGUN)
    (run / "resolved.json").unlink()  # a folder with a user's own recipe.toml
    with pytest.raises(VqtoolError, match="not empty"):
        made(tmp_path)
    (run / "resolved.json").touch()
    (run / "resume.safetensors").touch()
    with pytest.raises(VqtoolError, match="not empty"):
        made(tmp_path)


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load(write_recipe(tmp_path), [])
    monkeypatch.chdir(tmp_path)
    assert len({new_folder(recipe) for _ in range(5)}) == 5

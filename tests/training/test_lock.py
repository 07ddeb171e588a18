"""One process at a time writes into a run: the lock names its holder, and a dead process holds none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.run import within
from tests.training.test_resume import session, stop_at
from tests.training.tiny import write_recipe
from vqtool.training import lock
from vqtool.training.lock import LOCK, InUseError, Lock, writing_beside
from vqtool.training.rundir import RunDir

HOLD = "import sys, time; from pathlib import Path; from vqtool.training.lock import Lock; Lock(Path(sys.argv[1]));"


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD + "print('held', flush=True); time.sleep(600)", str(folder)]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_named_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with pytest.raises(InUseError, match=rf"in use by process {process.pid} on .+ since 20"):
            Lock(tmp_path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (tmp_path / LOCK).is_file()
    taken = Lock(tmp_path)
    assert f"process {os.getpid()} on " in (tmp_path / LOCK).read_text()
    taken.release()
    assert not (tmp_path / LOCK).exists()


def test_two_in_one_process_are_refused_too(tmp_path: Path) -> None:
    first = Lock(tmp_path)
    with pytest.raises(InUseError):
        Lock(tmp_path)
    first.release()
    Lock(tmp_path).release()


def test_a_lock_removed_between_opening_and_locking_is_not_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = lock.fcntl.flock, []

    def flock(file: int, how: int) -> None:
        if not calls:  # its last holder ends at this very moment
            (tmp_path / LOCK).unlink()
        calls.append(file)
        original(file, how)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    taken = Lock(tmp_path)
    assert len(calls) == 2
    monkeypatch.undo()
    with pytest.raises(InUseError):
        Lock(tmp_path)
    taken.release()


def test_without_file_locks_a_note_is_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    Lock(tmp_path).release()
    assert "no file locks" in capsys.readouterr().err


def test_commands_refuse_a_run_in_use_and_resume_skips_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("older", "newer"):
        with monkeypatch.context() as patch:
            stop_at(patch, 3, signal.SIGTERM)
            broken = session(recipe, tmp_path / "runs" / name)
            assert broken.train() == signal.SIGTERM
            broken.run_dir.close()
    os.utime("runs/older", (1, 1))
    before = {f: f.read_bytes() for f in Path("runs/newer").glob("*.*")}
    with RunDir.open(Path("runs/newer")):
        refused = [within("resume", "runs/newer"), within("train", recipe, "-o", "runs/newer"),
                   within("improve", "runs/newer/last.safetensors", "--steps", "0"),
                   within("export", "runs/newer/last.safetensors", "--to", "pt2")]  # fmt: skip
        assert [done.returncode for done in refused] == [1, 2, 1, 1], [done.stderr for done in refused]
        for number in (0, 2, 3):
            assert "`runs/newer` is in use by process" in refused[number].stderr
        done = within("resume")
        assert done.returncode == 0, done.stderr
        assert "`runs/newer` is in use by process" in done.stderr
        assert "resuming runs/older" in done.stderr
        assert within("resume").stderr.count("but 1 in use") == 1
    assert {f: f.read_bytes() for f in Path("runs/newer").glob("*.*")} == before
    assert not (tmp_path / "runs" / "older" / LOCK).exists()


def test_only_a_run_needs_a_lock_to_write_beside(tmp_path: Path) -> None:
    with writing_beside(tmp_path):
        assert not (tmp_path / LOCK).exists()
    (tmp_path / "resolved.json").write_text("{}")
    with writing_beside(tmp_path), pytest.raises(InUseError):
        Lock(tmp_path)

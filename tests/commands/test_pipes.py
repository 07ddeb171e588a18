"""`-` for stdin and stdout: the bytes are those of the files, and stdout holds nothing else."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import soundfile

from tests.speech.sounds import voice


def piped(*words: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "vqtool", *words], input=given, capture_output=True, check=False)


def test_through_pipes_come_the_bytes_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", 0.5 * voice(0.7, 16_000, seed=2), 16_000)
    assert piped("encode", "codec", "a.wav", "--out", "a.vqc", given=b"").returncode == 0
    codes = piped("encode", "codec", "-", "--out", "-", given=Path("a.wav").read_bytes())
    assert codes.stdout == Path("a.vqc").read_bytes()
    assert b"bitrate.kbps" in codes.stderr
    assert piped("decode", "codec", "a.vqc", "--out", "back.wav", given=b"").returncode == 0
    back = piped("decode", "codec", "-", "--out", "-", "--json", given=codes.stdout)
    assert back.stdout == Path("back.wav").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav", "a.vqc", "back.wav"}


@pytest.mark.parametrize(("given", "message"), [(b"", b"nothing came through the pipe"), (b"RIFF", b"error")])
def test_a_pipe_without_a_signal_is_an_error_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bytes, message: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    done = piped("encode", "codec", "-", "--out", "-", given=given)
    assert done.returncode == 2
    assert message in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_what_goes_through_a_pipe_is_named_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("speech.wav", "folder/speech.wav"):
        soundfile.write(name, 0.5 * voice(0.3, 16_000, seed=2), 16_000)
    done = piped("encode", "codec", "-", "--out", "-", given=b"words")
    assert b"`stdin` is not an audio file" in done.stderr
    assert tempfile.gettempdir().encode() not in done.stderr
    done = piped("encode", "codec", "speech.wav", "--out", "-", given=b"")
    assert b"to stdout\n" in done.stderr
    done = piped("encode", "codec", "folder", "--out", "-", given=b"")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"stdout takes one" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("encode codec - --out - <&-", "nothing came through the pipe"),
        ("encode codec speech.wav --out - >&-", "stdout is closed"),
        ("encode codec - --out no/x.vqc < speech.wav", "there is no folder `no`"),
    ],
)
def test_closed_ends_are_errors(words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("speech.wav", 0.5 * voice(0.3, 16_000, seed=2), 16_000)
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -m vqtool {words}', sys.executable], stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr

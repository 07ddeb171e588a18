"""Sound in bounded memory: what streams is bit for bit what is coded at once, whatever the file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from tests.speech import memory, whole
from tests.speech.sounds import recipe, voice, write
from tests.training.test_resume import session
from vqtool.api import CodedPiece, Piece
from vqtool.commands.encode import encoded
from vqtool.model.codes import codes_metadata
from vqtool.model.load import from_checkpoint
from vqtool.model.model import Model
from vqtool.training.runtime import Runtime
from vqtool_speech import audio, spool, user_file
from vqtool_speech.user_file import AudioFiles

MEMORY = 10  # MiB that five minutes may take beyond ten seconds; held as a whole they take 20 and more


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny codec of 8 kHz, trained for three steps; a piece is 1.28 s."""
    folder = tmp_path_factory.mktemp("codec")
    made = session(recipe(folder), folder / "run")
    assert made.train() == 0
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    built, _ = from_checkpoint(run / "codec.safetensors")
    built.parts.eval()
    return built


def streamed(model: Model, source: Path, folder: Path) -> tuple[bytes, bytes]:
    """The .vqc and the decoded file, as the commands make them."""
    (_, task), about = model.task(object), codes_metadata(model)
    files = AudioFiles(model.spec)
    pieces = encoded(model, task, files.open(source), Runtime(torch.device("cpu")), None)
    (target,) = files.save_codes(folder / "a.vqc", pieces, about)
    _, back = files.open_codes(target, about)
    signals = (Piece({"x": task.decode(model.parts, {"codes": p.codes, "sent": p.sent}, {})}, p.metadata) for p in back)
    (out,) = files.save(folder / "back.wav", signals)
    return target.read_bytes(), out.read_bytes()


@pytest.mark.parametrize(
    ("rate", "channels", "seconds", "mix", "normalise"),
    [
        (8000, 1, 3.9371, "mean", "peak"),
        (44_100, 2, 3.3333, "mean", "peak"),
        (11_025, 2, 8.0001, "each", "ebu"),
        (48_000, 1, 1.28, "mean", "ebu"),  # one whole piece
        (22_050, 3, 2.7, "each", "none"),
        (7919, 1, 1.9, "mean", "peak"),  # has no sample in common with 8000 but every second
    ],
)
@torch.no_grad()
def test_a_stream_is_the_whole_bit_for_bit(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    rate: int, channels: int, seconds: float, mix: str, normalise: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(spool, "IN_MEMORY", 2000)
    sound = np.stack([(0.9 - 0.3 * k) * voice(seconds, rate, seed=k) for k in range(channels)], 1)
    source = write(tmp_path / "a.wav", sound, rate)
    mine = replace(model, spec=replace(model.spec, metadata={"mix": mix, "normalise": normalise}))
    codes, back = streamed(mine, source, tmp_path)
    wanted_codes, wanted_back = whole.there_and_back(mine, source, tmp_path / "whole.wav")
    assert codes == wanted_codes
    assert back == wanted_back
    assert soundfile.info(tmp_path / "back.wav").frames == len(sound)


@pytest.mark.parametrize(("rate", "to"), [(44_100, 16_000), (8000, 44_100), (7919, 8000)])
def test_blocks_of_any_size_are_resampled_like_the_whole(rate: int, to: int) -> None:
    sound = np.random.default_rng(0).standard_normal((30_011, 2)).astype(np.float32)
    at = chain(range(0, 30_011, 997), [30_011])
    cuts = np.split(sound, list(at)[1:-1])
    made = np.concatenate(list(audio.resampled(iter(cuts), 2, rate, to)))
    np.testing.assert_array_equal(made, soxr.resample(sound, rate, to))


def start(*words: str | Path) -> subprocess.Popen[str]:
    """A command of vqtool in a process of its own."""
    command = [sys.executable, "-m", "vqtool", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests that run under nohup ignore it
    )  # fmt: skip


@pytest.fixture(scope="module")
def long(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten seconds and five minutes of sound: `short.wav` and `long.wav`."""
    folder = tmp_path_factory.mktemp("long")
    sound = voice(10.0, 8000, seed=3)
    write(folder / "short.wav", sound, 8000)
    write(folder / "long.wav", np.tile(sound, 30), 8000)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux does")
def test_memory_does_not_grow_with_the_sound(run: Path, long: Path) -> None:
    for verb, source, target in (("encode", "wav", "vqc"), ("decode", "vqc", "out.wav")):
        peaks = []
        for name in ("short", "long"):
            words = (verb, run, long / f"{name}.{source}", "--out", long / f"{name}.{target}")
            assert memory.started(long / "peak", *words).wait() == 0
            peaks.append(memory.mib(long / "peak"))
        assert peaks[1] - peaks[0] < MEMORY, (verb, peaks)


def test_an_interrupted_decode_leaves_nothing(run: Path, long: Path, tmp_path: Path) -> None:
    if not (long / "long.vqc").exists():
        assert start("encode", run, long / "long.wav", "--out", long / "long.vqc").wait() == 0
    for _ in range(5):  # a decode that ended before the signal arrived was not interrupted
        (tmp_path / "a.wav").unlink(missing_ok=True)
        process = start("decode", run, long / "long.vqc", "--out", tmp_path / "a.wav")
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, result = process.communicate(timeout=60)
        if process.returncode:
            break
    assert process.returncode == 130
    assert "Traceback" not in result
    assert not list(tmp_path.iterdir())


@torch.no_grad()
@pytest.mark.parametrize("after", [0, 1, 5])
def test_an_interrupted_encode_leaves_nothing(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Whether it is stopped while pieces come (one is here) or while they are packed."""
    source = write(tmp_path / "in" / "a.wav", voice(1.0, 8000), 8000)
    (_, task), about = model.task(object), codes_metadata(model)
    left, packed = after, user_file.packed

    def pieces() -> Iterator[CodedPiece]:
        yield from encoded(model, task, AudioFiles(model.spec).open(source), Runtime(torch.device("cpu")), None)
        if not left:
            raise KeyboardInterrupt

    def stopped(*given: object) -> Iterator[bytes]:
        for number, part in enumerate(packed(*given)):  # type: ignore[arg-type]
            if number == left:
                raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(user_file, "packed", stopped)
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        AudioFiles(model.spec).save_codes(tmp_path / "out" / "a.vqc", pieces(), about)
    assert not list((tmp_path / "out").iterdir())

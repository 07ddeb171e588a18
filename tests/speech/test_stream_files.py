"""Sound through pipes: coded while it comes, bit for bit as a stream codes the whole, in bounded memory."""

from __future__ import annotations

import io
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from tests.speech import memory
from tests.speech.sounds import convolutions, voice
from tests.training.test_resume import session
from vqtool.commands.pipes import Incoming
from vqtool.errors import VqtoolError
from vqtool.model.codes import codes_metadata
from vqtool.model.load import from_checkpoint
from vqtool.model.model import Model

RATE, MOMENT = 8000, 128
MEMORY = 5  # MiB that two and a half minutes may take beyond five seconds; their samples at 48 kHz are 14


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny causal codec of 8 kHz, trained for three steps; a moment is 128 samples, 16 ms."""
    folder = tmp_path_factory.mktemp("causal")
    recipe = convolutions(folder, causal=True, activation="snake", steps=3)
    recipe.write_text(recipe.read_text().replace("strides = [4, 4]", "strides = [8, 16]"))
    made = session(recipe, folder / "run")
    assert made.train() == 0
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    built, _ = from_checkpoint(run / "codec.safetensors")
    built.parts.eval()
    return built


@pytest.fixture(scope="module")
def sound() -> NDArray[np.int16]:
    """1.5 s and a moment that is not filled."""
    return (0.5 * 2**15 * voice(12_005 / RATE, RATE, seed=5)).astype(np.int16)[:12_005]


def start(*words: str | Path, **more: object) -> subprocess.Popen[bytes]:
    """A command of vqtool with three pipes."""
    command = [sys.executable, "-m", "vqtool", *map(str, words)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.Popen(command, bufsize=0, **pipes)  # type: ignore[call-overload,no-any-return]  # options by name


def ends(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    """Its stdin, stdout and stderr."""
    return tuple(cast(IO[bytes], end) for end in (process.stdin, process.stdout, process.stderr))  # type: ignore[return-value]  # there are three


def through(given: bytes, *words: str | Path, code: int = 0) -> tuple[bytes, str]:
    """What a command makes of its input, and what it says."""
    out, said = (process := start(*words)).communicate(given, timeout=120)
    assert process.returncode == code, said.decode()
    assert b"Traceback" not in said
    return out, said.decode()


@pytest.fixture(scope="module")
def codes(run: Path, sound: NDArray[np.int16]) -> bytes:
    return through(sound.tobytes(), "encode", run, "-", "--raw", "8000", "--out", "-")[0]


def test_pipes_give_what_a_stream_gives_bit_for_bit(
    run: Path, model: Model, sound: NDArray[np.int16], codes: bytes
) -> None:
    """And the sizes in which bytes arrive, odd ones too, change nothing."""
    x = torch.from_numpy(sound.astype(np.float32) / 2**15)[None, None]
    with model.stream(rate=RATE) as stream:
        wanted = stream.decode(torch.cat([stream.encode(x), stream.flush()], 1))[0, 0, : len(sound)]
    process = start("encode", run, "-", "--raw", "8000", "--out", "-", "-q")
    stdin, stdout, _ = ends(process)
    at = 0
    for size in (1, 2, 31, 33, 1000, 7, 4001):
        stdin.write(sound.tobytes()[at : at + size])
        time.sleep(0.01)
        at += size
    stdin.write(sound.tobytes()[at:])
    stdin.close()
    assert stdout.read() == codes
    assert process.wait() == 0
    back, _ = through(codes, "decode", run, "-", "--raw", "--out", "-")
    assert np.array_equal(np.frombuffer(back, "<i2"), np.clip(np.rint(wanted.numpy() * 2**15), -(2**15), 2**15 - 1))


def test_codes_and_sound_come_while_the_input_is_open(run: Path, sound: NDArray[np.int16], codes: bytes) -> None:
    """Of a second, all but the moment that was begun; and nothing of it is waited for at the other end."""
    encoder, decoder = (start(verb, run, "-", "--raw", *rate, "--out", "-") for verb, rate in
                        (("encode", ["8000"]), ("decode", [])))  # fmt: skip
    timer = threading.Timer(60, lambda: (encoder.kill(), decoder.kill()))
    timer.start()
    try:
        (samples, coded, _), (given, decoded, _) = ends(encoder), ends(decoder)
        moments, header = 8005 // MOMENT, 33
        samples.write(sound[:8005].tobytes())
        came = b""
        while len(came) < header + 4 * moments and (more := coded.read(4096)):
            came += more
        assert came == codes[: header + 4 * moments]
        given.write(came)
        heard = 0
        while heard < 2 * MOMENT * moments and (more := decoded.read(4096)):
            heard += len(more)
        assert heard == 2 * MOMENT * moments
    finally:
        timer.cancel()
        for process in (encoder, decoder):
            process.kill()
            process.communicate()


def with_sizes(content: bytes, riff: int, data: int) -> bytes:
    """A .wav whose header says other sizes."""
    at = content.index(b"data") + 4
    return content[:4] + struct.pack("<I", riff) + content[8:at] + struct.pack("<I", data) + content[at + 4 :]


def wav(sound: NDArray[np.int16], subtype: str = "PCM_16", kind: str = "WAV") -> bytes:
    content = io.BytesIO()
    values = sound / 2**15 if subtype in {"FLOAT", "DOUBLE"} else sound  # whole numbers would not be scaled
    soundfile.write(content, values, RATE, subtype=subtype, format=kind)
    return content.getvalue()


@pytest.mark.parametrize(
    ("riff", "data"),
    [(0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000), (0, 0), (0x80000024, 0x80000000)],
    ids=["ffmpeg", "sox", "killed", "arecord"],
)
def test_headers_that_do_not_know_the_length(
    run: Path, sound: NDArray[np.int16], codes: bytes, riff: int, data: int
) -> None:
    made, said = through(with_sizes(wav(sound), riff, data), "encode", run, "-", "--out", "-")
    assert made == codes
    assert "missing" not in said


@pytest.mark.parametrize(
    ("subtype", "kind"),
    [("PCM_24", "WAV"), ("PCM_32", "WAV"), ("FLOAT", "WAV"), ("DOUBLE", "WAV"), ("PCM_16", "WAVEX")],
)
def test_samples_of_any_kind_are_the_same_sound(
    run: Path, sound: NDArray[np.int16], codes: bytes, subtype: str, kind: str
) -> None:
    tail = b"LIST\x04\x00\x00\x00INFO" * 3000
    made, _ = through(wav(sound, subtype, kind) + tail, "encode", run, "-", "--out", "-")
    assert made == codes


def test_what_a_file_promises_and_what_comes_behind_it(run: Path, sound: NDArray[np.int16], codes: bytes) -> None:
    _, said = through(wav(sound)[:-100], "encode", run, "-", "--out", "-")
    assert "cut short (the header promises more): `stdin` (100 bytes are missing)" in said
    _, said = through(wav(sound[:0]), "encode", run, "-", "--out", "-", code=2)
    assert "`stdin` holds no sound" in said


def test_other_rates_and_channels(run: Path, tmp_path: Path) -> None:
    content = io.BytesIO()
    stereo = np.stack([voice(1.0, 44_100, seed=1), voice(1.0, 44_100, seed=2)], 1) * 0.4
    soundfile.write(content, stereo, 44_100, format="WAV")
    for mix, channels in (("mean", 1), ("each", 2)):
        made, said = through(content.getvalue(), "encode", run, "-", "--out", "-", "-s", f"data.mix={mix}")
        assert "resampled to 8000 Hz" in said
        back, _ = through(made, "decode", run, "-", "--out", "-")
        info = soundfile.info(io.BytesIO(back))
        assert (info.samplerate, info.channels, info.frames) == (44_100, channels, 44_100)


def test_a_file_behind_stdout_gets_its_sizes(run: Path, codes: bytes, sound: NDArray[np.int16], tmp_path: Path) -> None:
    (tmp_path / "a.vqc").write_bytes(codes)
    for name, mode, before in (("new.wav", "wb", b""), ("more.bin", "ab", b"before")):
        (tmp_path / name).write_bytes(before)
        with (tmp_path / name).open(mode) as file:
            process = start("decode", run, "-", "--out", "-", stdout=file)
            process.communicate(codes)
            assert process.returncode == 0
    content = (tmp_path / "new.wav").read_bytes()
    assert (content[4:8], content[40:44]) == tuple(struct.pack("<I", 2 * len(sound) + more) for more in (36, 0))
    assert len((tmp_path / "more.bin").read_bytes()) == len(content) + len(b"before")
    through(b"", "decode", run, tmp_path / "a.vqc", "--out", tmp_path / "named.wav")
    assert soundfile.read(tmp_path / "named.wav", dtype="int16")[0].tobytes() == content[44:]


def endless(target: object, block: bytes, times: int) -> None:
    """Write to a pipe until it is closed."""
    try:
        for _ in range(times):
            target.write(block)  # type: ignore[attr-defined]  # of a pipe
    except OSError:
        pass
    finally:
        target.close()  # type: ignore[attr-defined]  # of a pipe


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux does")
def test_memory_does_not_grow_with_what_comes(run: Path, tmp_path: Path) -> None:
    block = (0.5 * 2**15 * voice(5.0, 48_000, seed=3)).astype("<i2").tobytes()
    peaks: dict[str, list[float]] = {"encode": [], "decode": []}
    for times in (1, 30):
        for verb, found in peaks.items():
            words = ["--raw", "48000"] if verb == "encode" else []
            with (tmp_path / "codes").open("wb" if verb == "encode" else "rb") as file:
                ends = (subprocess.PIPE, file) if verb == "encode" else (file, subprocess.DEVNULL)
                process = memory.started(tmp_path / "peak", verb, run, "-", *words, "--out", "-", "-q",
                                         stdin=ends[0], stdout=ends[1])  # fmt: skip
                if process.stdin:
                    endless(process.stdin, block, times)
                assert process.wait() == 0
            found.append(memory.mib(tmp_path / "peak"))
    assert all(after - before < MEMORY for before, after in peaks.values()), peaks


@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_who_stops_reading_ends_it_quietly(run: Path, sound: NDArray[np.int16], codes: bytes, verb: str) -> None:
    process = start(verb, run, "-", *(["--raw", "8000"] if verb == "encode" else []), "--out", "-")
    stdin, stdout, stderr = ends(process)
    given = (sound.tobytes(), 50) if verb == "encode" else (codes, 1)
    feed = threading.Thread(target=endless, args=(stdin, *given))
    feed.start()
    came = 0
    while came < 100:
        came += len(stdout.read(100 - came))
    stdout.close()
    assert process.wait(60) in ({1} if verb == "encode" else {0, 1})  # a decoder may be done by then
    feed.join()
    assert stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_input_keeps_what_came(run: Path, sound: NDArray[np.int16], codes: bytes, number: int) -> None:
    process = start("encode", run, "-", "--raw", "8000", "--out", "-")
    stdin, stdout, stderr = ends(process)
    stdin.write(sound.tobytes())
    came = b""
    while len(came) < 33 + 4 * (len(sound) // MOMENT):
        came += stdout.read(4096)
    process.send_signal(number)
    came += stdout.read()
    said = stderr.read()
    assert process.wait(60) == 128 + number
    assert came == codes
    assert b"Traceback" not in said


def test_codes_that_are_cut_give_what_came(run: Path, codes: bytes, tmp_path: Path) -> None:
    whole, _ = through(codes, "decode", run, "-", "--raw", "--out", "-")
    for end in (13, 14, 16):
        back, said = through(codes[:-end], "decode", run, "-", "--raw", "--out", "-", code=1)
        assert whole.startswith(back)
        assert len(back) > len(whole) - 4 * MOMENT
        assert "1 file is skipped (the end of its codes is missing): `stdin`" in said
    back, said = through(codes[:-14], "decode", run, "-", "--out", tmp_path / "kept.wav", code=1)
    assert soundfile.info(tmp_path / "kept.wav").frames > 11_700


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


@pytest.mark.parametrize("at", [*range(4, 34), 100, 201, 302, -1, -8, -13, -17])
def test_a_flipped_bit_is_an_error(model: Model, codes: bytes, at: int) -> None:
    known, files = codes_metadata(model), model.files()

    def read(content: bytes) -> Iterator[torch.Tensor]:
        found = files.arriving_codes(Incoming(io.BytesIO(content), pipe=False), known)  # type: ignore[arg-type]  # not buffered
        assert found is not None
        if found[0] != known["model"]:
            raise VqtoolError("another model")
        yield from found[2]

    assert sum(some.shape[1] for some in read(codes)) == 94
    assert not files.skipped()
    with pytest.raises(VqtoolError):
        list(read(changed(codes, at)))


def test_a_codec_that_looks_ahead_says_that_it_reads_everything_first(sound: NDArray[np.int16], tmp_path: Path) -> None:
    """Samples without a header are read and written by it too."""
    made, said = through(sound.tobytes(), "encode", "codec", "-", "--raw", "8000", "--out", "-")
    assert said.count("is read to its end first") == 1
    content, _ = through(wav(sound), "encode", "codec", "-", "--out", "-")
    assert content == made
    back, said = through(made, "decode", "codec", "-", "--raw", "--out", "-")
    assert said.count("is read to its end first") == 1
    (tmp_path / "a.vqc").write_bytes(made)
    through(b"", "decode", "codec", tmp_path / "a.vqc", "--out", tmp_path / "a.wav")
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tobytes() == back


def test_other_formats_and_models_and_wrong_options(
    run: Path, sound: NDArray[np.int16], codes: bytes, tmp_path: Path
) -> None:
    made, said = through(wav(sound, "PCM_16", "FLAC"), "encode", run, "-", "--out", "-")
    assert "its format cannot be read while it comes" in said
    assert made[:4] == b"VQC\x02"
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "a.vqc").write_bytes(codes)
    (folder / "b.vqc").write_bytes(made)
    _, said = through(b"", "decode", run, folder, "--out", tmp_path / "out", code=1)
    assert "skipped (a stream, which is decoded by itself): `a.vqc`" in said
    for words, message in (
        (["decode", "codec", "-", "--out", "-"], "written with another model"),
        (["encode", run, folder / "a.vqc", "--raw", "8000", "--out", "-"], "`--raw` is for samples from stdin"),
        (["encode", run, "-", "--raw", "7", "--out", "-"], "7 Hz is not a sample rate"),
        (["decode", run, "-", "--raw", "--out", tmp_path / "x.wav"], "`--raw` is for samples to stdout"),
    ):
        out, said = through(codes, *words, code=2)
        assert message in said
        assert out == b""

"""Sound as people have it: cut short, unfinished, silent, cancelling, of other formats, broken; each is reported."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.cli.run import within
from tests.speech.sounds import recipe, voice, write
from tests.training.test_resume import session
from vqtool.api import DataSpec, Field, Piece
from vqtool.errors import VqtoolError
from vqtool_speech import audio, clips
from vqtool_speech.data.wav import Wav
from vqtool_speech.user_file import AudioFiles

SPEC = DataSpec({"x": Field((1, 1280), "signal")}, sample_rate=8000.0, metadata={"mix": "mean", "normalise": "peak"})
FFMPEG = ".m4a cannot be read: ffmpeg -i NAME.m4a NAME.wav converts it"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny codec, trained for three steps."""
    folder = tmp_path_factory.mktemp("codec")
    assert session(recipe(folder), folder / "run").train() == 0
    return folder / "run"


def opened(path: Path, **asked: str) -> tuple[list[Piece], list[str], AudioFiles]:
    """The pieces of a path, and all that is said of it."""
    files = AudioFiles(SPEC, asked=asked)
    pieces = list(files.open(path))
    return pieces, [*(note for piece in pieces for note in piece.notes), *files.remarks()], files


def sized(path: Path, riff: int, data: int) -> Path:
    """A .wav with other sizes in its header."""
    content = path.read_bytes()
    new = struct.pack("<I", riff), struct.pack("<I", data)
    path.write_bytes(content[:4] + new[0] + content[8:40] + new[1] + content[44:])
    return path


@pytest.mark.parametrize(("riff", "data"), [(0, 0), (36, 0), (8036, 0)])
def test_what_a_killed_recorder_left_is_read_to_its_end(tmp_path: Path, riff: int, data: int) -> None:
    sound = voice(0.5, 8000)
    whole, _, _ = opened(write(tmp_path / "whole.wav", sound, 8000))
    path = sized(write(tmp_path / "a.wav", sound, 8000), riff, data)
    pieces, result, _ = opened(path)
    assert result == ["1 file is read to the end, though the header says that there is nothing: `a.wav`"]
    assert pieces[0].metadata["length"] == 4000
    assert torch.equal(pieces[0].batch["x"], whole[0].batch["x"])
    np.testing.assert_array_equal(audio.read(path, 100, 50), audio.read(tmp_path / "whole.wav", 100, 50))


def test_a_recording_with_nothing_in_it_holds_no_sound(tmp_path: Path) -> None:
    empty = sized(write(tmp_path / "a.wav", np.zeros(0, np.float32), 8000), 36, 0)
    tagged = tmp_path / "b.wav"
    tagged.write_bytes(empty.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    for path in (empty, tagged):
        with pytest.raises(VqtoolError, match="holds no sound"):
            audio.info(path)


def test_a_header_that_was_not_kept_up_to_date_is_reported(tmp_path: Path) -> None:
    path = sized(write(tmp_path / "a.wav", voice(1.0, 8000), 8000), 8036, 8000)
    pieces, result, _ = opened(path)
    assert result == ["1 file is read as far as the header says, with more bytes after that: `a.wav` (8000 bytes)"]
    assert pieces[0].metadata["length"] == 4000
    tagged = write(tmp_path / "b.wav", voice(1.0, 8000), 8000)
    tagged.write_bytes(tagged.read_bytes() + b"id3 " + struct.pack("<I", 9000) + bytes(9000))
    assert opened(tagged)[1] == []


@pytest.mark.parametrize("form", ["WAV", "RF64", "AIFF", "AU", "W64"])
def test_half_of_the_promised_samples_is_reported_in_every_format(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(1.0, 8000), 8000, format=form, subtype="PCM_16")
    assert opened(path)[1] == []
    path.write_bytes(path.read_bytes()[:8000])
    pieces, (result,), _ = opened(path)
    assert result.startswith("1 file is cut short (the header promises more): `a.wav` (")
    assert f"after {pieces[0].metadata['length']} samples" in result
    assert 3900 < pieces[0].metadata["length"] < 4000


def test_channels_that_cancel_are_reported_and_the_hint_leads_to_sound(run: Path, tmp_path: Path) -> None:
    sound = voice(1.0, 8000)
    source = write(tmp_path / "a.wav", np.stack([sound, -sound], 1), 8000)
    done = within("encode", run, source, "--out", tmp_path / "a.vqc")
    assert done.returncode == 0
    assert "1 file is mixed from channels that cancel (-s data.mix=first takes the first one): `a.wav`" in done.stderr
    again = within("encode", run, source, "--out", tmp_path / "a.vqc", "-s", "data.mix=first", "--force")
    assert "channels that cancel" not in again.stderr
    assert "read by the first channel alone: `a.wav` (of 2)" in again.stderr
    assert within("decode", run, tmp_path / "a.vqc", "--out", tmp_path / "b.wav").returncode == 0
    back, _ = soundfile.read(tmp_path / "b.wav")
    assert ((back - sound) ** 2).sum() < 0.5 * (sound**2).sum()


@pytest.mark.parametrize(("right", "cancels"), [(-0.9, True), (-0.3, False), (0.0, False), (1.0, False)])
def test_what_only_partly_cancels_is_left_alone(tmp_path: Path, right: float, cancels: bool) -> None:
    sound = voice(0.5, 8000)
    _, result, _ = opened(write(tmp_path / "a.wav", np.stack([sound, right * sound], 1), 8000))
    assert any("cancel" in one for one in result) == cancels
    assert not opened(tmp_path / "a.wav", mix="each")[1]


def test_silence_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", np.zeros(800), 8000)
    write(tmp_path / "b.wav", voice(0.5, 8000), 8000)
    assert opened(tmp_path)[1] == ["1 file is silent: `a.wav`"]


def mixed(folder: Path) -> Path:
    """Two sounds between all sorts of files that are none."""
    write(folder / "a.wav", voice(0.5, 8000, 1), 8000)
    write(folder / "z" / "b.flac", voice(0.4, 8000, 2), 8000)
    for name in ("broken.wav", "bad.mp3"):
        (folder / name).write_bytes(b"RIFF1234")
    for name in ("c.m4a", "z/d.M4A", "e.wma", "notes.txt", "._a.wav"):
        (folder / name).write_bytes(b"\0\0\0 ftypM4A ")
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan]), 8000, subtype="FLOAT")
    flac = write(folder / "cut.flac", voice(2.0, 8000), 8000)
    flac.write_bytes(flac.read_bytes()[:9000])
    return folder


def test_a_folder_goes_on_past_what_cannot_be_read_and_the_exit_code_says_so(run: Path, tmp_path: Path) -> None:
    done = within("encode", run, mixed(tmp_path / "in"), "--out", tmp_path / "codes", "-q")
    assert done.returncode == 1, done.stderr
    assert sorted(p.relative_to(tmp_path / "codes").as_posix() for p in (tmp_path / "codes").rglob("*.vqc")) == [
        "a.vqc", "z/b.vqc",
    ]  # fmt: skip
    for message in (
        f"warning: 2 files are skipped ({FFMPEG}): `c.m4a`, `z/d.M4A`",
        "warning: 1 file is skipped (.wma cannot be read: ffmpeg -i NAME.wma NAME.wav converts it): `e.wma`",
        "warning: 3 files are skipped (not audio that can be read, or damaged): `bad.mp3`, `broken.wav`, `cut.flac`",
        "warning: 1 file is skipped (NaN or infinite samples in it): `nan.wav`",
    ):
        assert message in done.stderr
    assert done.stderr.count("warning") == 4
    (tmp_path / "codes" / "a.vqc").write_bytes((tmp_path / "codes" / "a.vqc").read_bytes()[:-9])
    (tmp_path / "codes" / "c.vqc").write_bytes(b"")
    done = within("decode", run, tmp_path / "codes", "--out", tmp_path / "back", "-q")
    assert done.returncode == 1
    assert "warning: 2 files are skipped (damaged or cut short): `a.vqc`, `c.vqc`" in done.stderr
    assert [p.name for p in (tmp_path / "back").rglob("*.wav")] == ["b.wav"]


def test_a_folder_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(VqtoolError, match="no file of") as caught:
        opened(tmp_path)
    assert "not audio that can be read, or damaged): `a.wav`" in (caught.value.hint or "")
    (tmp_path / "a.wav").rename(tmp_path / "a.m4a")
    with pytest.raises(VqtoolError, match="no audio files") as caught:
        opened(tmp_path)
    assert FFMPEG in (caught.value.hint or "")
    with pytest.raises(VqtoolError, match=r"\.m4a files cannot be read") as caught:
        opened(tmp_path / "a.m4a")
    assert caught.value.hint == "ffmpeg -i a.m4a a.wav"
    (tmp_path / "a.raw").write_bytes(bytes(100))
    with pytest.raises(VqtoolError, match="does not say its rate"):
        opened(tmp_path / "a.raw")


def test_training_goes_on_past_what_cannot_be_read(tmp_path: Path) -> None:
    mixed(tmp_path)
    sound = voice(0.5, 8000, 3)
    write(tmp_path / "loud.wav", np.stack([sound, -sound], 1), 8000)
    write(tmp_path / "still.wav", np.zeros(4000), 8000)
    cut = write(tmp_path / "short.wav", voice(1.0, 8000), 8000)
    cut.write_bytes(cut.read_bytes()[:8044])
    data = Wav(path=tmp_path, sample_rate=8000, segment=800)
    assert [clip.path.name for clip in data.clips.clips] == ["a.wav", "loud.wav", "short.wav", "still.wav", "b.flac"]
    result = "\n".join(data.notes)
    for message in (
        f"2 files are skipped ({FFMPEG}): `c.m4a`, `z/d.M4A`",
        "3 files are skipped (not audio that can be read, or damaged): `bad.mp3`, `broken.wav`, `cut.flac`",
        "1 file is cut short (the header promises more): `short.wav` (8000 bytes are missing after 4000 samples)",
        "1 file is mixed from channels that cancel (-s data.mix=first takes the first one): `loud.wav`",
        "1 file is silent: `still.wav`",
    ):
        assert result.count(message) == 1
    for split in data.splits:
        data.rows(split).__getitems__(list(range(len(data.rows(split)))))
    again = Wav(path=tmp_path, sample_rate=8000, segment=800, mix="first")
    assert "cancel" not in "\n".join(again.notes)
    assert float(again.rows("train").__getitems__([1])["x"].abs().max()) > 0.5


def test_only_so_much_is_read_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "READ_FIRST", 9000)
    for k in range(4):
        write(tmp_path / f"{k}.wav", voice(0.5, 8000, k), 8000)
    data = Wav(path=tmp_path, sample_rate=8000, segment=800)
    assert sorted(data.clips.gains) == [0, 1]
    whole = data.rows("test")[0]
    assert float(whole["x"].abs().max()) == pytest.approx(0.95, abs=1e-3)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"])
def test_samples_of_every_width_are_the_same_sound(tmp_path: Path, subtype: str) -> None:
    sound = voice(0.5, 8000)
    soundfile.write(tmp_path / "a.wav", sound, 8000, subtype=subtype)
    pieces, result, _ = opened(tmp_path / "a.wav")
    length = pieces[0].metadata["length"]
    assert result == []
    assert 4000 <= length < 5000  # ADPCM comes in blocks
    x = pieces[0].batch["x"][0, 0, 1280:5280].numpy() / pieces[0].metadata["gains"][0]
    assert ((x - sound) ** 2).sum() < 0.02 * (sound**2).sum()


@pytest.mark.parametrize("name", ["flac.wav", "mp3.wav", "wav.mp3", "ogg.flac"])
def test_what_a_file_is_decides_and_not_its_name(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, voice(0.5, 8000), 8000, format=name.split(".")[0].upper())
    pieces, _, _ = opened(tmp_path / name)
    assert pieces[0].metadata["length"] == 4000


def test_many_channels_and_one_sample(tmp_path: Path) -> None:
    many = np.repeat(voice(0.2, 8000)[:, None], 300, 1)
    write(tmp_path / "a.wav", many, 8000)
    write(tmp_path / "b.wav", voice(0.2, 8000)[500:501] + 0.1, 8000)
    pieces, result, files = opened(tmp_path, mix="each")
    assert files.skipped() == ["1 file is skipped (more than 255 channels): `a.wav`"]
    assert [piece.metadata["length"] for piece in pieces] == [1]
    with pytest.raises(VqtoolError, match="300 channels") as caught:
        opened(tmp_path / "a.wav", mix="each")
    assert caught.value.hint == "-s data.mix=mean mixes them"
    assert opened(tmp_path / "a.wav", mix="mean")[0][0].metadata["length"] == 1600
    assert result == []


def test_integers_kept_as_floats_come_back_as_loud(run: Path, tmp_path: Path) -> None:
    sound = 32768 * voice(0.5, 8000)
    soundfile.write(tmp_path / "a.wav", sound, 8000, subtype="FLOAT")
    for words in (("encode", run, tmp_path / "a.wav", "--out", tmp_path / "a.vqc"),
                  ("decode", run, tmp_path / "a.vqc", "--out", tmp_path / "b.wav")):  # fmt: skip
        assert within(*words).returncode == 0
    back, _ = soundfile.read(tmp_path / "b.wav")
    assert ((back - sound) ** 2).sum() < 0.5 * (sound**2).sum()

"""Audio files as data: rates, channels, levels, random stretches and whole clips, within bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.speech.sounds import voice, write
from vqtool.api import DataSpec, Field
from vqtool.errors import VqtoolError
from vqtool_speech import audio
from vqtool_speech.clips import Clips, Manner, audio_files
from vqtool_speech.data.wav import Wav
from vqtool_speech.loudness import Loudness
from vqtool_speech.user_file import AudioFiles


def folder(path: Path, clips: int = 9, rate: int = 8000, seconds: float = 0.5) -> Path:
    for k in range(clips):
        write(path / f"sub{k % 2}" / f"{k}.wav", voice(seconds + 0.05 * k, rate, seed=k), rate)
    return path


def wav(path: Path, **options: object) -> Wav:
    return Wav(path=path, **({"sample_rate": 8000, "segment": 800, "held_out": 3, "valid": 3} | options))


def test_every_third_clip_is_held_out_and_every_third_of_the_rest_validates(tmp_path: Path) -> None:
    data = wav(folder(tmp_path))
    names = [p.relative_to(tmp_path).as_posix() for p in audio_files(tmp_path)]
    assert names == sorted(names)
    of = {split: data.rows(split).__getitems__(list(range(len(data.rows(split)))))["clip"] for split in data.splits}
    assert of["test"].unique().tolist() == [2, 5, 8]
    assert of["valid"].unique().tolist() == [3, 7]
    assert of["train"].unique().tolist() == [0, 1, 4, 6]


def test_a_whole_clip_is_a_row_with_its_length_and_gain(tmp_path: Path) -> None:
    data = wav(folder(tmp_path))
    rows = data.rows("test")
    batch = rows.__getitems__([0, 1, 2])
    for row, clip in enumerate([2, 5, 8]):
        sound, _ = soundfile.read(audio_files(tmp_path)[clip], dtype="float32")
        x = batch["x"][row, 0].numpy()
        assert int(batch["samples"][row]) == len(sound)
        np.testing.assert_allclose(x[: len(sound)], sound * float(batch["gain"][row]), rtol=1e-5, atol=1e-7)
        assert not x[len(sound) :].any()
        assert np.abs(x).max() == pytest.approx(0.95, abs=1e-4)
    assert batch["x"].shape[-1] % 800 == 0
    alone = rows[1]
    assert alone["x"].shape[-1] <= batch["x"].shape[-1]
    torch.testing.assert_close(alone["x"], batch["x"][1, :, : alone["x"].shape[-1]])


def test_a_long_clip_is_judged_in_pieces_that_make_the_whole(tmp_path: Path) -> None:
    data = wav(folder(tmp_path), longest=0.3)  # pieces of 2400 samples
    rows = data.rows("test")
    batch = rows.__getitems__(list(range(len(rows))))
    whole = wav(folder(tmp_path)).rows("test").__getitems__([0, 1, 2])
    for row, clip in enumerate([2, 5, 8]):
        mine = [
            x[0, : int(n)] for x, n, c in zip(batch["x"], batch["samples"], batch["clip"], strict=True) if c == clip
        ]
        torch.testing.assert_close(torch.cat(mine), whole["x"][row, 0, : int(whole["samples"][row])])


def test_training_rows_are_random_stretches_from_everywhere_and_repeatable(tmp_path: Path) -> None:
    data = wav(folder(tmp_path, clips=3), held_out=3, valid=2, flip=0.5, vary_db=6.0)
    rows = data.rows("train")
    sound, _ = soundfile.read(audio_files(tmp_path)[0], dtype="float32")
    sound = sound * 0.95 / np.abs(sound).max()
    starts, signs = set(), set()
    for seed in range(40):
        batch = rows.__getitems__([0, len(rows) - 1])
        again = rows.__getitems__([0, len(rows) - 1])
        cut = data.augment(batch, torch.Generator().manual_seed(seed))["x"]
        assert torch.equal(cut, data.augment(again, torch.Generator().manual_seed(seed))["x"])
        assert cut.shape == (2, 1, 800)
        piece = cut[0, 0].double().numpy()
        match = np.correlate(sound.astype(np.float64), piece, "valid")
        energy = np.sqrt(np.convolve(sound.astype(np.float64) ** 2, np.ones(800), "valid") * (piece @ piece))
        at = int(np.argmax(np.abs(match) / np.maximum(energy, 1e-9)))
        gain = match[at] / (sound[at : at + 800].astype(np.float64) ** 2).sum()
        np.testing.assert_allclose(piece, sound[at : at + 800] * gain, atol=1e-4)
        assert 0.5 < abs(gain) < 2.0
        starts.add(at)
        signs.add(gain > 0)
    assert len(starts) > 20
    assert max(starts) - min(starts) > 400
    assert signs == {True, False}


@pytest.mark.parametrize("rate", [16_000, 11_025, 48_000])
def test_another_rate_is_resampled_aloud_and_in_place(tmp_path: Path, rate: int) -> None:
    for k in range(3):
        write(tmp_path / f"{k}.wav", voice(1.0, rate, seed=k), rate)
    data = wav(tmp_path, held_out=3, valid=2)
    assert "3 of 3 clips are resampled to 8000 Hz" in data.notes[0]
    batch = data.rows("test")[0]
    assert int(batch["samples"]) == 8000
    sound = voice(1.0, rate, seed=2)
    here = np.interp(np.arange(8000) / 8000, np.arange(len(sound)) / rate, sound)  # crude, but in place
    x = batch["x"][0, :8000].numpy()
    lags = [float(x[100:7900] @ here[100 + lag : 7900 + lag]) for lag in (-2, -1, 0, 1, 2)]
    assert int(np.argmax(lags)) == 2


def test_a_stretch_of_a_resampled_file_is_that_of_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", voice(1.5, 11_025), 11_025)
    small, large = Clips([path], Manner(8000), cache_mb=0.0), Clips([path], Manner(8000))
    whole = large.stretch(0, 0, 12_000)
    for start, frames in ((0, 800), (333, 1000), (5000, 4000), (-100, 400), (11_900, 400)):
        part = small.stretch(0, start, frames)
        first, last = max(0, start), min(12_000, start + frames)
        np.testing.assert_allclose(part[first - start : last - start], whole[first:last], atol=2e-4)
    assert not small.cache


def test_channels_are_mixed_or_apart(tmp_path: Path) -> None:
    left, right = voice(0.5, 8000, 0), voice(0.5, 8000, 1)
    path = write(tmp_path / "a.wav", np.stack([left, right], 1), 8000)
    frames = len(left)
    mean = Clips([path], Manner(8000, "mean", "none")).stretch(0, 0, frames)
    np.testing.assert_allclose(mean, (left + right) / 2, atol=1e-4)
    np.testing.assert_allclose(Clips([path], Manner(8000, "first", "none")).stretch(0, 0, frames), left, atol=1e-4)
    each = Clips([path], Manner(8000, "each", "none"))
    assert len(each) == 2
    np.testing.assert_allclose(each.stretch(1, 0, frames), right, atol=1e-4)


def test_ebu_brings_clips_to_minus_23_and_never_clips(tmp_path: Path) -> None:
    steady = np.sin(2 * np.pi * 440 * np.arange(16_000) / 8000).astype(np.float32)
    click = np.zeros(16_000, np.float32)
    click[::4000] = 0.9
    paths = [write(tmp_path / "a.wav", 0.02 * steady, 8000), write(tmp_path / "b.wav", click, 8000)]
    clips = Clips(paths, Manner(8000, "mean", "ebu"))
    meter = Loudness(8000, 1)
    meter.add(clips.stretch(0, 0, 16_000)[:, None])
    assert meter.integrated() == pytest.approx(-23, abs=0.05)
    assert np.abs(clips.stretch(1, 0, 16_000)).max() <= 1.0
    silent = write(tmp_path / "c.wav", np.zeros(4000, np.float32), 8000)
    for how in ("ebu", "peak"):
        assert Clips([silent], Manner(8000, "mean", how)).gain(0) == 1.0


def test_what_is_kept_in_memory_is_bounded(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{k}.wav", voice(1.0, 8000, k), 8000) for k in range(12)]
    clips = Clips(paths, Manner(8000), cache_mb=8000 * 4 * 17 / 2**20)
    for k in range(12):
        clips.stretch(k, 0, 8000)
        assert clips.cached <= clips.bound
        assert clips.cached == sum(wave.nbytes for wave in clips.cache.values())
    assert 1 < len(clips.cache) <= 17
    assert not Clips(paths, Manner(8000)).cache  # nothing is read before it is asked for


@pytest.mark.parametrize("clips", [3, 4, 7, 12])
def test_few_clips_are_shared_out_all_the_same(tmp_path: Path, clips: int) -> None:
    data = wav(folder(tmp_path, clips=clips), held_out=5, valid=10)
    of = {split: {int(data.rows(split)[r]["clip"]) for r in range(len(data.rows(split)))} for split in data.splits}
    assert sorted(k for some in of.values() for k in some) == list(range(clips))
    assert all(of.values())
    assert "their metrics mean little" in data.notes[-1]
    assert 4 in of["test"] or of["test"] == {clips - 1}


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match=r"there is no file or folder `.*none`"):
        wav(tmp_path / "none")
    with pytest.raises(VqtoolError, match="no audio files"):
        wav(tmp_path)
    folder(tmp_path, clips=2)
    with pytest.raises(VqtoolError, match="holds 2 clips"):
        wav(tmp_path)
    (tmp_path / "bad.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(VqtoolError, match="holds 2 clips") as caught:
        wav(tmp_path)
    assert "1 file is skipped (not audio that can be read, or damaged): `bad.wav`" in (caught.value.hint or "")
    with pytest.raises(VqtoolError, match=r"bad\.wav` is not an audio file"):
        wav(tmp_path / "bad.wav")
    soundfile.write(tmp_path / "bad.wav", np.array([0.0, np.nan]), 8000, subtype="FLOAT")
    with pytest.raises(VqtoolError, match="NaN"):
        list(audio.blocks(tmp_path / "bad.wav"))


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(VqtoolError, match="soundfile") as caught:
        audio.info(Path("a.wav"))
    assert caught.value.hint == "pip install 'vqtool[audio]'"


@pytest.mark.parametrize(("rate", "says"), [(0, "not an audio"), (1, "sample rate of 1 Hz"), (10**9, "sample rate")])
def test_a_rate_that_no_sound_has_is_refused(tmp_path: Path, rate: int, says: str) -> None:
    path = write(tmp_path / "a.wav", voice(0.5, 8000), 8000)
    content = bytearray(path.read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(VqtoolError, match=says):
        audio.info(path)


def test_what_is_shorter_than_its_header_says_is_reported(tmp_path: Path) -> None:
    """But for a length that says that it was not known."""
    path = write(tmp_path / "a.wav", voice(0.5, 8000), 8000)
    content = path.read_bytes()
    spec = DataSpec(
        {"x": Field((1, 1280), "signal")}, sample_rate=8000.0, metadata={"mix": "mean", "normalise": "peak"}
    )
    for size, notes in ((8000, 0), (12_000, 1), (2**32 - 1, 0), (2**31 - 1, 0)):
        path.write_bytes(content[:40] + size.to_bytes(4, "little") + content[44:])
        piece, *_ = AudioFiles(spec).open(path)
        assert piece.metadata["length"] == 4000
        assert sum("cut short" in note and "4000 samples" in note for note in piece.notes) == notes == len(piece.notes)


def test_a_wav_of_more_than_four_gib_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    with (
        pytest.raises(VqtoolError, match=r"too long for \.wav"),
        audio.written(tmp_path / "a.wav", 8000, 2, frames=2**30),
    ):
        raise AssertionError
    with audio.written(tmp_path / "a.w64", 8000, 2, frames=2**30) as writer:
        writer.write(np.zeros((10, 2), np.float32))
    assert soundfile.info(tmp_path / "a.w64").frames == 10
    with pytest.raises(VqtoolError, match="NaN"), audio.written(tmp_path / "b.wav", 8000, 1, frames=9) as writer:
        writer.write(np.full((9, 1), np.nan, np.float32))
    assert [path.name for path in tmp_path.iterdir()] == ["a.w64"]


def test_with_shortest_a_short_clip_is_a_short_row(tmp_path: Path) -> None:
    for k in range(9):
        write(tmp_path / f"{k}.wav", voice((0.05, 0.3, 0.01)[k % 3], 8000, seed=k), 8000)
    data = wav(tmp_path, shortest=200)
    assert any("3 clips are shorter than 200 samples" in note for note in data.notes)
    rows = data.rows("train")
    for split in data.splits:
        batch = data.rows(split).__getitems__(list(range(len(data.rows(split)))))
        assert not batch["x"][~batch["mask"][:, None]].any()
        lengths = [data.clips.samples(int(clip)) for clip in batch["clip"]]
        assert {400, 2400} >= set(lengths)
    batch = data.augment(rows.__getitems__(list(range(len(rows)))), torch.Generator().manual_seed(0))
    assert batch["x"].shape[-1] == batch["mask"].shape[-1] == 800
    short = torch.tensor([data.clips.samples(int(clip)) == 400 for clip in batch["clip"]])
    assert bool(short.any())
    assert batch["mask"].sum(1)[short].eq(400).all()
    assert batch["mask"].sum(1)[~short].eq(800).all()
    assert not batch["x"][~batch["mask"][:, None]].any()
    plain = wav(tmp_path)
    assert "mask" not in plain.rows("train")[0]

"""`vqtool encode` and `decode` on audio: sizes, lengths, alignment, levels, folders, and files that are not right."""

from __future__ import annotations

import shutil
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.cli.run import document
from tests.speech.sounds import convolutions, recipe, voice, write
from tests.training.test_resume import session
from vqtool.api import DataSpec, Field
from vqtool.commands import encode as commands
from vqtool.errors import VqtoolError
from vqtool.model.load import from_checkpoint
from vqtool.quantizers.waterfill import ResidualWaterfill
from vqtool_speech import user_file
from vqtool_speech.audio import written
from vqtool_speech.user_file import AudioFiles

SPEC = DataSpec({"x": Field((1, 1280), "signal")}, sample_rate=8000.0, metadata={"mix": "mean", "normalise": "peak"})


def encode(run: Path, source: Path, target: Path, levels: int | None = None) -> None:
    commands.run(checkpoint=run, input_file=source, out_file=target, levels=levels, device="cpu")


def decode(run: Path, source: Path, target: Path, levels: int | None = None) -> None:
    commands.decode(checkpoint=run, codes_file=source, out_file=target, levels=levels, device="cpu")


def rate_of(path: Path) -> float:
    return AudioFiles(SPEC).code_figures([path])["bitrate.kbps"]


def delay(x: np.ndarray, y: np.ndarray) -> int:
    """By how many samples `y` lags behind `x`."""
    lags = [float(x[20:-20] @ y[20 + lag : len(y) - 20 + lag]) for lag in range(-20, 21)]
    return int(np.argmax(lags)) - 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny codec, trained for three steps."""
    folder = tmp_path_factory.mktemp("codec")
    made = session(recipe(folder), folder / "run")
    assert made.train() == 0
    scores = made.finish(seconds=0.0)["splits"]["test"]
    model = scores["model"]
    assert model["bitrate.kbps"] > model["bitrate.payload_kbps"] > 0
    assert model["bitrate.codes_kbps"] > 0
    assert 0 <= model["codes.perplexity_share.level2"] <= 1
    assert model["si_sdr.db"] > 0
    assert "mu-law" in scores["baselines"]
    return folder / "run"


def test_the_command_prints_the_rate_that_the_file_has(run: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", 0.5 * voice(1.83, 8000, seed=50), 8000)
    result = document("encode", run, source, "--out", tmp_path / "a.vqc", "--levels", 2)
    assert result["files"] == [str(tmp_path / "a.vqc")]
    assert result["seconds"] == pytest.approx(1.83)
    assert result["bitrate.kbps"] == pytest.approx((tmp_path / "a.vqc").stat().st_size * 8 / 1.83 / 1000, rel=1e-3)


def test_codes_are_not_written_under_the_name_of_a_sound(run: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", 0.5 * voice(0.5, 8000, seed=50), 8000)
    with pytest.raises(VqtoolError, match=r"are a .vqc file, not `a\.opus`") as caught:
        encode(run, source, tmp_path / "a.opus")
    assert caught.value.hint == f"--out {tmp_path / 'a.vqc'}"
    assert not (tmp_path / "a.opus").exists()


def test_there_and_back_has_the_length_the_place_and_the_level(run: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", 0.5 * voice(1.83, 8000, seed=50), 8000)
    encode(run, source, tmp_path / "a.vqc")
    decode(run, tmp_path / "a.vqc", tmp_path / "b.wav")
    (x, rate), (y, back_rate) = soundfile.read(source), soundfile.read(tmp_path / "b.wav")
    assert (rate, len(x)) == (back_rate, len(y))
    assert delay(x, y) == 0
    assert ((x - y) ** 2).sum() < 0.5 * (x**2).sum()


def test_leaving_out_levels_when_coding_or_when_decoding_is_one(run: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", voice(1.0, 8000, seed=50), 8000)
    encode(run, source, tmp_path / "a.vqc")
    encode(run, source, tmp_path / "c.vqc", levels=1)
    assert rate_of(tmp_path / "c.vqc") < rate_of(tmp_path / "a.vqc")
    for name, levels in (("a", None), ("a", 1), ("c", None)):
        decode(run, tmp_path / f"{name}.vqc", tmp_path / f"{name}{levels}.wav", levels)
    x, fine, coarse, same = (
        soundfile.read(tmp_path / name)[0] for name in ("a.wav", "aNone.wav", "a1.wav", "cNone.wav")
    )
    np.testing.assert_array_equal(coarse, same)
    assert ((x - coarse) ** 2).sum() > ((x - fine) ** 2).sum()
    with pytest.raises(VqtoolError, match="3 levels"):
        decode(run, tmp_path / "a.vqc", tmp_path / "out.wav", levels=9)


def test_the_quantizer_knows_how_many_levels_are_encoded(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    monkeypatch.setattr(ResidualWaterfill, "use_levels", lambda _, count: used.append(count))
    source = write(tmp_path / "a.wav", voice(0.2, 8000), 8000)
    encode(run, source, tmp_path / "a.vqc", levels=2)
    encode(run, source, tmp_path / "b.vqc")
    assert used == [2]


def test_coded_with_fewer_levels_it_looks_ahead_to_the_last_of_them(run: Path) -> None:
    """A beam ends where the codes end: closer than the same number of levels out of more."""
    model, _ = from_checkpoint(run / "codec.safetensors")
    q = model.parts.quantizer.eval()
    q.beam = 4
    x = torch.from_numpy(voice(3.0, 8000, seed=11)[:23_040])[None, None]
    with torch.no_grad():
        z = model.parts.encoder(x)
        cut = q.decode(q(z).codes[..., :2])
        q.use_levels(2)
        away = [float((z - each).square().sum()) for each in (q(z).hard, cut)]
    assert away[0] < away[1]


def test_a_folder_of_all_sorts(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in" / "deep" / "a.wav", voice(0.7, 16_000, 1), 16_000)
    write(tmp_path / "in" / "b.flac", np.stack([voice(0.4, 11_025, 2), voice(0.4, 11_025, 3)], 1), 11_025)
    encode(run, tmp_path / "in", tmp_path / "codes")
    output = capsys.readouterr().err
    changed = (
        "2 files are resampled to 8000 Hz, and back in the end: `b.flac` (from 11025 Hz), `deep/a.wav` (from 16000"
    )
    assert changed in output
    assert "1 file is mixed to one channel: `b.flac` (of 2)" in output
    assert "encode 2/2" in output
    decode(run, tmp_path / "codes", tmp_path / "out")
    for name, rate, frames in (("deep/a.wav", 16_000, 11_200), ("b.wav", 11_025, 4410)):
        y, back_rate = soundfile.read(tmp_path / "out" / name)
        assert (back_rate, len(y)) == (rate, frames)
    assert delay(soundfile.read(tmp_path / "in/deep/a.wav")[0], soundfile.read(tmp_path / "out/deep/a.wav")[0]) == 0
    write(tmp_path / "in" / "b.wav", voice(0.3, 8000), 8000)
    with pytest.raises(VqtoolError, match="would become one file"):
        encode(run, tmp_path / "in", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_no_recording_of_a_folder_is_replaced(run: Path, tmp_path: Path) -> None:
    """`decode` onto the recordings, `encode` and `decode` of a folder onto itself, and a target that is a link."""
    sounds, coded = tmp_path / "sounds", tmp_path / "coded"
    (sounds / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.wav", "deep/b.wav")):
        write(sounds / name, 0.3 * voice(0.2, 8000, seed=number), 8000)
    before = {p: p.read_bytes() for p in sorted(sounds.rglob("*.wav"))}
    encode(run, sounds, coded)
    encode(run, sounds, coded)  # codes are replaced unasked: vqtool wrote them, and can write them again
    with pytest.raises(VqtoolError, match="exists already"):
        decode(run, coded, sounds)
    for into in (encode, decode):
        with pytest.raises(VqtoolError, match="is an input as well"):
            into(run, sounds if into is encode else coded, sounds if into is encode else coded)
    for _ in range(2):  # below what is read, and again
        encode(run, sounds, sounds / "coded")
        commands.decode(checkpoint=run, codes_file=coded, out_file=coded / "w", levels=None, device="cpu", force=True)
    shutil.rmtree(sounds / "coded")
    shutil.rmtree(coded / "w")
    (coded / "deep" / "b.vqc").unlink()
    (coded / "deep" / "b.vqc").symlink_to(sounds / "deep" / "b.wav")
    with pytest.raises(VqtoolError, match="is an input as well"):
        commands.run(checkpoint=run, input_file=sounds, out_file=coded, levels=None, device="cpu", force=True)
    with pytest.raises(VqtoolError, match="is a file"):
        encode(run, sounds, sounds / "a.wav")
    encode(run, sounds / "a.wav", coded)  # in the folder, under the name of the sound
    assert {p: p.read_bytes() for p in sorted(sounds.rglob("*.wav"))} == before
    assert sorted(p.name for p in coded.rglob("*.*")) == ["a.vqc", "b.vqc"]
    (coded / "deep" / "b.vqc").unlink()
    commands.decode(checkpoint=run, codes_file=coded, out_file=sounds, levels=None, device="cpu", force=True)
    assert (sounds / "a.wav").read_bytes() != before[sounds / "a.wav"]  # asked for
    assert (sounds / "deep" / "b.wav").read_bytes() == before[sounds / "deep" / "b.wav"]


def test_silence_comes_back_as_silence(run: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", np.zeros(8000), 8000)
    encode(run, source, tmp_path / "a.vqc")
    decode(run, tmp_path / "a.vqc", tmp_path / "b.wav")
    sound, _ = soundfile.read(tmp_path / "b.wav", dtype="int16")
    assert len(sound) == 8000
    assert not sound.any()


def test_a_sound_beyond_full_scale_keeps_its_level(run: Path, tmp_path: Path) -> None:
    x = 1.6 * voice(1.0, 8000, seed=50) / np.abs(voice(1.0, 8000, seed=50)).max()
    soundfile.write(tmp_path / "a.wav", x, 8000, subtype="FLOAT")
    encode(run, tmp_path / "a.wav", tmp_path / "a.vqc")
    decode(run, tmp_path / "a.vqc", tmp_path / "b.wav")
    assert soundfile.info(tmp_path / "b.wav").subtype == "FLOAT"
    assert np.abs(soundfile.read(tmp_path / "b.wav")[0]).max() > 1


def test_a_sound_of_just_full_scale_stays_one_of_16_bits(run: Path, tmp_path: Path) -> None:
    x = voice(1.0, 8000, seed=50) / np.abs(voice(1.0, 8000, seed=50)).max()
    x[100] = -1.0  # the lowest sample that 16 bits have: a peak of exactly 1
    encode(run, write(tmp_path / "a.wav", x, 8000), tmp_path / "a.vqc")
    decode(run, tmp_path / "a.vqc", tmp_path / "b.wav")
    assert soundfile.info(tmp_path / "b.wav").subtype == "PCM_16"


def test_samples_are_rounded_to_the_nearest(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-0.4, 0.4, (16_000, 1)).astype(np.float32)
    with written(tmp_path / "a.wav", 16_000, 1, frames=16_003) as writer:
        writer.write(x)
        writer.write(np.array([[2.0], [-2.0], [0.0]], np.float32))
    y = soundfile.read(tmp_path / "a.wav", dtype="int16", always_2d=True)[0]
    error = y[:-3] - x * 2**15
    assert abs(float(error.mean())) < 0.02
    assert float(np.abs(error).max()) <= 0.5
    assert y[-3:, 0].tolist() == [32767, -32768, 0]


def test_what_is_not_right_is_an_error_and_never_noise(run: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", voice(0.5, 8000), 8000)
    encode(run, source, tmp_path / "a.vqc")
    content = (tmp_path / "a.vqc").read_bytes()
    foreign = bytearray(content)
    foreign[27] ^= 1  # the digest of the model, with a checksum that fits
    foreign[-4:] = zlib.crc32(foreign[:-4]).to_bytes(4, "little")
    (tmp_path / "foreign.vqc").write_bytes(foreign)
    (tmp_path / "cut.vqc").write_bytes(content[:-3])
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    (tmp_path / "flipped.vqc").write_bytes(flipped)
    for name, says in (
        ("foreign.vqc", "written with another model"),
        ("cut.vqc", "damaged or cut short"),
        ("flipped.vqc", "damaged or cut short"),
        ("a.wav", r"not a \.vqc file"),
        ("none.vqc", r"there is no file `.*none\.vqc`"),
    ):
        with pytest.raises(VqtoolError, match=says):
            decode(run, tmp_path / name, tmp_path / "out.wav")
        assert not (tmp_path / "out.wav").exists()


def test_three_short_stereo_files_at_another_rate_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And as many tokens start the codebooks as are asked for: random stretches anew, epoch after epoch."""
    begin, seen = ResidualWaterfill.initialise, []

    def watched(self: ResidualWaterfill, z: torch.Tensor, *rest: object, **named: object) -> None:
        seen.append(z)
        begin(self, z, *rest, **named)

    monkeypatch.setattr(ResidualWaterfill, "initialise", watched)
    path = recipe(tmp_path, clips=0, steps=1)
    for k in range(3):
        sound = voice(1.0 + 0.3 * k, 22_050)  # one voice, so that one clip teaches to code another
        write(tmp_path / "clips" / f"{k}.wav", np.stack([sound, 0.5 * sound], 1), 22_050)
    path.write_text(path.read_text().replace("held_out = 3\nvalid = 2\n", "").replace("[quantizer]", START))
    made = session(path, tmp_path / "run")
    assert made.train() == 0
    (z,) = [one for one in seen if one.shape[0] * one.shape[1] > 64]  # the check before a run starts on 64 tokens
    assert 512 * 32 <= z.shape[0] * z.shape[1] < 512 * 32 + 8 * z.shape[1]
    assert len(z.flatten(0, 1).unique(dim=0)) > 0.5 * 512 * 32
    model = made.finish(seconds=0.0)["splits"]["test"]["model"]
    assert model["si_sdr.db"] > 0
    assert model["si_sdr.shift"] == 0


@pytest.mark.parametrize(("causal", "activation"), [(True, "snake"), (False, "elu")])
def test_a_convolutional_codec_trains_and_codes(tmp_path: Path, causal: bool, activation: str) -> None:
    """Weight norm, output scale, level dropout, codes of few dimensions and every loss, from recipe to files."""
    made = session(convolutions(tmp_path, causal=causal, activation=activation, steps=45), tmp_path / "run")
    assert made.train() == 0
    model = made.finish(seconds=0.0)["splits"]["test"]["model"]
    assert model["snr.db"] > 2
    assert 0.5 < model["range_ratio"] < 1.5
    source = write(tmp_path / "a.wav", voice(0.93, 8000, seed=50), 8000)
    encode(tmp_path / "run", source, tmp_path / "a.vqc")
    content = (tmp_path / "a.vqc").read_bytes()
    assert content[4] == 2  # every token sends all levels; codes by their use
    assert rate_of(tmp_path / "a.vqc") < 3 * 6 * 500 / 1000 + 48 * 8 / 0.93 / 1000
    for levels in (None, 1):
        decode(tmp_path / "run", tmp_path / "a.vqc", tmp_path / f"{levels}.wav", levels)
        assert len(soundfile.read(tmp_path / f"{levels}.wav")[0]) == 7440


START = "[quantizer]\nbeam = 2\nstart_tokens = 512"  # more tokens than an epoch has


@pytest.mark.parametrize("beam", [1, 4])
def test_pieces_are_the_whole(run: Path, beam: int) -> None:
    """Codes of pieces with their context are those of one pass over everything, and so is the sound."""
    model, _ = from_checkpoint(run / "codec.safetensors")
    parts, spec = model.parts.eval(), model.spec
    parts.quantizer.beam = beam
    x = torch.from_numpy(voice(4.0, 8000, seed=9)[: 19 * spec.length])[None, None]
    padded = torch.nn.functional.pad(x, (spec.length, spec.length))
    with torch.no_grad():
        whole = parts.quantizer(parts.encoder(padded)).codes
        sound = parts.decoder(parts.quantizer.decode(whole))
        margin = spec.length // parts.encoder.stride
        pieces = list(user_file.spans(x.shape[-1], spec.length))
        assert [count for _, count in pieces] == [8, 8, 3]
        for start, count in pieces:
            piece = padded[..., start : start + (count + 2) * spec.length]
            codes = parts.quantizer(parts.encoder(piece)).codes
            first = start // parts.encoder.stride
            assert torch.equal(codes[:, margin:-margin], whole[:, first + margin : first + (count + 1) * margin])
            around = whole[:, first : first + (count + 2) * margin]
            again = parts.decoder(parts.quantizer.decode(around))[..., spec.length : -spec.length]
            wanted = sound[..., start + spec.length : start + (count + 1) * spec.length]
            torch.testing.assert_close(again, wanted, rtol=0, atol=1e-6)


def test_reading_depends_on_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stays in memory, the pieces are bit for bit the same."""
    path = write(tmp_path / "a.wav", voice(3.0, 11_025), 11_025)
    kept, again = ([piece.batch["x"] for piece in AudioFiles(SPEC).open(path)] for _ in range(2))
    assert len(kept) == -(-24_000 // (user_file.CORE * 1280)) == 3
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    joined = torch.cat([x[..., 1280:-1280] for x in kept], -1)
    for before, after in pairwise(kept):
        assert torch.equal(before[..., -1280:], after[..., 1280:2560])
        assert torch.equal(before[..., -2560:-1280], after[..., :1280])
    assert not joined[..., 24_000:].any()

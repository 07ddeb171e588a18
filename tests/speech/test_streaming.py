"""Sound in bounded memory: what streams is bit for bit what is coded at once, whatever the file."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from tests.speech import whole
from tests.speech.sounds import recipe, voice, write
from tests.training.test_resume import session
from vqtool.commands.encode import about_codes, code_use, encoded
from vqtool.training.build import Model, from_checkpoint
from vqtool.training.runtime import Runtime
from vqtool_speech import audio, files, spool


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny codec of 8 kHz, trained for three steps; a piece is 1.28 s."""
    folder = tmp_path_factory.mktemp("codec")
    made = session(recipe(folder), folder / "run")
    assert made.train() == 0
    built, _ = from_checkpoint(folder / "run" / "codec.safetensors")
    built.parts.eval()
    return built


def streamed(model: Model, source: Path, folder: Path) -> tuple[bytes, bytes]:
    """The .vqc and the decoded file, as the commands make them."""
    (_, task), about = model.task(object), about_codes(model) | {"code_use": code_use(model)}
    pieces = encoded(model, task, files.read_pieces(model.spec, source), Runtime(torch.device("cpu")), None)
    (target,) = files.write_codes(model.spec, folder / "a.vqc", pieces, about)
    _, back = files.read_codes(model.spec, target, about)
    signals = ((task.decode(model.parts, {"codes": p.codes, "sent": p.sent}, {}), p.batch, p.about) for p in back)
    (out,) = files.write_pieces(model.spec, folder / "back.wav", signals)
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
    mine = replace(model, spec=replace(model.spec, about={"mix": mix, "normalise": normalise}))
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

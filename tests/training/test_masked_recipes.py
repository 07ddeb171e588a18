"""Shipped recipes over data of different lengths, from the command line: sound and seismograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from tests.cli.run import within
from tests.seismic.conftest import lines_of, motion, write_chunk
from tests.speech.sounds import voice, write
from vqtool.model.load import load

RECIPES = Path(__file__).parents[2] / "recipes"


def set_all(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("-s", setting)]


def test_the_codec_trains_on_whole_clips_of_two_lengths(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for k in range(9):
        write(clips / f"{k}.wav", voice((0.3, 0.5)[k % 2], 16_000, seed=k), 16_000)
    small = set_all(
        f"data.path={clips}", "data.shortest=1000", "data.segment=8000", "stage.codec.steps=2", "train.batch=4",
        "quantizer.codebook_size=8", "quantizer.start_tokens=4", "quantizer.levels=2", "encoder.width=8",
        "decoder.width=8", "evaluate.baselines=[]", "evaluate.metrics=['si-sdr', 'codes', 'bitrate']",
    )  # fmt: skip
    run = tmp_path / "run"
    done = within("train", RECIPES / "codec.toml", *small, "--out", run)
    assert done.returncode == 0, done.stderr
    done = within("evaluate", run, "--data", clips)
    assert done.returncode == 0, done.stderr
    assert within("encode", run, clips / "0.wav", "--out", tmp_path / "0.vqc").returncode == 0
    assert within("decode", run, tmp_path / "0.vqc", "--out", tmp_path / "0.wav").returncode == 0
    assert soundfile.info(tmp_path / "0.wav").frames == soundfile.info(clips / "0.wav").frames


def test_seismograms_of_two_lengths_train_and_are_read_by_phase(tmp_path: Path) -> None:
    folder = tmp_path / "quakes"
    write_chunk(folder, {"bucket0": np.stack([motion(k) for k in range(10)])}, lines_of(5, 2))
    small = set_all(
        f"data.path={folder}", "data.window=1600", "data.shortest=400", "stage.contrast.steps=2", "train.batch=4",
        "evaluate.splits=['test']", "evaluate.metrics=['codes', 'contrastive', 'phase-agreement']",
        "evaluate.baselines=[]", "encoder.width=8", "encoder.dim=16", "context.width=16",
    )  # fmt: skip
    run = tmp_path / "run"
    done = within("train", RECIPES / "seismic-tiny.toml", *small, "--out", run)
    assert done.returncode == 0, done.stderr
    done = within("evaluate", run, "--data", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert '"codes.nmi"' in done.stdout
    assert load(run).spec.fields["mask"].shape == (1600,)

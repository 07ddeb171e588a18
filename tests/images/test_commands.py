"""Every command on a model of images: it works, or says in one error why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vqtool
from tests.cli.run import within
from tests.images.conftest import columns
from tests.images.made import write_recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and a run; the recipe names no metrics."""
    folder = tmp_path_factory.mktemp("images")
    np.savez(folder / "pictures.npz", **columns())
    recipe = write_recipe(folder, folder / "pictures.npz")
    done = within("train", recipe, "-o", folder / "run", "--json")
    assert done.returncode == 0, done.stderr
    (folder / "trained.json").write_text(done.stdout)
    return folder


def run(*arguments: object, code: int = 0) -> str:
    """What a command printed, all of it."""
    done = within(*arguments)
    text = done.stdout + done.stderr
    assert done.returncode == code, text
    assert "Traceback" not in text
    assert "internal" not in text
    return text


def test_by_default_the_metrics_that_fit_images_are_measured(made: Path) -> None:
    figures = json.loads((made / "trained.json").read_text())["splits"]["test"]["model"]
    for name in ("psnr.db", "psnr.pooled_db", "ssim", "frechet.own", "frechet.classified", "error.mean", "codes.used"):
        assert name in figures
    assert not [name for name in figures if "si_sdr" in name or "stft" in name or "bitrate" in name]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('metrics = ["si-sdr"]', "the metric `si-sdr` is for windows"),
        ('metrics = ["bitrate"]', "the metric `bitrate` is for windows"),
        ('metrics = ["spectral-distance"]', "the metric `spectral-distance` is for windows"),
        ('baselines = ["mu-law"]', "the baseline `mu-law` is for windows"),
        ('baselines = ["block-rvq"]', "the baseline `block-rvq` is for windows"),
        ('baselines = ["naive"]', "a forecast from histories needs data with a field `future`"),
        ('baselines = ["ridge-forecast"]', "a forecast from histories needs data with a field `future`"),
        ('baselines = ["kmeans"]', "needs seismograms with a `phase`"),
        ('baselines = ["log-spectrogram"]', "needs seismograms with a `phase`"),
        ('[norm]\nkind = "revin"', "the norm `revin` is for windows"),
        ('[norm]\nkind = "ridge"', "the norm `ridge` needs data with a field `future`"),
    ],
)
def test_what_is_named_and_does_not_fit_is_an_error_before_training(made: Path, tmp_path: Path, line: str, said: str
                                                                    ) -> None:  # fmt: skip
    recipe = write_recipe(tmp_path, made / "pictures.npz", f"[evaluate]\n{line}")
    for command in (("check", recipe), ("train", recipe, "--out", tmp_path / "run")):
        assert said in run(*command, code=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mse = 1.0": "stft = 1.0"}, "the loss `stft` is for windows"),
        ({'"autoencode"': '"forecast-codes"'}, "`future`"),
        ({'[decoder]\nkind = "conv2d"\ngrid = true\nwidths = [4, 8]': '[decoder]\nkind = "patch"'}, "`patch` is for"),
    ],
)
def test_parts_that_do_not_fit_are_one_error(made: Path, tmp_path: Path, change: dict[str, str], said: str) -> None:
    recipe = write_recipe(tmp_path, made / "pictures.npz", **change)
    assert said in run("train", recipe, "--out", tmp_path / "run", code=2)


def test_reports_of_a_model_of_images(made: Path, tmp_path: Path) -> None:
    model = made / "run" / "tokenizer.safetensors"
    run("diagnose", model, "--report", tmp_path / "report.html", "--split", "valid")
    assert "<svg" in (tmp_path / "report.html").read_text() or "<canvas" in (tmp_path / "report.html").read_text()
    assert "psnr.db" in run("evaluate", model)
    run("improve", model, "--steps", "2", "--out", tmp_path / "better.safetensors")
    assert "label" in run("codes", model, "--out", tmp_path / "codes")
    (tmp_path / "x.csv").write_text("a\n1\n")
    assert "cannot forecast" in run("forecast", model, "--data", tmp_path / "x.csv", "--steps", "3", code=2)
    assert "cannot generate" in run("generate", model, "--condition", tmp_path / "x.csv", "--out", tmp_path / "g.npz",
                                    code=2)  # fmt: skip


def test_pictures_to_codes_and_back(made: Path, tmp_path: Path) -> None:
    model = made / "run" / "tokenizer.safetensors"
    folder, images = tmp_path / "in", columns()["test_images"]
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(images[0]).save(folder / "a.png")
    Image.fromarray(images[1]).convert("RGB").save(folder / "deep" / "b.png")
    text = run("encode", model, folder, "--out", tmp_path / "c.safetensors")
    assert "1 picture read as grey" in text
    run("decode", model, tmp_path / "c.safetensors", "--out", tmp_path / "out")
    run("decode", model, tmp_path / "c.safetensors", "--out", tmp_path / "out.npz")
    x = np.load(tmp_path / "out.npz")["x"]
    assert x.shape == (2, 1, 8, 8)
    assert x.min() >= 0
    assert x.max() <= 1
    trained = vqtool.load(model)
    known = trained.decode(trained.encode(images[:2, None] / 255.0)).clamp(0, 1).numpy()
    np.testing.assert_allclose(x, known, atol=1e-5)
    for name, picture in (("a.png", x[0, 0]), ("deep/b.png", x[1, 0])):
        saved = np.asarray(Image.open(tmp_path / "out" / name))
        assert np.abs(saved / 255 - picture).max() <= 0.5 / 255 + 1e-6
    assert "one in a PNG" in run("decode", model, tmp_path / "c.safetensors", "--out", tmp_path / "one.png", code=2)
    assert "exists already" in run("decode", model, tmp_path / "c.safetensors", "--out", tmp_path / "out", code=2)
    assert "`.jpg`" in run("decode", model, tmp_path / "c.safetensors", "--out", tmp_path / "one.jpg", code=2)


def test_one_picture_an_array_and_what_cannot_be_read(made: Path, tmp_path: Path) -> None:
    model = made / "run" / "tokenizer.safetensors"
    images = columns()["test_images"]
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", images)
    run("encode", model, tmp_path / "a.png", "--out", tmp_path / "one.safetensors")
    run("decode", model, tmp_path / "one.safetensors", "--out", tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").size == (8, 8)
    assert "(40, 4, 1)" in run("encode", model, tmp_path / "a.npy", "--out", tmp_path / "many.safetensors")
    Image.fromarray(images[0]).resize((16, 16)).save(tmp_path / "big.png")
    text = run("encode", model, tmp_path / "big.png", "--out", tmp_path / "big.safetensors", code=2)
    assert "data.size=8" in text
    run("encode", model, tmp_path / "big.png", "--out", tmp_path / "big.safetensors", "-s", "data.size=8")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x.png").write_bytes(b"no picture")
    text = run("encode", model, tmp_path / "f", "--out", tmp_path / "f.safetensors", code=2)
    assert "`x.png`" in text


def test_names_from_a_file_of_codes_stay_within_the_folder() -> None:
    from vqtool_images.user_file import named

    assert str(named("../../etc/a.jpg")) == "etc/a.png"
    assert str(named("/a/b")) == "a/b.png"
    assert str(named("..")) == "picture.png"


def test_a_prior_over_the_codes_of_images(made: Path, tmp_path: Path, pictures: Callable[..., Path]) -> None:
    recipe = write_recipe(tmp_path, pictures())
    recipe.write_text(
        recipe.read_text()
        + """
[prior]
kind = "gru"
width = 8

[[stage]]
name = "prior"
task = "predict-codes"
steps = 3
losses = { next-code = 1.0 }
"""
    )
    run("train", recipe, "--out", tmp_path / "run")
    assert vqtool.load(tmp_path / "run").generate(2, seeds=[0, 1]).shape == (2, 1, 8, 8)

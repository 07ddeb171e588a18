"""Every part trains in bfloat16 and in float16 on the CPU, with conditions, and in the end its figures are finite."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.test_resume import session
from tests.training.tiny import TOKENIZER, write_recipe
from vqtool.parts.losses.mse import Mse

LENGTH = 160
CODERS = {
    "conv1d": ("conv1d", "strides = [4, 2]\nwidth = 8", "width = 8"),
    "resnet1d": ("resnet1d", "", ""),
    "patch": ("patch", "patch = 8", ""),
    "lapped": ("lapped", "hop = 16", ""),
    "transformer": ("transformer", "patch = 8\nwidth = 16\nlayers = 1", "width = 16\nlayers = 1"),
}


def recipe_of(folder: Path, encoder: str, decoder: str, conditioner: str, more: str = "") -> Path:
    """An autoencoder of signals under a condition, and what is appended."""
    path = write_recipe(folder)
    x = np.random.default_rng(0).normal(size=(120, LENGTH)).astype(np.float32)
    np.savez(folder / "signals.npz", x=x, wave_one=x[:, ::-1], scalar_one=x[:, 0])
    text = TOKENIZER.format(seed=0)
    head, rest = text[: text.index("[encoder]")], text[text.index("[train]") :]
    parts = f"""
[conditioner]
kind = "{conditioner}"
dim = 8

[encoder]
kind = "{encoder}"
dim = 8
{CODERS[encoder][1]}

[quantizer]
kind = "residual-ema"
levels = 2
codebook_size = 8

[decoder]
kind = "{decoder}"
{CODERS[decoder][2]}

"""
    path.write_text(head + parts + rest + more)
    return path


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("conditioner", ["conv1d", "spectrum"])
@pytest.mark.parametrize("coder", CODERS)
def test_conditioned_coders_train(tmp_path: Path, coder: str, conditioner: str, precision: str) -> None:
    steps = ["stage.tokenizer.steps=3", f"train.precision={precision}"]
    made = session(recipe_of(tmp_path, coder, coder, conditioner), tmp_path / "run", steps)
    assert made.train() == 0
    assert math.isfinite(made.finish(seconds=0.0)["splits"]["test"]["model"]["error.mean"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("prior", ["gpt", "gru", "lstm"])
def test_priors_train(tmp_path: Path, prior: str, precision: str) -> None:
    more = f"""
[prior_conditioner]
kind = "spectrum"
dim = 8

[prior]
kind = "{prior}"
width = 16

[[stage]]
name = "prior"
task = "predict-codes"
steps = 3
losses = {{ next-code = 1.0 }}
"""
    steps = ["stage.tokenizer.steps=3", f"train.precision={precision}"]
    made = session(recipe_of(tmp_path, "conv1d", "conv1d", "conv1d", more), tmp_path / "run", steps)
    assert made.train() == 0
    assert math.isfinite(made.finish(seconds=0.0)["splits"]["test"]["model"]["cross_entropy"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("encoder", "context"), [("filterbank", "transformer"), ("conv1d", "xlstm")])
def test_contrast_trains(tmp_path: Path, encoder: str, context: str, precision: str) -> None:
    path = write_recipe(tmp_path)
    x = np.random.default_rng(0).normal(size=(120, 256)).astype(np.float32)
    np.savez(tmp_path / "signals.npz", x=x)
    strides = "strides = [4, 2]\n" if encoder == "conv1d" else ""
    path.write_text(f"""
[data]
kind = "arrays"
path = "signals.npz"

[encoder]
kind = "{encoder}"
dim = 8
{strides}
[quantizer]
kind = "product-gumbel"
groups = 2
codebook_size = 8

[context]
kind = "{context}"

[train]
batch = 16
precision = "{precision}"

[[stage]]
name = "contrast"
task = "contrast"
steps = 3
options = {{ span = 2 }}
losses = {{ info-nce = 1.0, log-perplexity = 0.1 }}
""")
    made = session(path, tmp_path / "run")
    assert made.train() == 0
    assert math.isfinite(made.finish(seconds=0.0)["splits"]["test"]["model"]["contrastive.accuracy"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_losses_compute_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    seen: set[torch.dtype] = set()

    def forward(self: Mse, *, x_hat: Tensor, target: Tensor) -> Tensor:
        product = x_hat.flatten(1) @ target.flatten(1).T
        seen.update({x_hat.dtype, target.dtype, product.dtype})
        return (x_hat - target).square().mean()

    monkeypatch.setattr(Mse, "forward", forward)
    steps = ["stage.tokenizer.steps=1", f"train.precision={precision}"]
    assert session(write_recipe(tmp_path), tmp_path / "run", steps).train() == 0
    assert seen == {torch.float32}

"""A tiny recipe of the forecasters that ship: tokens, the prior that goes on with them, and the direct head."""

from __future__ import annotations

from pathlib import Path

from tests.forecast.tiny import frame
from vqtool.commands import train

RECIPE = """
title = "tiny tokens"
seed = 0

[data]
kind = "series"
path = "series.csv"
lookback = 48
horizons = [6, 12]
channels = "{channels}"

[norm]
kind = "{norm}"

[encoder]
kind = "resnet1d"
dim = 8
width = 8
blocks = 1

[quantizer]
kind = "ema"
codebook_size = 16

[decoder]
kind = "resnet1d"
width = 8
blocks = 1

[prior]
kind = "gpt"
layers = 1
width = 16

[regressor]
kind = "mlp"
width = 16
zero_init = true

[train]
batch = 32
lr = 3e-3

[evaluate]
metrics = ["forecast-error", "intervals", "reconstruction", "codes"]
baselines = ["seasonal-naive"]

[[stage]]
name = "tokenizer"
task = "autoencode"
steps = 4
losses = {{ mse = 1.0, commitment = 1.0 }}

[[stage]]
name = "prior"
task = "forecast-codes"
options = {{ steps = 12, samples = 3 }}
steps = 4
losses = {{ next-code = 1.0 }}

[[stage]]
name = "direct"
task = "forecast-direct"
steps = 4
losses = {{ mse = 1.0, pinball = 1.0 }}
"""


def trained(folder: Path, *, norm: str = "ridge", channels: str = "independent") -> dict[str, Path]:
    """The checkpoints of a run, by stage."""
    frame().to_csv(folder / "series.csv", index=False)
    recipe = folder / "tokens.toml"
    recipe.write_text(RECIPE.format(norm=norm, channels=channels if channels == "joint" else "independent"))
    where = folder / "run"
    assert train.run(recipe=recipe, overrides=[], out_dir=where, seed=None, device="cpu", stage=None) == 0
    return {stage: where / f"{stage}.safetensors" for stage in ("tokenizer", "prior", "direct")}

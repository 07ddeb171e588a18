"""A tiny recipe on synthetic signals, for tests of the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TOKENIZER = """
title = "tiny"
seed = {seed}

[data]
kind = "arrays"
path = "signals.npz"

[encoder]
kind = "conv1d"
dim = 8
width = 8
strides = [4, 2]

[quantizer]
kind = "residual-ema"
levels = 2
codebook_size = 8

[decoder]
kind = "conv1d"
width = 8

[train]
batch = 16
lr = 3e-3
log_every = 5

[[stage]]
name = "tokenizer"
task = "autoencode"
steps = 20
losses = {{ mse = 1.0, commitment = 0.25 }}
"""

PRIOR = """
[prior]
kind = "gru"
width = 16

[[stage]]
name = "prior"
task = "predict-codes"
steps = 10
losses = { next-code = 1.0 }
"""


def write_recipe(folder: Path, *, prior: bool = False, seed: int = 0, more: str = "") -> Path:
    """The recipe and its data in `folder`; `more` is appended."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, (120, 1))
    time = np.arange(32) * 2 * np.pi / 32
    x = np.sin(time + phase) + 0.3 * np.sin(3 * time + 2 * phase) + 0.01 * rng.normal(size=(120, 32))
    np.savez(folder / "signals.npz", x=x.astype(np.float32))
    path = folder / "tiny.toml"
    path.write_text(TOKENIZER.format(seed=seed) + (PRIOR if prior else "") + more)
    return path

"""A tiny recipe for images, and a run of it."""

from __future__ import annotations

from pathlib import Path

RECIPE = """
title = "tiny images"

[data]
kind = "labelled-images"
path = "{path}"

[encoder]
kind = "conv2d"
grid = true
dim = 4
widths = [4, 8]

[quantizer]
kind = "ema"
codebook_size = 8

[decoder]
kind = "conv2d"
grid = true
widths = [4, 8]

[train]
batch = 16
lr = 3e-3

{evaluate}

[[stage]]
name = "tokenizer"
task = "autoencode"
steps = 12
losses = {{ mse = 1.0, commitment = 0.25 }}
"""


def write_recipe(folder: Path, pictures: Path, evaluate: str = "", **change: str) -> Path:
    """The recipe in `folder`, with texts of it replaced."""
    text = RECIPE.format(path=pictures, evaluate=evaluate)
    for old, new in change.items():
        text = text.replace(old, new)
    path = folder / "images.toml"
    path.write_text(text)
    return path

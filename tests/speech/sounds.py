"""Made-up sounds: a voice-like glide of harmonics, at any rate and length, and a small recipe to code them with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RECIPE = """
title = "tiny codec"
seed = 0

[data]
kind = "wav"
path = "clips"
sample_rate = 8000
segment = 1280
held_out = 3
valid = 2

[encoder]
kind = "lapped"
hop = 64
bands = 8
width = 16
blocks = 1
kernel = 3

[quantizer]
kind = "residual-waterfill"
levels = 3
codebook_size = 32
step_db = 6.0
floor_db = -20.0

[decoder]
kind = "lapped"
bands = 8
width = 16
blocks = 1
kernel = 3

[train]
batch = 8
lr = 1e-3

[evaluate]
metrics = ["si-sdr", "codes", "bitrate", "spectral-distance"]
baselines = ["mu-law"]
batch = 4

[[stage]]
name = "codec"
task = "autoencode"
steps = {steps}
losses = {{ mse = 1e3, l1 = 1.0, stft = 0.1, mel = 0.1, commitment = 1.0, rate = 0.1 }}
"""


CONVOLUTIONS = """[encoder]
kind = "conv1d"
dim = 16
width = 16
strides = [4, 4]
kernel = 7
causal = {causal}
activation = "{activation}"
weight_norm = true

[quantizer]
kind = "residual-ema"
levels = 3
codebook_size = 64
level_dropout = 0.25
code_dim = 8

[decoder]
kind = "conv1d"
width = 16
strides = [4, 4]
kernel = 7
causal = {causal}
activation = "{activation}"
weight_norm = true
output_scale = true

"""


def voice(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """[frames] float32, peak about 0.4: harmonics up to 3 kHz of a pitch that glides, with pauses."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = rng.uniform(90, 180) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = sum(rng.normal() / k * np.sin(k * phase + rng.uniform(0, 6)) * (k * pitch < 3000) for k in range(1, 20))
    loud = np.clip(np.sin(2 * np.pi * rng.uniform(1, 2) * t + rng.uniform(0, 6)) + 0.5, 0, 1)
    sound = sound * loud
    return (0.4 * sound / np.abs(sound).max()).astype(np.float32)


def write(path: Path, sound: np.ndarray, rate: int) -> Path:
    """A 16-bit file of `sound` [frames] or [frames, channels]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, subtype="PCM_16")
    return path


def recipe(folder: Path, *, clips: int = 8, steps: int = 3) -> Path:
    """The recipe and its clips in `folder`."""
    for k in range(clips):
        write(folder / "clips" / f"{k}.wav", voice(0.9 + 0.1 * k, 8000, seed=k), 8000)
    path = folder / "codec.toml"
    path.write_text(RECIPE.format(steps=steps))
    return path


def convolutions(folder: Path, *, causal: bool, activation: str, steps: int) -> Path:
    """The recipe with a convolutional codec and all codec losses in place of the lapped one."""
    path = recipe(folder, steps=steps)
    text = path.read_text()
    first, last = text.index("[encoder]"), text.index("[train]")
    parts = CONVOLUTIONS.format(causal=str(causal).lower(), activation=activation)
    losses = "losses = { mse = 100.0, l1 = 1.0, stft = 0.05, mel = 0.05, commitment = 0.25 }"
    text = text[:first] + parts + text[last : text.index("losses = ")] + losses
    path.write_text(text.replace("lr = 1e-3", "lr = 5e-3"))
    return path

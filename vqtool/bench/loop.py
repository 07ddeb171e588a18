"""The case of `vqtool bench loop`: training steps of the engine beside a loop written by hand for the same model.

Both train the same parts from the same start on the same rows in the same order, and end at the same weights, bit for
bit. The one by hand has what people write: rows of a permutation, the chain of the parts, a loss, gradients clipped by
norm, AdamW in one kernel, a learning rate with warm-up and cosine, the update of the codebooks, a loss printed now and
then. The engine also checks that losses are finite, counts codes, writes rows of figures, watches for signals, and is
ready to be resumed. No validation and no saving are in either.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vqtool.bench.measure import timed
from vqtool.model.build import build, fit_parts
from vqtool.model.data import open_data
from vqtool.model.seeds import generator_of
from vqtool.recipe.recipe import parse
from vqtool.training.loop import StageLoop
from vqtool.training.runtime import Runtime, Signals
from vqtool.training.starting import start_codebooks

ROWS, LENGTH, BATCH, STEPS = 4096, 128, 16, 100_000
TURN = 10  # steps of one side before it is the other's turn
MOST = 60  # pairs of turns
RECIPE = f"""
[data]
kind = "arrays"
path = "signals.npy"

[encoder]
kind = "conv1d"
dim = 32
width = 32
strides = [4, 2]

[quantizer]
kind = "residual"
levels = 4
of = {{ kind = "vq", codebook_size = 256 }}

[decoder]
kind = "conv1d"
width = 32

[train]
batch = {BATCH}

[[stage]]
name = "tokenizer"
task = "autoencode"
steps = {STEPS}
valid_every = {STEPS}
save_seconds = 1e9
losses = {{ mse = 1.0, commitment = 0.25 }}
"""


class Turn(Signals):
    """Stops the engine's loop after a number of steps, as a signal would."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0

    @property
    def received(self) -> int:
        """Asked for once after each step."""
        self.left -= 1
        return int(self.left <= 0)

    @received.setter
    def received(self, _: int) -> None:
        """No other signal stops it."""


class ByHand:
    """The same model in a loop written for it."""

    def __init__(self, engine: StageLoop, x: Tensor) -> None:
        self.x, self.options, self.step, self.seed = x, engine.options, 0, engine.seed
        self.parts = engine.model.parts
        self.parameters = list(self.parts.parameters())
        decayed = [p for p in self.parameters if p.ndim > 1]
        other = [p for p in self.parameters if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": self.options.weight_decay}, {"params": other, "weight_decay": 0}]
        self.adam = torch.optim.AdamW(groups, lr=self.options.lr, betas=self.options.betas, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adam, self.rate)
        self.order, self.shown = torch.empty(0, dtype=torch.long), math.nan

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine."""
        warm = max(1, round(self.options.warmup * STEPS))
        if step < warm:
            return (step + 1) / warm
        along = (step - warm) / max(1, STEPS - 1 - warm)
        return self.options.lr_end + (1 - self.options.lr_end) * 0.5 * (1 + math.cos(math.pi * along))

    def run(self, steps: int) -> None:
        """Train so many steps."""
        for _ in range(steps):
            epoch, place = divmod(self.step, len(self.x) // BATCH)
            if place == 0:
                self.order = torch.randperm(len(self.x), generator=generator_of(self.seed, "tokenizer", "order", epoch))
            batch = {"x": self.x[self.order[place * BATCH : (place + 1) * BATCH]]}
            normed, _ = self.parts.norm(batch)
            quantized = self.parts.quantizer(self.parts.encoder(normed["x"]))
            x_hat = self.parts.decoder(quantized.z)
            loss = nn.functional.mse_loss(x_hat, normed["x"]) + 0.25 * quantized.terms["commitment"]
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.adam.step()
            self.schedule.step()
            self.adam.zero_grad(set_to_none=True)
            self.parts.quantizer.update(quantized.stats)
            self.step += 1
            if self.step % self.options.log_every == 0:
                self.shown = float(loss.detach())


def engine(folder: Path, device: torch.device) -> tuple[StageLoop, Tensor]:
    """The engine's loop, its codebooks started, and the rows that it trains on."""
    torch.manual_seed(0)
    along = torch.arange(LENGTH) * 2 * math.pi / LENGTH
    phase = torch.rand(ROWS, 1) * 2 * math.pi
    x = (along + phase).sin() + 0.3 * (3 * along + 2 * phase).sin() + 0.01 * torch.randn(ROWS, LENGTH)
    np.save(folder / "signals.npy", x.numpy())
    recipe = parse(RECIPE, path=folder / "recipe.toml")
    data = open_data(recipe)
    model = build(recipe, data.spec)
    fit_parts(model, data)
    (stage,) = recipe.stages
    loop = StageLoop(model, stage, data, Runtime(device), seed=recipe.seed, log=lambda row: None)
    start_codebooks(loop)
    return loop, data.rows("train").__getitems__(list(range(len(data.rows("train")))))["x"].to(device)


def rows(device: torch.device, seconds: float) -> Iterator[dict[str, Any]]:
    """One row: milliseconds a step, and the median over pairs of turns of the time of one over that of the other."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        loop, _ = engine(Path(folder), device)
        hand, turn = ByHand(*engine(Path(folder), device)), Turn()

        def ours() -> None:
            turn.left = TURN
            loop.run(turn, lambda kind: None)

        sides = {"ours": ours, "by hand": lambda: hand.run(TURN)}
        times: dict[str, list[float]] = {name: [] for name in sides}
        while len(times["ours"]) < MOST and (len(times["ours"]) < 3 or time.perf_counter() - began < seconds):
            for name in sorted(sides, reverse=len(times["ours"]) % 2 == 0):
                times[name].append(timed(sides[name], device) / TURN)
    each = [a / b for a, b in zip(times["ours"][1:], times["by hand"][1:], strict=True)]  # the first pair warms up
    mine, theirs = (statistics.median(times[name][1:]) for name in sides)
    yield {
        "case": f"conv1d, residual 4 x 256, batch {BATCH} of {LENGTH}",
        "mode": "train",
        "ours_ms": mine,
        "overhead": statistics.median(each) - 1,
        "peers": {"by hand": {"ms": theirs, "ratio": 1 / statistics.median(each)}},
    }

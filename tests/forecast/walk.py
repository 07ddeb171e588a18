"""A toy forecaster for the commands' tests: a tokenizer that continues a history by a damped random walk."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqtool.api import Batch, Estimates, Parts
from vqtool.parts.tasks.autoencode import Autoencode


class Walk(Autoencode):
    """`autoencode`, and paths that go back to the history's mean, noisy by its deviation."""

    def __init__(self, *, damping: float = 0.9, noise: float = 0.3) -> None:
        super().__init__()
        self.damping, self.noise = damping, noise

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """Forecasts of the trained horizon beside the reconstruction."""
        paths = self.forecast(parts, batch, batch["future"].shape[-1], samples=8, seeds=range(len(batch["x"])))
        coded = self.encode(parts, batch)
        return Estimates(
            {"reconstruction": self.decode(parts, coded, batch)},
            {
                "forecast": paths.median(1).values,
                "paths": paths,
                "forecasts": {"mean": paths.mean(1)},
                "codes": coded["codes"],
                "codebook_sizes": parts.quantizer.codebook_sizes,
            },
        )

    def forecast(self, parts: Parts, batch: Batch, steps: int, **how: Any) -> Tensor:
        """[B, S, C, steps]; a generator for each row and path, so that nothing depends on the batch."""
        assert "future" not in batch or batch["future"].shape[-1] == steps
        x = batch["x"]
        mean, std = x.mean(-1), x.std(-1)
        samples = 1 if how.get("greedy") else how["samples"]
        noise = 0.0 if how.get("greedy") else self.noise * how.get("temperature", 1.0)
        results = []
        for row, seed in enumerate(how["seeds"]):
            paths = []
            for path in range(samples):
                draw = torch.from_numpy(
                    np.random.default_rng([seed, path]).standard_normal((steps, x.shape[1]))
                ).float()
                state = (x[row, :, -1] - mean[row]) / std[row]
                walk = []
                for step in range(steps):
                    state = self.damping * state + noise * draw[step]
                    walk.append(state * std[row] + mean[row])
                paths.append(torch.stack(walk, -1))
            results.append(torch.stack(paths))
        return torch.stack(results)

"""From the codewords of a history straight to the whole horizon, with the change of mean and scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from vqtool.api import Batch, Better, Condition, DataSpec, Estimates, Make, Parts, Renamed, Task
from vqtool.sequence.chain import decode, encode
from vqtool.sequence.forecasting import build_forecaster, rollout

WIDTH = math.sqrt(0.5)  # the scale of the Laplace distribution of deviation 1
SOFT_ONE = math.log(math.e - 1)  # softplus of this is 1


class ForecastDirect(Task):
    """Trains a regressor from the codewords of a frozen tokenizer to all steps ahead at once.

    As in TOTEM (arXiv 2402.16412, appendix on forecasting) it predicts a shape, and how mean and scale differ from the
    norm's prediction: forecast = centre + scale (shape (1 + d_scale) + d_mean). It reads the normalised
    history too. For each step it also predicts a width: the forecast's quantiles are those of a Laplace distribution
    around it, which starts as wide as the norm's scale. Provides `x_hat` and `target` [B, C, H], the forecast and the
    truth in the signal's own units, and `quantiles` [B, Q, C, H] at `levels` [Q], whose gradient does not move the
    forecast.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"norm", "encoder", "quantizer", "decoder", "regressor"})
    trains: ClassVar[tuple[str, ...]] = ("regressor",)
    provides: ClassVar[frozenset[str]] = frozenset({"x_hat", "target", "quantiles", "levels"})
    headline: ClassVar[Mapping[str, Better]] = {"output.snr_db": "max"}

    def __init__(
        self,
        *,
        correction_scale: Annotated[
            float,
            Gt(0),
            Renamed("pace"),
            Doc("scale of the learned correction of the norm's forecast; small where that forecast is good"),
        ] = 1.0,
    ) -> None:
        self.correction_scale = correction_scale

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire the tokenizer's parts, then the regressor."""
        norm, encoder, _ = build_forecaster(make, spec)
        self.channels = spec.channels
        self.horizon = min(spec.fields["future"].shape[-1], norm.max_horizon or math.inf)
        self.levels = tuple(spec.metadata.get("quantiles", (0.1, 0.5, 0.9)))
        tokens = -(-spec.length // encoder.stride)
        outputs = spec.channels * (2 * self.horizon + 2)
        make("regressor", spec.channels * spec.length, tokens * encoder.dim, outputs)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """One look at the history, and the whole future."""
        point, width = self._predict(parts, batch)
        levels = torch.tensor(self.levels, device=point.device)
        return {
            "x_hat": point,
            "target": batch["future"][..., : self.horizon],
            "quantiles": point.detach()[:, None] + width[:, None] * quantile_of_laplace(levels)[:, None, None],
            "levels": levels,
        }

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """The forecast and its quantiles, and the history reconstructed."""
        coded = encode(parts, batch)
        found = self.step(parts, batch)
        return Estimates(
            {"reconstruction": decode(parts, coded["codes"], coded["sent"], batch)},
            {
                "forecast": found["x_hat"],
                "quantiles": found["quantiles"],
                "codes": coded["codes"],
                "codebook_sizes": parts.quantizer.codebook_sizes,
            },
        )

    def forecast(
        self,
        parts: Parts,
        batch: Batch,
        steps: int,
        *,
        samples: int = 1,
        greedy: bool = False,
        seeds: Sequence[int] | None = None,
        **how: Any,
    ) -> Tensor:
        """[B, S, C, steps]: S even quantiles, each through all steps; nothing is drawn. S = 1: the forecast itself."""
        samples = 1 if greedy else samples
        return self.quantiles(parts, batch, steps, [(k + 1) / (samples + 1) for k in range(samples)])

    def quantiles(self, parts: Parts, batch: Batch, steps: int, levels: Sequence[float]) -> Tensor:
        """[B, Q, C, steps]: the quantiles themselves, each continued from itself beyond the trained steps."""
        samples, rows = len(levels), len(batch["x"])
        off = quantile_of_laplace(torch.tensor(levels, dtype=torch.float64)).to(batch["x"])

        def block(batch: Batch, number: int) -> Tensor:
            point, width = self._predict(parts, batch)
            times = samples * rows // len(point)
            point, width = (value.repeat_interleave(times, dim=0) for value in (point, width))
            return point + width * off.repeat(rows)[:, None, None]

        return rollout(parts.norm, batch, steps, samples, block)

    def encode(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`codes` [B, T, Q] of the history and the side information `sent` [B, S]."""
        return encode(parts, batch)

    def decode(self, parts: Parts, coded: dict[str, Tensor], batch: Batch) -> Tensor:
        """[B, C, L] in the signal's own units."""
        return decode(parts, coded["codes"], coded["sent"], batch)

    def _predict(self, parts: Parts, batch: Batch) -> tuple[Tensor, Tensor]:
        """Forecast and width [B, C, H] in the signal's own units."""
        with torch.no_grad():
            normed, _ = parts.norm(batch)
            words = parts.quantizer(parts.encoder(normed["x"])).hard
            centre, scale = parts.norm.future_stats(batch, self.horizon)
        output = parts.regressor(Condition(normed["x"].flatten(1)), words).unflatten(1, (self.channels, -1))
        shape, width, change = output.split((self.horizon, self.horizon, 2), dim=-1)
        moved = self.correction_scale * (shape * (1 + change[..., :1]) + change[..., 1:])
        return centre + scale * moved, WIDTH * scale * F.softplus(width + SOFT_ONE)


def quantile_of_laplace(share: Tensor) -> Tensor:
    """The quantile function of the Laplace distribution of scale 1."""
    off = share - 0.5
    return -off.sign() * torch.log1p(-2 * off.abs())

"""A closed-form linear forecast as the frame of the future: its codes carry the residual only."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from torch import Tensor

from vqtool.api import Batch, DataSpec, Rows
from vqtool_forecast.effects import features, fit_effects
from vqtool_forecast.norms.revin import TINY, RevIn, instance_stats
from vqtool_forecast.ridge import fit_prior
from vqtool_forecast.windows import SeriesRows, require_future

WINDOWS = 8192  # of the training rows, evenly spread, that the residual's size is taken from
CHUNK = 1024
NORMAL = 1.2533  # the deviation of a normal distribution over its mean absolute value


class RidgeNorm(RevIn):
    """Histories as `revin` frames them; futures as the residual of a linear forecast, over its usual size.

    The forecast is ridge regression from the history, less its last value, drawn to the seasonal mean, plus (with
    `profile`) a profile for every series and place in the season, in units of the history's range. It is homogeneous:
    of a history a x + b it is a f + b. Series that the training rows did not have get the forecast without a profile.
    Where the data have columns beside the series, ridge regression on them adds what they explain of the residual (see
    `vqtool_forecast.effects`), in units of the series' training rows; nothing where that saves nothing in validation.
    The usual size of the residual is, for every step ahead, that of the training windows in units of their deviation.
    """

    plain: Tensor
    weight: Tensor
    shape: Tensor
    spread: Tensor
    effect: Tensor
    own_effect: Tensor
    reads_covariates = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        profile: Annotated[bool, Doc("learn what every series does at every place in its season")] = True,
    ) -> None:
        require_future(spec, "the norm `ridge`")
        super().__init__(spec)
        horizon, self.season, self.profile = int(spec.metadata["horizon"]), int(spec.metadata["season"]), profile
        self.max_horizon = horizon
        self.register_buffer("plain", torch.zeros(spec.length, horizon))
        self.register_buffer("weight", torch.zeros(spec.length, horizon))
        self.register_buffer("shape", torch.zeros(len(spec.metadata["ids"]), self.season, horizon))
        self.register_buffer("spread", torch.ones(horizon))
        self.columns = [len(spec.metadata.get(name) or ()) for name in ("known", "observed")]
        if any(self.columns):
            self.register_buffer("effect", torch.zeros(2 * sum(self.columns), horizon))
            self.register_buffer("own_effect", torch.zeros(len(spec.metadata["ids"]), *self.effect.shape))

    @torch.no_grad()
    def fit(self, rows: Rows) -> None:
        """The linear forecast of the training windows; the validation windows choose its penalties."""
        assert isinstance(rows, SeriesRows)
        fitted = fit_prior(rows, self.spec.metadata["horizons"], profile=self.profile)
        for buffer, value in zip((self.plain, self.weight, self.shape), fitted, strict=True):
            buffer.copy_(value)
        self.spread.fill_(1)
        if any(self.columns):
            self.effect.zero_()
            self.own_effect.zero_()
            known, observed = self.columns
            found = fit_effects(rows, self.spec.metadata["horizons"], known, observed, self._features_and_rest)
            self.effect.copy_(found[0])
            self.own_effect.copy_(found[1])
        total, n = torch.zeros_like(self.spread), 0
        for some in torch.arange(0, len(rows), max(1, len(rows) // WINDOWS)).split(CHUNK):
            batch = rows.__getitems__(some.tolist())
            centre, deviation = self.future_stats(batch, len(self.spread))
            error = ((batch["future"] - centre) / deviation).abs()
            total += error.sum((0, 1))
            n += error[..., 0].numel()
        self.spread.copy_((NORMAL * total / n).clamp_min(TINY))

    def future_stats(self, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
        """The linear forecast, and the deviation that futures usually have from it; at most `max_horizon` steps."""
        x = batch["x"]
        _, deviation, low, high = instance_stats(x)
        deviation, span = deviation.to(x.dtype), (high - low).to(x.dtype)
        known, profile = self._profile(batch, steps)  # [B, C], [B, C, steps]
        last = x[..., -1:]
        weighed = torch.where(known[..., None], (x - last) @ self.weight[:, :steps], (x - last) @ self.plain[:, :steps])
        centre = last + weighed + span * profile
        if any(self.columns):
            centre = centre + self._effect(batch, known, steps)
        return centre, deviation * self.spread[:steps]

    def append(self, batch: Batch, values: Tensor) -> Batch:
        """The place in the season moves along with the history."""
        moved = super().append(batch, values)
        if "phase" in batch:
            moved["phase"] = (batch["phase"] + values.shape[-1]) % self.season
        n = values.shape[-1]
        if "known" in batch:
            moved["known"] = batch["known"][..., n:]
        if "observed" in batch:  # nothing new is known of these
            past = batch["observed"]
            moved["observed"] = torch.cat([past, past[..., -1:].expand(*past.shape[:-1], n)], -1)[..., n:]
        return moved

    def _features(self, batch: Batch, known: Tensor, steps: int) -> Tensor:
        """See `features`; a column's linear forecast is the series' own, without the profile."""

        def ahead_of(past: Tensor) -> Tensor:
            last = past[..., -1:]
            away = past - last
            weighed = torch.where(known[..., None, None], away @ self.weight[:, :steps], away @ self.plain[:, :steps])
            return last + weighed

        fields = [name for name, count in zip(("known", "observed"), self.columns, strict=True) if count]
        return features(batch, fields, steps, ahead_of)

    def _effect(self, batch: Batch, known: Tensor, steps: int) -> Tensor:
        """[B, C, steps] what the columns add."""
        x, found = batch["x"], self._features(batch, known, steps)
        series = batch["series"][:, None] if "series" in batch else torch.arange(x.shape[1], device=x.device)
        series = series.expand(x.shape[:2])
        own = self.own_effect[series.clamp(min=0), :, :steps] * (series >= 0)[..., None, None]
        return (found * (self.effect[:, :steps] + own)).sum(-2)

    def _features_and_rest(self, batch: Batch, future: Tensor) -> tuple[Tensor, Tensor]:
        """[n, F, H], and what the linear forecast leaves [n, H], of windows of one series."""
        steps = future.shape[-1]
        known, _ = self._profile(batch, steps)
        return self._features(batch, known, steps)[:, 0], future - self.future_stats(batch, steps)[0][:, 0]

    def _profile(self, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
        """Which rows are of known series, and their profiles; zero for the others."""
        x = batch["x"]
        if "phase" not in batch or not self.profile:
            return x.new_zeros(x.shape[:2], dtype=torch.bool), x.new_zeros(*x.shape[:2], steps)
        series = batch["series"][:, None] if "series" in batch else torch.arange(x.shape[1], device=x.device)
        phase = batch["phase"][:, None]
        known = ((series >= 0) & (phase >= 0)).expand(x.shape[:2])
        found = self.shape[series.clamp(min=0), phase.clamp(min=0), :steps].expand(*x.shape[:2], steps)
        return known, found * known[..., None]

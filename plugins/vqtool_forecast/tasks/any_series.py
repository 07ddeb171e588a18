"""Forecasts of series never trained on: quantiles from closed forms, and tokens for the paths through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_doc import Doc
from annotated_types import Gt, Interval
from torch import Tensor

from vqtool.api import Batch, Better, Condition, DataSpec, Estimates, Make, Parts, Task
from vqtool.sequence.forecasting import path_seeds
from vqtool.sequence.prior_chain import adopt_codebooks, token_figures
from vqtool_forecast.zero_shot import head
from vqtool_forecast.zero_shot.closed_forms import NAMES

SHOWN = {"naive": "naive", "seasonal-naive": "seasonal-naive", "theta": "theta", "ridge": "autoregression"}
FEW = 8  # paths that say nothing of their own spread
NEAR = 6.0  # steps ahead are drawn for training with a chance of 1 / (this and the step)
STEPWISE = ("forms", "same", "ahead", "future")


# kind: any-series-quantiles
class AnySeriesQuantiles(Task):
    """Trains a regressor that weighs closed forms of each history, step by step, and sets quantiles around them.

    It reads the last values, the closed forms' forecasts and past errors, and what kind of series it is. Provides
    `quantiles` [B, Q, 1, J] at `levels` [Q] and `target` [B, 1, J] of J steps drawn anew for every batch, in units of
    each history's scale; zero, both, where the future is not known.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"norm", "regressor"})
    trains: ClassVar[tuple[str, ...]] = ("regressor",)
    provides: ClassVar[frozenset[str]] = frozenset({"quantiles", "levels", "target"})
    headline: ClassVar[Mapping[str, Better]] = {"relative.mae": "min", "coverage.80": None}
    role: ClassVar[str] = "regressor"
    forms: ClassVar[bool] = True

    def __init__(self, *, drawn: Annotated[int, Gt(0), Doc("steps ahead of each training row that are looked at")] = 8):
        self.drawn = drawn

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire the one network."""
        make("norm", spec, optional=True)
        make(self.role, head.OF_SERIES, head.OF_STEP, head.OUTPUTS)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """A few steps of each row in training, all in validation."""
        network = parts[self.role]
        if network.training:
            near = 1 / (NEAR + torch.arange(batch["future"].shape[-1]))
            some = torch.multinomial(near, min(self.drawn, len(near))).sort().values.to(batch["future"].device)
            batch = {name: value[..., some] if name in STEPWISE else value for name, value in batch.items()}
        found, _ = predicted(network, batch, forms=self.forms)
        future = batch["future"][:, 0]
        known = ~future.isnan()
        levels = torch.tensor(head.LEVELS, device=found.device)
        return {
            "quantiles": (found * known[..., None]).transpose(1, 2)[:, :, None],
            "target": future.nan_to_num()[:, None],
            "levels": levels,
            "figures": figures(found, batch),
        }

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """Nothing that the general metrics read: the figures of the steps are reported instead."""
        return Estimates()


# kind: any-series-plain
class AnySeriesPlain(AnySeriesQuantiles):
    """The same from the last values and the last season alone: a plain network to compare with."""

    uses: ClassVar[frozenset[str]] = frozenset({"norm", "plain_regressor"})
    trains: ClassVar[tuple[str, ...]] = ("plain_regressor",)
    role: ClassVar[str] = "plain_regressor"
    forms: ClassVar[bool] = False


# kind: any-series-tokens
class AnySeriesTokens(Task):
    """Trains a tokenizer of how futures run through the quantiles that were forecast for them.

    The future is coded as normal scores of its place among the quantiles: level and spread are out of it, and what is
    left is how one step goes with the next. Provides `x_hat` and `target` [B, 1, steps], zero where the future is not
    known, `quantized` and `codes` [B, T, Q].
    """

    uses: ClassVar[frozenset[str]] = frozenset({"norm", "regressor", "encoder", "quantizer", "decoder"})
    trains: ClassVar[tuple[str, ...]] = ("encoder", "quantizer", "decoder")
    provides: ClassVar[frozenset[str]] = frozenset({"x_hat", "target", "quantized", "codes"})

    def __init__(self, *, steps: Annotated[int, Gt(0), Doc("steps ahead in a window of tokens")] = 24) -> None:
        self.steps = steps

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire the network of the quantiles, then the tokenizer."""
        make("norm", spec, optional=True)
        make("regressor", head.OF_SERIES, head.OF_STEP, head.OUTPUTS)
        encoder = make("encoder", 1, self.steps, 0)
        make("quantizer", encoder.dim)
        make("decoder", encoder.dim, 1, self.steps, encoder.stride, 0)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """The scores of the known future through the tokenizer."""
        scores, known = places(parts, batch, self.steps)
        quantized = parts.quantizer(parts.encoder(scores), known)
        mask = known.repeat_interleave(parts.encoder.stride, 1)[:, None]
        x_hat = parts.decoder(torch.where(known[..., None], quantized.z, 0.0))
        return {"x_hat": x_hat * mask, "target": scores * mask, "quantized": quantized, "codes": quantized.codes}

    def latents(self, parts: Parts, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What the encoder gives of the scores, and which tokens are known in full."""
        scores, known = places(parts, batch, self.steps)
        return parts.encoder(scores), known

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """The codes of the known futures."""
        scores, known = places(parts, batch, self.steps)
        codes = parts.quantizer(parts.encoder(scores), known).codes
        return Estimates({}, {"codes": codes, "codebook_sizes": parts.quantizer.codebook_sizes})


# kind: any-series-paths
class AnySeriesPaths(AnySeriesTokens):
    """Trains a prior over the tokens of the future, given what the network of the quantiles makes of the history.

    With it the model is whole: `quantiles` are means of the two networks', and each sample path is a sequence of tokens
    drawn from the prior, whose scores say where among the quantiles it runs. So every step has the quantiles that were
    forecast, and sums and extremes of several steps have honest ones, too. Provides `logits` [B, T, Q, K] and `codes`
    [B, T, Q].
    """

    uses: ClassVar[frozenset[str]] = AnySeriesTokens.uses | {"prior", "plain_regressor"}
    trains: ClassVar[tuple[str, ...]] = ("prior",)
    provides: ClassVar[frozenset[str]] = frozenset({"logits", "codes"})
    headline: ClassVar[Mapping[str, Better]] = {"tokens.accuracy": "max"}

    def __init__(
        self,
        *,
        steps: Annotated[int, Gt(0), Doc("steps ahead in a window of tokens")] = 24,
        plain_share: Annotated[float, Interval(ge=0, le=1), Doc("weight of the plain network in the quantiles")] = 0.3,
    ) -> None:
        super().__init__(steps=steps)
        self.plain_share = plain_share

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire the tokenizer, the prior over its tokens, and the plain network."""
        super().build(make, spec)
        encoder, quantizer, regressor = (make(role) for role in ("encoder", "quantizer", "regressor"))
        self.horizon = spec.fields["future"].shape[-1]
        tokens = self.steps // encoder.stride
        make("prior", tuple(quantizer.codebook_sizes), tokens, regressor.dim, quantizer.vectors())
        make("plain_regressor", head.OF_SERIES, head.OF_STEP, head.OUTPUTS)

    def begin(self, parts: Parts) -> None:
        """The prior reads the trained codebooks."""
        adopt_codebooks(parts)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """Each token of the known future, given those before it."""
        with torch.no_grad():
            scores, known = places(parts, batch, self.steps)
            codes = parts.quantizer(parts.encoder(scores), known).codes
            condition = summary(parts, batch)
        logits = parts.prior(codes.clamp_min(0), condition)
        return {"logits": logits, "codes": codes, "figures": token_figures(logits, codes)}

    def quantiles(self, parts: Parts, batch: Batch, steps: int, levels: Sequence[float]) -> Tensor:
        """[B, Q, 1, steps]: those of the networks; straight between their levels over their normal scores."""
        found = self._blended(parts, batch, steps)
        z = head.scores(tuple(levels)).to(found)[None, :, None].expand(1, -1, steps)
        return head.at_scores(found, z).maximum(batch["floor"][:, None, None])[:, :, None]

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
        """Sample paths [B, S, 1, steps]; see `Forecasts`. The k-th lowest of S paths is the quantile k / (S + 1)."""
        if greedy or how.get("temperature") == 0:
            return self.quantiles(parts, batch, steps, [0.5])
        rows = len(batch["x"])
        seeds = torch.randint(2**62, (rows,)).tolist() if seeds is None else list(seeds)
        z = self._scores(parts, batch, steps, samples, seeds, how)
        if samples > 1:  # every step has all its quantiles once
            levels = head.scores(tuple((k + 1) / (samples + 1) for k in range(samples))).to(z)
            z = levels[z.argsort(1).argsort(1)]
        found = head.at_scores(self._blended(parts, batch, steps), z)
        return found.maximum(batch["floor"][:, None, None])[:, :, None]

    def compare(self, parts: Parts, batch: Batch, steps: int) -> dict[str, Tensor]:
        """Forecasts [B, 1, steps] to compare with: closed forms by name, and the plain network's (`mlp`)."""
        each = {name: batch["forms"][:, None, NAMES.index(form), :steps] for name, form in SHOWN.items()}
        plain = self._predict(parts.plain_regressor, batch, steps, forms=False)
        return {**each, "mlp": plain[:, None, :, head.MIDDLE]}

    def explain(self, parts: Parts, batch: Batch, steps: int) -> tuple[tuple[str, ...], Tensor]:
        """The closed forms and `mlp`, and the weight [B, forms + 1] of each in the medians, the mean over the steps."""
        _, weights = predicted(parts.regressor, near_part(batch, steps, self.horizon), forms=True)
        each = (1 - self.plain_share) * weights.mean(1)
        return (*NAMES, "mlp"), torch.cat([each, torch.full_like(each[:, :1], self.plain_share)], 1)

    def _blended(self, parts: Parts, batch: Batch, steps: int) -> Tensor:
        """Quantiles [B, steps, Q]: the mean of both networks', level by level."""
        found = self._predict(parts.regressor, batch, steps, forms=True)
        plain = self._predict(parts.plain_regressor, batch, steps, forms=False)
        return found.lerp(plain, self.plain_share)

    def _predict(self, network: Any, batch: Batch, steps: int, *, forms: bool) -> Tensor:
        """Quantiles [B, steps, Q]; beyond the trained steps their distances grow on as they grew."""
        found, _ = predicted(network, near_part(batch, steps, self.horizon), forms=forms)
        if steps <= self.horizon:
            return found
        middle = found[..., head.MIDDLE, None]
        width = (found[..., -1] - found[..., 0])[:, : self.horizon]
        first, second = (part.mean(1) for part in width.chunk(2, 1))
        power = (second / first.clamp_min(1e-9)).log2().clamp(0, 0.6)[:, None, None]
        grown = (torch.arange(1, steps + 1, device=found.device) / self.horizon).clamp_min(1)[None, :, None] ** power
        return middle + (found - middle) * grown

    def _scores(
        self, parts: Parts, batch: Batch, steps: int, samples: int, seeds: list[int], how: Mapping[str, Any]
    ) -> Tensor:
        """[B, S, steps] where among the quantiles each path runs: drawn tokens, decoded, and what tokens leave out."""
        condition, rows, tokens = summary(parts, batch), len(batch["x"]), self.steps // parts.encoder.stride
        codes = parts.prior.sample(rows, condition, paths=samples, seeds=path_seeds(seeds, samples, 0), **how)
        spread = Condition(condition.vector.repeat_interleave(samples, 0))
        block = 1
        while codes.shape[1] * parts.encoder.stride < steps:
            each = path_seeds(seeds, samples, block)
            past = codes[:, -(tokens // 2) :]
            more = parts.prior.sample(len(codes), spread, prefix=past, seeds=each, **how)
            codes, block = torch.cat([codes, more[:, past.shape[1] :]], 1), block + 1
        windows = [parts.decoder(parts.quantizer.decode(part))[:, 0] for part in codes.split(tokens, 1)]
        z = torch.cat(windows, 1)[:, :steps].unflatten(0, (rows, samples))
        left = (1 - z.var(1, keepdim=True)).clamp(0.02, 1).sqrt() if samples >= FEW else torch.tensor(0.4)
        noise = torch.stack([self._noise(seed, samples, steps) for seed in seeds])
        return z + left * noise.to(z)

    def _noise(self, seed: int, samples: int, steps: int) -> Tensor:
        """[S, steps] normal, window by window: those of fewer steps are the first of many."""
        generator = torch.Generator().manual_seed(seed)
        windows = [torch.randn(samples, self.steps, generator=generator) for _ in range(-(-steps // self.steps))]
        return torch.cat(windows, 1)[:, :steps]


def predicted(network: Any, batch: Batch, *, forms: bool) -> tuple[Tensor, Tensor]:
    """Quantiles [B, steps, Q] and weights [B, steps, forms]; see `head.quantiles`."""
    condition = Condition(head.of_series(batch, forms=forms))
    return head.quantiles(batch, network(condition, head.of_steps(batch, forms=forms)), forms=forms)


def near_part(batch: Batch, steps: int, horizon: int) -> Batch:
    """The first `steps` of a batch; where in time and season they lie is never said to be beyond `horizon`."""
    near = {name: value[..., :steps] if name in STEPWISE else value for name, value in batch.items()}
    if steps > horizon:
        ahead = near["ahead"].clone()
        for row in (0, 1, 4):  # these grow with the steps
            ahead[:, row] = ahead[:, row].minimum(ahead[:, row, horizon - 1 : horizon])
        near["ahead"] = ahead
    return near


def summary(parts: Parts, batch: Batch) -> Condition:
    """What the network of the quantiles makes of the history."""
    return Condition(parts.regressor.summary(head.of_series(batch, forms=True)))


@torch.no_grad()
def places(parts: Parts, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
    """Normal scores [B, 1, steps] of the future among its quantiles, and which tokens [B, T] are known in full."""
    found, _ = predicted(parts.regressor, near_part(batch, steps, steps), forms=True)
    scores = head.score_of(found, batch["future"][:, 0, :steps])
    known = ~scores.unflatten(1, (-1, parts.encoder.stride)).isnan().any(-1)
    return scores.nan_to_num()[:, None], known


@torch.no_grad()
def figures(found: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The median's absolute error over that of the seasonal naive forecast, and the share in the 80 % interval."""
    future = batch["future"][:, 0]
    known = ~future.isnan()
    truth = future.nan_to_num()
    off, naive = (((guess - truth).abs() * known).sum() for guess in
                  (found[..., head.MIDDLE], batch["forms"][:, head.PLAIN]))  # fmt: skip
    low, high = (found[..., head.LEVELS.index(level)] for level in (0.1, 0.9))
    inside = ((low <= truth) & (truth <= high) & known).sum() / known.sum().clamp_min(1)
    return {"relative.mae": off / naive.clamp_min(1e-9), "coverage.80": inside}

"""A mixture of codes by distance: sharpened until it is the nearest code alone, or beside the nearest code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from annotated_doc import Doc
from annotated_types import Gt, Interval
from torch import Tensor

from vqtool.quantizers.core.checked import preset
from vqtool.quantizers.core.composable import Coded, Layout
from vqtool.quantizers.core.entropy import confidence_and_diversity
from vqtool.quantizers.estimators.straight_through import AddGradient, mean_of
from vqtool.quantizers.vq import AVERAGE, VQ, Decay, First, Revive, Size, Weights

Relative = Annotated[float, Gt(0), Doc("of the distribution, relative to the codes' own spread")]


# kind: soft
class Soft(VQ):
    """A mixture of codes by distance: sharpened until it is the nearest code alone, or beside the nearest code.

    Soft-to-hard quantization (Agustsson et al. 2017, arXiv 1704.00648): q = softmax(-mean((z - e)^2) / temperature).

        self.vq = Soft(64, codebook_size=256)
        self.vq.temperature = 0.5                # sharpen it while training; `self.vq.hard` hardens what flows on

    With learned codes the mixture sum_k q_k e_k flows on in training, moved towards the nearest code by the share
    `hard`; with `hard` = 1 the value is the code itself, the gradient still that of the mixture. In evaluation it is
    always the code: what is measured is what is deployed; the mixture stands in `Quantized.soft`.
    With codes by moving average ("ema") the nearest code flows on, straight-through, and the temperature is relative to
    the codes' mean squared distance from their centre, per feature; `Quantized.probs` and `soft`, for channels and
    losses, pass their gradient to the latents. The N x K probabilities are held in memory.
    Terms: `commitment` and, of learned codes, `codebook`, the mean of (z - code)^2, as in `vq`, and `consistency`, the
    mean of (mixture - code)^2 with the code held fixed; `confidence`, the mean entropy of a token's mixture in nats;
    `diversity`, log K minus the entropy of the mean mixture in nats. All are to be made small.
    """

    terms = frozenset({"commitment", "confidence", "diversity"})
    knobs = frozenset({"temperature", "hard"})

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *,
        codebook_size: Size = 256,
        codes: Annotated[Literal["learned", "ema"], Doc("what moves the codes: losses, or their inputs")] = "learned",
        temperature: Annotated[float, Gt(0), Doc("of the mixture; distances are means over the features")] = 1.0,
        hard: Annotated[float, Interval(ge=0, le=1), Doc("share of the nearest code in what flows on")] = 0.0,
        decay: Decay = 0.99, revive_below: Revive = 0.1, start: First = "kmeans",
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, codebook_size=codebook_size, codes=codes, decay=decay,
                         revive_below=revive_below, start=start)  # fmt: skip
        self.temperature, self.hard = temperature, hard
        self.mixes = codes == "learned"
        self.knobs = self.announced({"codes": codes})[1]
        self.straight_through = not self.mixes

    @staticmethod
    def _own_terms(codes: object) -> frozenset[str]:
        return frozenset() if codes == "ema" else frozenset({"codebook", "consistency"})

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int], codes: Tensor | None = None) -> Coded:
        coded = super().coded(tokens, valid, shape, codes)
        table = self.codebook.codes
        temperature: float | Tensor = self.temperature
        if not self.mixes:
            spread = (table - table.mean(0)).square().mean().clamp_min(torch.finfo(table.dtype).tiny)
            temperature = temperature * spread
        probs = torch.softmax(self.codebook.scores(tokens, temperature), 1)
        probs = probs if valid is None else probs.masked_fill(~valid[:, None], 0)
        confidence, diversity = confidence_and_diversity(probs, valid)
        coded.terms |= {"confidence": confidence, "diversity": diversity}
        coded.probs, coded.soft = probs[:, None], probs @ table
        if self.mixes:
            coded.hard = coded.value
            self.finished(tokens, coded, valid)
            coded.terms["consistency"] = mean_of((coded.soft - coded.hard).square().sum(), coded.n_values)
            coded.value = self.mix(coded.soft, coded.hard) if self.training else coded.hard
        return coded

    def mix(self, soft: Tensor, value: Tensor) -> Tensor:
        """What flows on in training."""
        if self.hard == 0:
            return soft
        target = value if self.hard == 1 else (soft + self.hard * (value - soft)).detach()
        return AddGradient.apply(soft, target) if soft.requires_grad else target

    @classmethod
    def announced(cls, options: Mapping[str, object]) -> tuple[frozenset[str], frozenset[str]]:
        codes = options.get("codes", "ema")
        return cls.terms | cls._own_terms(codes), cls.knobs - (frozenset({"hard"}) if codes == "ema" else frozenset())


# kind: soft-ema
class SoftEMA(Soft):
    """One codebook that follows the mean of its inputs, and the distribution over codes that each input stands for.

    `soft` with codes by moving average.
    """

    terms = frozenset({"commitment", "confidence", "diversity"})
    knobs = frozenset({"temperature"})
    __init__ = preset(
        Soft, {"codebook_size": 256, "temperature": 0.05, **AVERAGE}, {"temperature": Relative}, codes="ema"
    )

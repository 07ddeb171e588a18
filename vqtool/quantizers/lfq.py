"""Lookup-free quantization: each of a few features is replaced by its sign."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Gt, Interval
from torch import Tensor

from vqtool.quantizers.core.composable import Coded, Composable, Layout
from vqtool.quantizers.core.entropy import confidence_and_diversity
from vqtool.quantizers.estimators.straight_through import unit
from vqtool.quantizers.vq import Weights

JOINT = 8  # bits whose joint distribution is written out: 2^8 numbers per token


class LFQ(Composable):
    """LFQ of MAGVIT-v2 (Yu et al. 2023, arXiv 2310.05737, section 3.1): codes are the 2^bits corners of a cube.

        self.lfq = LFQ(64, bits=14, spherical=True)     # 16384 codes

    z -> W_in z -> signs, straight-through -> W_out. The linear maps are left out where the latent has `bits` features.
    `spherical`: features and corners have length one (BSQ, Zhao et al. 2024, arXiv 2406.07548).
    Terms: `commitment`, the mean of (feature - corner)^2; `confidence`, a token's entropy, and `diversity`, the entropy
    of uniform use less that of the codes in use, in nats; distributions softmax(-|feature - corner|^2 / temperature),
    whose codes are counted jointly over groups of up to 8 bits.
    """

    terms = frozenset({"commitment", "confidence", "diversity"})
    knobs = frozenset({"temperature"})
    nearest = False
    bounded = True
    places: Tensor

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *,
        bits: Annotated[int, Interval(ge=1, le=24), Doc("bits per token: 2^bits codes")] = 10,
        spherical: Annotated[bool, Doc("features and corners on the unit sphere")] = False,
        temperature: Annotated[float, Gt(0), Doc("of the distributions behind `confidence` and `diversity`")] = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, inside=0 if dim == bits else bits, bias=True)
        self.codebook_sizes = (2**bits,)
        self.spherical, self.temperature = spherical, temperature
        self.size = bits**-0.5 if spherical else 1.0  # of a corner's coordinates
        self.straight_through = dim == bits and not spherical
        self.register_buffer("places", 2 ** torch.arange(bits), persistent=False)

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        features = unit(tokens) if self.spherical else tokens
        ones = features.detach() > 0
        value = torch.where(ones, self.size, -self.size).to(features.dtype)
        codes = (ones * self.places).sum(1)
        if valid is not None:
            codes, value = codes.masked_fill(~valid, -1), value.masked_fill(~valid[:, None], 0)
        confidence, diversity = self.entropies(features, valid)
        coded = Coded(codes[:, None], value, terms={"confidence": confidence, "diversity": diversity})
        if self.spherical:  # the gradient passes the normalisation
            self.finished(features, coded, valid)
        return coded

    def entropies(self, features: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """`confidence` and `diversity` in nats, summed over groups of bits."""
        plus = torch.sigmoid(features * (4 * self.size / self.temperature))  # (f + s)^2 - (f - s)^2 = 4 f s
        confidence = diversity = features.new_zeros(())
        for part in plus.split(JOINT, 1):
            joint = part.new_ones(part.shape[0], 1)
            for bit in part.unbind(1):
                joint = torch.cat([joint * (1 - bit[:, None]), joint * bit[:, None]], 1)
            if valid is not None:
                joint = joint.masked_fill(~valid[:, None], 0)
            own, spread = confidence_and_diversity(joint, valid)
            confidence, diversity = confidence + own, diversity + spread
        return confidence, diversity

    def decoded(self, codes: Tensor) -> Tensor:
        signs = torch.where((codes.clamp_min(0) & self.places) > 0, self.size, -self.size).to(self.own_dtype)
        return signs.masked_fill(codes < 0, 0)

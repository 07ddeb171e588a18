"""Lookup-free quantization: each of a few features is replaced by its sign."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Gt, Interval
from torch import Tensor, nn

from vqtool.api import Quantized, Quantizer
from vqtool.nn.entropy import confidence_and_diversity
from vqtool.nn.straight_through import pass_on, squared_distance
from vqtool.nn.tokens import cleaned, entries, flat, own_precision

JOINT = 8  # bits whose joint distribution is written out: 2^8 numbers per token


class LFQ(Quantizer):
    """LFQ of MAGVIT-v2 (Yu et al. 2023, arXiv 2310.05737, section 3.1): codes are the 2^bits corners of a cube.

    z -> W_in z -> signs, straight-through -> W_out. The linear maps are left out where the latent has `bits` features.
    Terms: `commitment`, the mean of (feature - sign)^2; `confidence`, a token's entropy, and `diversity`, what the
    entropy of the codes in use lacks to uniform use, in nats; distributions softmax(-|feature - corner|^2 /
    temperature), whose codes are counted jointly over groups of up to 8 bits.
    """

    terms = frozenset({"commitment", "confidence", "diversity"})
    knobs = frozenset({"temperature"})
    straight_through = False
    nearest = False

    def __init__(
        self,
        dim: int,
        *,
        bits: Annotated[int, Interval(ge=1, le=24), Doc("bits per token: 2^bits codes")] = 10,
        temperature: Annotated[float, Gt(0), Doc("of the distributions behind `confidence` and `diversity`")] = 1.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (2**bits,)
        self.bits = bits
        self.temperature = temperature
        self.inwards: nn.Module = nn.Identity() if dim == bits else nn.Linear(dim, bits)
        self.outwards: nn.Module = nn.Identity() if dim == bits else nn.Linear(bits, dim)
        self.register_buffer("places", 2 ** torch.arange(bits), persistent=False)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        with own_precision(z):
            tokens, valid, not_finite = cleaned(*flat(z, mask))
            features = self.inwards(tokens)
            ones = features.detach() > 0
            signs = torch.where(ones, 1.0, -1.0)
            squares, pairs = squared_distance(features, signs, valid), entries(features, valid)
            inner, commitment = pass_on(features, signs, valid, squares, pairs)
            confidence, diversity = self.entropies(features, valid)
            codes, passed = (ones * self.places).sum(1), self.outwards(inner)
            if valid is not None:
                codes, passed = codes.masked_fill(~valid, -1), passed.masked_fill(~valid[:, None], 0)
            return Quantized(
                z=passed.view(z.shape),
                codes=codes.view(*z.shape[:2], 1),
                hard=passed.detach().view(z.shape),
                terms={"commitment": commitment, "confidence": confidence, "diversity": diversity},
                not_finite=not_finite,
            )

    def entropies(self, features: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """`confidence` and `diversity` in nats, summed over groups of bits."""
        plus = torch.sigmoid(features * (4 / self.temperature))  # (f + 1)^2 - (f - 1)^2 = 4 f
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

    def decode(self, codes: Tensor) -> Tensor:
        index = codes.reshape(-1).long()
        with own_precision(self.places):
            signs = torch.where((index.clamp_min(0)[:, None] & self.places) > 0, 1.0, -1.0)
            features = self.outwards(signs)
        return features.masked_fill((index < 0)[:, None], 0).view(*codes.shape[:2], self.dim)

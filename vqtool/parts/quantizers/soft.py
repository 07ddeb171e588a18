"""A mixture of codes by distance, sharpened step by step until it is the nearest code alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Gt, Interval
from torch import Tensor

from vqtool.api import Quantized, Quantizer
from vqtool.nn.codebook import Codebook, Found, Start
from vqtool.nn.codebook_loss import codebook_loss
from vqtool.nn.entropy import confidence_and_diversity
from vqtool.nn.kmeans import points_wanted
from vqtool.nn.mixture import mixture
from vqtool.nn.straight_through import Carry, pass_on, squared_distance
from vqtool.nn.tokens import cleaned, entries, flat, own_precision, starting_points


class Soft(Quantizer):
    """Soft-to-hard quantization (Agustsson et al. 2017, arXiv 1704.00648): q = softmax(-mean((z - e)^2) / temperature).

    In training the soft mixture sum_k q_k e_k flows on, moved towards the nearest code by the share `hard`; with
    `hard` = 1 the value is the code itself, the gradient still that of the mixture. In evaluation it is always the
    code: what is measured is what is deployed; the mixture stands in `Quantized.soft`. The N x K probabilities are a
    result here, so they are held in memory.
    Terms: `commitment` (moves the encoder only) and `codebook` (the codes only), the mean of (z - code)^2;
    `consistency`, the mean of (mixture - code)^2 with the code held fixed; `confidence`, the mean entropy of a token's
    mixture in nats; `diversity`, log K minus the entropy of the mean mixture in nats. All are to be made small.
    """

    terms = frozenset({"commitment", "codebook", "consistency", "confidence", "diversity"})
    knobs = frozenset({"temperature", "hard"})
    straight_through = False

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Annotated[int, Gt(1), Doc("codes in the codebook")] = 256,
        temperature: Annotated[float, Gt(0), Doc("of the mixture; distances are means over the features")] = 1.0,
        hard: Annotated[float, Interval(ge=0, le=1), Doc("share of the nearest code in what flows on")] = 0.0,
        start: Annotated[Start, Doc("first codes: k-means centres or random ones of the first inputs")] = "kmeans",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (codebook_size,)
        self.temperature = temperature
        self.hard = hard
        self.start: Start = start
        self.codebook = Codebook(codebook_size, dim, trained=True)

    @property
    def initialised(self) -> bool:
        return self.codebook.is_ready

    def initialise(self, z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        points = starting_points(z, mask, points_wanted(self.codebook_sizes[0]), generator)
        self.codebook.start(points, self.start, generator)

    def fed_codebooks(self, tokens: Tensor) -> Iterator[tuple[Codebook, Tensor]]:
        yield self.codebook, tokens

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        with own_precision(z):
            tokens, valid, not_finite = cleaned(*flat(z, mask, self.codebook.codes.dtype))
            found = self.codebook.search(tokens, valid)
            value = self.codebook.look_up(found.codes, found.valid).detach()
            probs = mixture(tokens, self.codebook.codes, self.temperature, found.valid)
            soft = probs @ self.codebook.codes
            passed = self.mix(soft, value) if self.training else value
            return Quantized(
                z=passed.view(z.shape),
                codes=found.codes.view(*z.shape[:2], 1),
                hard=value.view(z.shape),
                soft=soft.view(z.shape),
                probs=probs.view(*z.shape[:2], 1, *self.codebook_sizes),
                terms=self.all_terms(tokens, found, value, soft, probs),
                not_finite=not_finite,
            )

    def mix(self, soft: Tensor, value: Tensor) -> Tensor:
        """What flows on in training."""
        if self.hard == 0:
            return soft
        target = value if self.hard == 1 else (soft + self.hard * (value - soft)).detach()
        return Carry.apply(soft, target) if soft.requires_grad else target

    def all_terms(self, tokens: Tensor, found: Found, value: Tensor, soft: Tensor, probs: Tensor) -> dict[str, Tensor]:
        """The terms by name."""
        squares, pairs = squared_distance(tokens, value, found.valid), entries(tokens, found.valid)
        _, commitment = pass_on(tokens, value, found.valid, squares, pairs)
        confidence, diversity = confidence_and_diversity(probs, found.valid)
        number = pairs.clamp_min(1) if isinstance(pairs, Tensor) else max(pairs, 1)
        return {
            "commitment": commitment,
            "codebook": codebook_loss(self.codebook.codes, tokens, found, squares, pairs),
            "consistency": (soft - value).square().sum() / number,
            "confidence": confidence,
            "diversity": diversity,
        }

    def decode(self, codes: Tensor) -> Tensor:
        index = codes.reshape(-1).long()
        return self.codebook.look_up(index, index >= 0).view(*codes.shape[:2], self.dim)

    def vectors(self) -> tuple[Tensor, ...]:
        return (self.codebook.codes.detach(),)

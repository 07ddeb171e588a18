"""One codebook that follows the mean of its inputs, and the distribution over codes that each input stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from vqtool.api import CodebookStats, Quantized, Quantizer
from vqtool.nn.codebook import Codebook, Start
from vqtool.nn.entropy import confidence_and_diversity
from vqtool.nn.kmeans import points_wanted
from vqtool.nn.mixture import mixture
from vqtool.nn.moving_average import MovingCodebook
from vqtool.nn.straight_through import pass_on, squared_distance
from vqtool.nn.tokens import cleaned, entries, flat, own_precision, starting_points


class SoftEma(Quantizer):
    """`ema` that says its doubts: q = softmax(-mean((z - e)^2) / (temperature * spread)).

    `spread` is the codes' mean squared distance from their centre, per feature, so that a temperature means the same
    whatever the scale of the latents. The nearest code flows on, straight-through, codes move by moving average and
    are revived; `Quantized.probs` and `soft`, for channels and losses, pass their gradient to the latents.
    Terms: `commitment`, the mean of (z - code)^2; `confidence`, the mean entropy of a token's distribution (H_tok);
    `diversity`, log K minus the entropy of the mean distribution (log K - H_use), in nats. All are to be made small.
    """

    terms = frozenset({"commitment", "confidence", "diversity"})
    knobs = frozenset({"temperature"})

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Annotated[int, Gt(1), Doc("codes in the codebook")] = 256,
        temperature: Annotated[float, Gt(0), Doc("of the distribution, relative to the codes' own spread")] = 0.05,
        decay: Annotated[float, Interval(ge=0, lt=1), Doc("share of the past in the moving average, per step")] = 0.99,
        revive_below: Annotated[float, Ge(0), Doc("revive codes used less than this share of uniform use")] = 0.1,
        start: Annotated[Start, Doc("first codes: k-means centres or random ones of the first inputs")] = "kmeans",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (codebook_size,)
        self.temperature = temperature
        self.start: Start = start
        self.codebook = MovingCodebook(codebook_size, dim, decay=decay, revive_below=revive_below)

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
            value = self.codebook.look_up(found.codes, found.valid)
            squares = squared_distance(tokens, value, found.valid)
            passed, commitment = pass_on(tokens, value, found.valid, squares, entries(tokens, found.valid))
            codes = self.codebook.codes
            spread = (codes - codes.mean(0)).square().mean().clamp_min(torch.finfo(codes.dtype).tiny)
            probs = mixture(tokens, codes, self.temperature * spread, found.valid)
            confidence, diversity = confidence_and_diversity(probs, found.valid)
            return Quantized(
                z=passed.view(z.shape),
                codes=found.codes.view(*z.shape[:2], 1),
                hard=value.view(z.shape),
                soft=(probs @ codes).view(z.shape),
                probs=probs.view(*z.shape[:2], 1, *self.codebook_sizes),
                terms={"commitment": commitment, "confidence": confidence, "diversity": diversity},
                stats=(self.codebook.stats(tokens, found),) if self.training else (),
                not_finite=not_finite,
            )

    def decode(self, codes: Tensor) -> Tensor:
        index = codes.reshape(-1).long()
        return self.codebook.look_up(index, index >= 0).view(*codes.shape[:2], self.dim)

    def vectors(self) -> tuple[Tensor, ...]:
        return (self.codebook.codes.detach(),)

    def update(self, stats: Sequence[CodebookStats]) -> None:
        (only,) = stats
        self.codebook.update(only)

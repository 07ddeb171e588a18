"""One codebook whose codes follow the mean of their inputs, as a moving average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from vqtool.api import CodebookStats, Quantized, Quantizer
from vqtool.nn.codebook import Codebook, Start
from vqtool.nn.kmeans import points_wanted
from vqtool.nn.moving_average import MovingCodebook
from vqtool.nn.straight_through import pass_on, squared_distance
from vqtool.nn.tokens import entries, flat, own_precision, starting_points


class EMA(Quantizer):
    """VQ-VAE's quantizer (van den Oord et al. 2017): nearest code, straight-through, codes by moving average.

    Terms: `commitment`, the mean of (z - code)^2 over valid tokens and features; it moves the encoder only.
    """

    terms = frozenset({"commitment"})

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Annotated[int, Gt(1), Doc("codes in the codebook")] = 512,
        decay: Annotated[float, Interval(ge=0, lt=1), Doc("share of the past in the moving average, per step")] = 0.99,
        revive_below: Annotated[float, Ge(0), Doc("revive codes used less than this share of uniform use")] = 0.1,
        start: Annotated[Start, Doc("first codes: k-means centres or random ones of the first inputs")] = "kmeans",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (codebook_size,)
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
            tokens, real = flat(z, mask, self.codebook.codes.dtype)
            found = self.codebook.search(tokens, real)
            value = self.codebook.look_up(found.codes, found.valid)
            squares = squared_distance(tokens, value, found.valid)
            passed, commitment = pass_on(tokens, value, found.valid, squares, entries(tokens, found.valid))
            return Quantized(
                z=passed.view(z.shape),
                codes=found.codes.view(*z.shape[:2], 1),
                hard=value.view(z.shape),
                terms={"commitment": commitment},
                stats=(self.codebook.stats(tokens, found),) if self.training else (),
                not_finite=found.not_finite,
            )

    def decode(self, codes: Tensor) -> Tensor:
        index = codes.reshape(-1).long()
        return self.codebook.look_up(index, index >= 0).view(*codes.shape[:2], self.dim)

    def vectors(self) -> tuple[Tensor, ...]:
        return (self.codebook.codes.detach(),)

    def update(self, stats: Sequence[CodebookStats]) -> None:
        (only,) = stats
        self.codebook.update(only)

"""Groups of features, each with a codebook of its own that follows by moving average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import CodebookStats, Quantized, Quantizer
from vqtool.errors import VqtoolError
from vqtool.nn.codebook import Codebook, Start
from vqtool.nn.kmeans import points_wanted
from vqtool.nn.moving_average import MovingCodebook
from vqtool.nn.straight_through import pass_on, squared_distance
from vqtool.nn.tokens import entries, finite_rows, flat, own_precision, starting_points


class ProductEMA(Quantizer):
    """Product quantization (Jégou et al. 2011) with codes by moving average: `groups` x `codebook_size` give K^G.

    Terms: `commitment`, the mean of (z - code)^2 over valid tokens and features; it moves the encoder only.
    """

    terms = frozenset({"commitment"})

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Annotated[int, Gt(1), Doc("codes per group")] = 320,
        groups: Annotated[int, Ge(1), Doc("groups that the features are cut into")] = 2,
        decay: Annotated[float, Interval(ge=0, lt=1), Doc("share of the past in the moving average, per step")] = 0.99,
        revive_below: Annotated[float, Ge(0), Doc("revive codes used less than this share of uniform use")] = 0.1,
        start: Annotated[Start, Doc("first codes: k-means centres or random ones of the first inputs")] = "kmeans",
    ) -> None:
        super().__init__()
        if dim % groups:
            raise VqtoolError(
                f"`groups` = {groups} does not divide the latent width {dim}",
                hint="choose a divisor, or another encoder width",
            )
        self.dim = dim
        self.width = dim // groups
        self.codebook_sizes = (codebook_size,) * groups
        self.start: Start = start
        self.codebooks = nn.ModuleList(
            MovingCodebook(codebook_size, self.width, decay=decay, revive_below=revive_below) for _ in range(groups)
        )

    @property
    def initialised(self) -> bool:
        return all(book.is_ready for book in self.codebooks)

    def initialise(self, z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        points = starting_points(z, mask, points_wanted(self.codebook_sizes[0]), generator)
        for book, part in self.fed_codebooks(points):
            book.start(part, self.start, generator)

    def fed_codebooks(self, tokens: Tensor) -> Iterator[tuple[Codebook, Tensor]]:
        for book, part in zip(self.codebooks, tokens.split(self.width, 1), strict=True):
            yield book, part.contiguous()

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        with own_precision(z):
            tokens, real = flat(z, mask, self.codebooks[0].codes.dtype)
            finite = finite_rows(tokens.detach())  # one NaN takes its token out of every group
            counts = finite if real is None else real & finite
            found, values, stats = [], [], []
            for book, part in zip(self.codebooks, tokens.detach().split(self.width, 1), strict=True):
                found.append(book.search(part, counts))
                values.append(book.look_up(found[-1].codes, found[-1].valid))
                if self.training:
                    stats.append(book.stats(part, found[-1]))
            value, valid = torch.cat(values, 1), found[0].valid
            squares = squared_distance(tokens, value, valid)
            passed, commitment = pass_on(tokens, value, valid, squares, entries(tokens, valid))
            return Quantized(
                z=passed.view(z.shape),
                codes=torch.stack([f.codes for f in found], 1).view(*z.shape[:2], len(self.codebook_sizes)),
                hard=value.view(z.shape),
                terms={"commitment": commitment},
                stats=tuple(stats),
                not_finite=(~finite if real is None else real & ~finite).sum(),
            )

    def decode(self, codes: Tensor) -> Tensor:
        columns = codes.reshape(-1, codes.shape[-1]).long().unbind(1)
        parts = [book.look_up(c, c >= 0) for book, c in zip(self.codebooks, columns, strict=False)]
        known = torch.cat(parts, 1)
        return F.pad(known, (0, self.dim - known.shape[1])).view(*codes.shape[:2], self.dim)

    def vectors(self) -> tuple[Tensor, ...]:
        """Each group's codes with zeros where the other groups are."""
        left = range(0, self.dim, self.width)
        padded = ((at, self.dim - at - self.width) for at in left)
        return tuple(F.pad(b.codes.detach(), pad) for b, pad in zip(self.codebooks, padded, strict=True))

    def update(self, stats: Sequence[CodebookStats]) -> None:
        for book, part in zip(self.codebooks, stats, strict=True):
            book.update(part)

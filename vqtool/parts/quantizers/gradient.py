"""One codebook trained by its own loss, like every other weight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor

from vqtool.api import Quantized, Quantizer
from vqtool.nn.codebook import Codebook, Start
from vqtool.nn.codebook_loss import codebook_loss
from vqtool.nn.kmeans import points_wanted
from vqtool.nn.straight_through import pass_on, squared_distance
from vqtool.nn.tokens import entries, flat, own_precision, starting_points


class Gradient(Quantizer):
    """VQ-VAE with a trained codebook (van den Oord et al. 2017, eq. 3).

    Terms, both the mean of (z - code)^2 over valid tokens and features: `commitment` moves the encoder only,
    `codebook` the codes only. Their weights are the two betas of the objective.
    """

    terms = frozenset({"commitment", "codebook"})

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Annotated[int, Gt(1), Doc("codes in the codebook")] = 512,
        start: Annotated[Start, Doc("first codes: k-means centres or random ones of the first inputs")] = "kmeans",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (codebook_size,)
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
            tokens, real = flat(z, mask, self.codebook.codes.dtype)
            found = self.codebook.search(tokens, real)
            value = self.codebook.look_up(found.codes, found.valid).detach()
            squares, pairs = squared_distance(tokens, value, found.valid), entries(tokens, found.valid)
            passed, commitment = pass_on(tokens, value, found.valid, squares, pairs)
            codebook = codebook_loss(self.codebook.codes, tokens, found, squares, pairs)
            return Quantized(
                z=passed.view(z.shape),
                codes=found.codes.view(*z.shape[:2], 1),
                hard=value.view(z.shape),
                terms={"commitment": commitment, "codebook": codebook},
                not_finite=found.not_finite,
            )

    def decode(self, codes: Tensor) -> Tensor:
        index = codes.reshape(-1).long()
        return self.codebook.look_up(index, index >= 0).view(*codes.shape[:2], self.dim)

    def vectors(self) -> tuple[Tensor, ...]:
        return (self.codebook.codes.detach(),)

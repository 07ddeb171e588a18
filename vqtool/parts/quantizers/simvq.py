"""One frozen random codebook, turned and stretched by one trained linear map: all codes move together."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Quantized, Quantizer
from vqtool.nn.codebook import Codebook, look_up, search
from vqtool.nn.codebook_loss import codebook_loss
from vqtool.nn.kmeans import points_wanted
from vqtool.nn.straight_through import pass_on, squared_distance
from vqtool.nn.tokens import entries, flat, own_precision, starting_points


class SimVQ(Quantizer):
    """SimVQ (Zhu et al. 2024, arXiv 2411.02038): codes W c_k for frozen c_k and a trained W, at first the identity.

    The frozen codes are normal, with the mean and spread that the first inputs have in each feature.
    Terms, both the mean of (z - code)^2 over valid tokens and features: `commitment` moves the encoder only,
    `codebook` the linear map only.
    """

    terms = frozenset({"commitment", "codebook"})

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Annotated[int, Gt(1), Doc("codes in the codebook")] = 1024,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (codebook_size,)
        self.frozen = Codebook(codebook_size, dim, trained=False)
        self.map = nn.Linear(dim, dim, bias=False)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(dim))

    @property
    def initialised(self) -> bool:
        return self.frozen.is_ready

    def initialise(self, z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        points = starting_points(z, mask, points_wanted(self.codebook_sizes[0]), generator)
        normal = torch.randn(self.codebook_sizes[0], self.dim, generator=generator).to(points)
        spread = points.std(0, correction=0).clamp_min(1e-6)
        self.frozen.set(points.mean(0) + spread * normal)

    def codes(self) -> Tensor:
        """The codes [K, D] as they are now; a gradient reaches the linear map."""
        self.frozen.require_ready()
        return F.linear(self.frozen.codes, self.map.weight)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        with own_precision(z):
            tokens, real = flat(z, mask, self.map.weight.dtype)
            table = self.codes()
            found = search(table, tokens, real)
            index, valid = found.codes, found.valid
            value = look_up(table.detach(), index, valid)
            squares, pairs = squared_distance(tokens, value, valid), entries(tokens, valid)
            passed, commitment = pass_on(tokens, value, valid, squares, pairs)
            return Quantized(
                z=passed.view(z.shape),
                codes=index.view(*z.shape[:2], 1),
                hard=value.view(z.shape),
                terms={"commitment": commitment, "codebook": codebook_loss(table, tokens, found, squares, pairs)},
                not_finite=found.not_finite,
            )

    def decode(self, codes: Tensor) -> Tensor:
        index = codes.reshape(-1).long()
        with own_precision(self.map.weight):
            return look_up(self.codes(), index, index >= 0).view(*codes.shape[:2], self.dim)

    def vectors(self) -> tuple[Tensor, ...]:
        return (F.linear(self.frozen.codes, self.map.weight).detach(),)

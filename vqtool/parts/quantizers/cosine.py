"""Codes of length one in a few dimensions, chosen by cosine similarity; trained by their own loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Quantized, Quantizer
from vqtool.nn.codebook import Codebook, Start, look_up, search
from vqtool.nn.codebook_loss import codebook_loss
from vqtool.nn.kmeans import points_wanted
from vqtool.nn.straight_through import Carry, pass_on, squared_distance
from vqtool.nn.tokens import cleaned, entries, flat, own_precision, starting_points


class Cosine(Quantizer):
    """Factorised codes, l2-normalised (ViT-VQGAN, Yu et al. 2021, arXiv 2110.04627, section 3.2).

    z -> W_in z, divided by its length -> the nearest unit code e -> W_out e. The gradient is straight-through between
    the two maps. What flows on are rows of the table W_out e, so it is the code vector bit for bit.
    Terms, both the mean of (unit input - unit code)^2: `commitment` moves encoder and W_in, `codebook` the codes.
    """

    terms = frozenset({"commitment", "codebook"})
    straight_through = False
    nearest = False

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Annotated[int, Gt(1), Doc("codes in the codebook")] = 1024,
        code_dim: Annotated[int, Gt(1), Doc("dimensions in which codes are compared")] = 8,
        start: Annotated[Start, Doc("first codes: k-means centres or random ones of the first inputs")] = "kmeans",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_sizes = (codebook_size,)
        self.start: Start = start
        self.inwards = nn.Linear(dim, code_dim)
        self.outwards = nn.Linear(code_dim, dim, bias=False)
        self.codebook = Codebook(codebook_size, code_dim, trained=True)

    @property
    def initialised(self) -> bool:
        return self.codebook.is_ready

    @torch.no_grad()
    def initialise(self, z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        points = starting_points(z, mask, points_wanted(self.codebook_sizes[0]), generator)
        for book, inputs in self.fed_codebooks(points):
            book.start(inputs, self.start, generator)

    @torch.no_grad()
    def fed_codebooks(self, tokens: Tensor) -> Iterator[tuple[Codebook, Tensor]]:
        self.codebook.codes.copy_(F.normalize(self.codebook.codes, dim=1))  # their lengths are nowhere looked at
        yield self.codebook, F.normalize(self.inwards(tokens), dim=1)

    def table(self) -> Tensor:
        """What each code adds to the latent [K, D]; a gradient reaches W_out only."""
        self.codebook.require_ready()
        return self.outwards(F.normalize(self.codebook.codes.detach(), dim=1))

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        with own_precision(z):
            tokens, valid, not_finite = cleaned(*flat(z, mask, self.inwards.weight.dtype))
            unit = F.normalize(self.inwards(tokens), dim=1)
            codes = F.normalize(self.codebook.codes, dim=1)
            table = self.table()
            found = search(codes, unit, valid)
            inner = look_up(codes.detach(), found.codes, found.valid)
            squares, pairs = squared_distance(unit, inner, found.valid), entries(unit, found.valid)
            inner, commitment = pass_on(unit, inner, found.valid, squares, pairs)
            value = look_up(table, found.codes, found.valid)
            passed = value
            if inner.requires_grad:  # the table's rows in value; backwards W_out as a constant, then straight through
                passed = Carry.apply(F.linear(inner, self.outwards.weight.detach()), value)
            return Quantized(
                z=passed.view(z.shape),
                codes=found.codes.view(*z.shape[:2], 1),
                hard=value.detach().view(z.shape),
                terms={"commitment": commitment, "codebook": codebook_loss(codes, unit, found, squares, pairs)},
                not_finite=not_finite,
            )

    def decode(self, codes: Tensor) -> Tensor:
        index = codes.reshape(-1).long()
        with own_precision(self.inwards.weight):
            return look_up(self.table(), index, index >= 0).view(*codes.shape[:2], self.dim)

    def vectors(self) -> tuple[Tensor, ...]:
        with own_precision(self.inwards.weight):
            return (self.outwards(F.normalize(self.codebook.codes, dim=1)).detach(),)

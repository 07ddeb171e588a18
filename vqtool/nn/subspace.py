"""A moving codebook of few dimensions inside a wider latent: the codes live in a subspace of it."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import CodebookStats
from vqtool.nn.codebook import Found, Start
from vqtool.nn.moving_average import MovingCodebook


class SubspaceCodebook(MovingCodebook):
    """K codes [K, d] in a plane of d orthonormal directions through a D-dimensional latent; what lies outside is left.

    The plane goes through the mean of the inputs that the codebook starts from, along their d directions of largest
    spread (their principal components), and stays: fewer dimensions need fewer inputs to be filled evenly. The search
    is in the whole space, among the vectors that decoding gives: far from zero they are rounded, and the nearest code
    inside the plane need not be the nearest of them. (Low-dimensional codes: Yu et al. 2022, arXiv 2110.04627,
    section 3.2, there with trained projections.)
    """

    basis: Tensor  # [d, D]
    origin: Tensor  # [D]

    def __init__(self, size: int, dim: int, inside: int, *, decay: float, revive_below: float) -> None:
        super().__init__(size, inside, decay=decay, revive_below=revive_below)
        self.register_buffer("basis", torch.eye(inside, dim))
        self.register_buffer("origin", torch.zeros(dim))

    def start(self, points: Tensor, how: Start, generator: torch.Generator) -> None:
        """Take the directions and the codes from `points` [N, D]."""
        self.origin.copy_(points.mean(0))
        away = (points - self.origin).double()
        self.basis.copy_(torch.linalg.eigh(away.T @ away).eigenvectors.T.flip(0)[: len(self.basis)])
        super().start(self.inside(points), how, generator)

    def stats(self, tokens: Tensor, found: Found) -> CodebookStats:
        """Counts and sums [K, d] of the parts of `tokens` [N, D] that lie in the subspace."""
        return super().stats(self.inside(tokens), found)

    @property
    def vectors(self) -> Tensor:
        """The codes in the whole space [K, D]."""
        return self.codes @ self.basis + self.origin

    def inside(self, tokens: Tensor) -> Tensor:
        """The coordinates [N, d] of `tokens` [N, D] in the subspace."""
        return (tokens.to(self.basis.dtype) - self.origin) @ self.basis.T

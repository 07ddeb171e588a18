"""Codebooks of few dimensions inside a wider latent: exact far from zero too, and flat."""

from __future__ import annotations

import torch

from vqtool.quantizers.core.codebook import Codebook
from vqtool.quantizers.core.kmeans import kmeans


def test_the_nearest_is_that_of_the_rounded_vectors() -> None:
    """1e4 away from zero a vector is rounded to 1e-3; of 20,000 tokens some lie between the true place and that."""
    generator = torch.Generator().manual_seed(0)
    book = Codebook(64, 8, code_dim=4)
    book.start(torch.randn(2000, 8, generator=generator) + 1e4, kmeans, generator)
    tokens = torch.randn(20_000, 8, generator=generator) + 1e4
    distance = torch.cdist(tokens.double(), book.table.double(), compute_mode="donot_use_mm_for_euclid_dist")
    taken = distance.gather(1, book.search(tokens)[:, None])[:, 0]
    assert bool((taken <= distance.min(1).values * (1 + 1e-6)).all())


def test_what_lies_outside_of_the_plane_is_left() -> None:
    generator = torch.Generator().manual_seed(0)
    book = Codebook(16, 3, code_dim=2)
    spread = torch.tensor([10.0, 5.0, 0.1])
    book.start(torch.randn(500, 3, generator=generator) * spread + 7, kmeans, generator)
    normal = torch.linalg.svd(book.table - book.origin).Vh[2]
    assert float(normal[2].abs()) > 0.99
    assert float(((book.table - book.origin) @ normal).abs().max()) < 1e-4

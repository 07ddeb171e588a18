"""Small priors with codes and conditions for them."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import Condition
from vqtool.conformance import PriorSubject
from vqtool.conformance.prior_subject import flat_logits, log_prob, row
from vqtool.parts.priors.gpt import Gpt
from vqtool.parts.priors.gru import Gru
from vqtool.parts.priors.lstm import Lstm
from vqtool.sequence.code_prior import CodePrior

__all__ = ["KINDS", "WIDTH", "flat_logits", "log_prob", "random_codes", "random_condition", "row", "small"]

KINDS = {"gpt": Gpt, "gru": Gru, "lstm": Lstm}
WIDTH = 5  # of the condition


def small(
    kind: str, sizes: tuple[int, ...] = (4, 3), length: int = 3, *, geometry: bool = True, seed: int = 0
) -> CodePrior:
    """A small prior in float64 with every parameter stirred."""
    how = {"codebook_sizes": sizes, "length": length, "condition_dim": WIDTH, "geometry": geometry, "seed": seed}
    return PriorSubject(KINDS[kind], dtype=torch.float64, **how).new()


def random_codes(prior: CodePrior, batch: int, seed: int = 0) -> Tensor:
    """Codes [B, T, Q], each within its codebook."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, prior.length)
    return torch.stack([torch.randint(size, shape, generator=generator) for size in prior.codebook_sizes], dim=-1)


def random_condition(batch: int, seed: int = 0) -> Condition:
    """A vector [B, M] and 7 tokens [B, 7, M]."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.randn(batch, 8, WIDTH, dtype=torch.float64, generator=generator)
    return Condition(shape[:, 0], shape[:, 1:])

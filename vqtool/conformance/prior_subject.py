"""A prior under test: builds fresh ones of the same kind, and the codes and conditions to try them on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vqtool.api import Condition, Prior

SMALL = {"layers": 2, "width": 16, "heads": 2, "dropout": 0.2}  # as far as a kind has them and nothing else is given
LATENT = 6  # features of a code's vector
PIECES = 7  # tokens of a condition: not as many as there are tokens to write


@dataclass(frozen=True)
class PriorSubject:
    """What the laws of vqtool's priors are checked on.

    Args:
        make: builds a prior: `make(codebook_sizes, length, condition_dim, vectors, **options)`, best the class itself.
        options: its keyword arguments; a width or a depth that is not given is made small.
        codebook_sizes, length: the codes [B, T, Q] that it writes; few, so that all sequences can be scored.
        condition_dim: width of the condition. geometry: whether the codes have vectors.
        seed: of weights, codes and conditions. dtype: of weights and conditions.
    """

    make: Callable[..., Prior]
    options: Mapping[str, Any] = field(default_factory=dict)
    codebook_sizes: tuple[int, ...] = (4, 3)
    length: int = 3
    condition_dim: int = 5
    geometry: bool = True
    seed: int = 0
    dtype: torch.dtype = torch.float32

    @property
    def steps(self) -> int:
        """N, the codes of a window one after the other."""
        return self.length * len(self.codebook_sizes)

    @property
    def rounding(self) -> float:
        """What two ways to compute a logit may differ by."""
        return 2e-4 if self.dtype == torch.float32 else 1e-5  # priors may hold float32 constants

    def new(self, *, condition_dim: int | None = None) -> Prior:
        """A fresh prior in evaluation mode, every parameter stirred: nothing that starts at zero hides a mistake."""
        taken = inspect.signature(self.make).parameters
        small = {name: value for name, value in SMALL.items() if name in taken}
        width = self.condition_dim if condition_dim is None else condition_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            vectors = None
            if self.geometry:
                vectors = tuple(torch.randn(size, LATENT) * 0.6**q for q, size in enumerate(self.codebook_sizes))
            prior = self.make(self.codebook_sizes, self.length, width, vectors, **{**small, **self.options})
            prior = prior.to(self.dtype).eval()
            with torch.no_grad():
                for parameter in prior.parameters():
                    parameter.add_(0.2 * torch.randn_like(parameter))
        return prior

    def codes(self, batch: int, *, salt: int = 0) -> Tensor:
        """Codes [B, T, Q], each within its codebook."""
        generator = torch.Generator().manual_seed(self.seed * 1000 + salt)
        shape = (batch, self.length)
        return torch.stack([torch.randint(size, shape, generator=generator) for size in self.codebook_sizes], -1)

    def condition(self, batch: int, *, salt: int = 0) -> Condition | None:
        """A vector [B, M] and tokens [B, S, M] for each row; None where there is no condition."""
        if not self.condition_dim:
            return None
        generator = torch.Generator().manual_seed(self.seed * 1000 + salt)
        drawn = torch.randn(batch, PIECES + 1, self.condition_dim, dtype=torch.float64, generator=generator)
        return Condition(drawn[:, 0].to(self.dtype), drawn[:, 1:].to(self.dtype))


def row(condition: Condition | None, index: int, times: int = 1) -> Condition | None:
    """One row of a condition, as a batch of `times`."""
    if condition is None:
        return None
    tokens = condition.tokens
    return Condition(
        condition.vector[index : index + 1].expand(times, -1),
        None if tokens is None else tokens[index : index + 1].expand(times, -1, -1),
    )


def log_prob(prior: Prior, codes: Tensor, condition: Condition | None) -> Tensor:
    """log p(codes) [B] in float64, each code after the true ones before it."""
    return prior(codes, condition).double().log_softmax(-1).gather(-1, codes[..., None]).sum((1, 2, 3))


def flat_logits(prior: Prior, codes: Tensor, condition: Condition | None) -> Tensor:
    """Logits [B, N, K] of all steps, 0 where -inf."""
    logits = prior(codes, condition).flatten(1, 2)
    return torch.where(logits.isfinite(), logits, 0.0)

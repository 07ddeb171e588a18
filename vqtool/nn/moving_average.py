"""A codebook that follows the mean of the inputs that choose each code, as an exponential moving average."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtool.api import CodebookStats
from vqtool.api.quantizer import sample
from vqtool.nn.codebook import Codebook, Found
from vqtool.nn.codebook_loss import totals
from vqtool.nn.revival import revive

FORGOTTEN = 1e-30  # a use below this becomes zero, before it turns into slow denormal numbers


class MovingCodebook(Codebook):
    """m <- g m + (1 - g) n and code <- (g m code + (1 - g) s) / m_new, for n inputs with the sum s that chose the code.

    (van den Oord et al. 2017, appendix A.1.) That is the moving average of counts and of sums, with the sums kept as
    m * code: nothing can be stale, so a codebook that is set from outside stays. A code that nobody chose rests, bit
    for bit. Before the first update every code weighs as uniform use of that update's batch would: the start survives.
    """

    weights: Tensor  # [K]  m, the moving average of use

    def __init__(self, size: int, dim: int, *, decay: float, revive_below: float) -> None:
        super().__init__(size, dim, trained=False)
        self.decay = decay
        self.revive_below = revive_below
        self.register_buffer("weights", torch.zeros(size))

    @torch.no_grad()
    def set(self, codes: Tensor) -> None:
        """Take `codes` [K, d] as the codebook, all of equal weight."""
        super().set(codes)
        self.weights.zero_()

    @torch.no_grad()
    def stats(self, tokens: Tensor, found: Found) -> CodebookStats:
        """Counts and sums of the valid `tokens` [N, d] by the code that they chose."""
        size = self.codes.shape[0]
        tokens = tokens.detach()
        counts, sums = totals(tokens, found.codes, found.valid, size)
        valid = found.valid if found.valid is not None else found.codes >= 0
        return CodebookStats(counts.float(), sums.float(), sample(tokens, size, valid).float())

    @torch.no_grad()
    def update(self, stats: CodebookStats) -> None:
        """Move the codes that were chosen towards the mean of their inputs; revive those hardly ever chosen."""
        counts, sums = stats.counts.to(self.codes.dtype), stats.sums.to(self.codes.dtype)
        fresh = self.weights.sum() == 0
        before = torch.where(fresh, counts.mean(), self.weights)
        before = torch.where(before > FORGOTTEN, before, 0)
        after = self.decay * before + (1 - self.decay) * counts
        rate = torch.where(counts > 0, (1 - self.decay) / after.clamp_min(FORGOTTEN), 0)
        self.codes.addcmul_(rate[:, None], sums - counts[:, None] * self.codes)
        self.weights.copy_(after)
        revive(self.codes, self.weights, stats.samples, self.revive_below)

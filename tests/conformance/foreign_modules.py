"""Plain nn.Modules as foreign modules write them: one that is right, and one for each classic bug."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Exact(torch.autograd.Function):
    """The value of the codes, the gradient of the input."""

    @staticmethod
    def forward(ctx, x: Tensor, q: Tensor) -> Tensor:
        return q.clone()

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, None]:
        return g, None


class PlainVQ(nn.Module):
    """A right one: EMA in forward, revival after it; [B, T, D] -> (quantized, codes, commitment)."""

    gain = 1.0

    def __init__(self, dim: int, codebook_size: int = 24, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        codes = torch.randn(codebook_size, dim)
        self.make_codebook(codes)
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_buffer("sums", codes.clone())

    def make_codebook(self, codes: Tensor) -> None:
        self.register_buffer("embed", codes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = x.reshape(-1, x.shape[-1]).float()
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            centre = self.embed.mean(0)
            a, b = (flat - centre).double(), (self.embed - centre).double()
            codes = (b.square().sum(1) - 2 * a @ b.t()).argmin(1)
        q = self.embed[codes]
        if self.training:
            self.update(flat.detach(), q.detach(), codes)
        q = q.view(x.shape)
        return self.let_through(x, q), codes.view(x.shape[:2]), self.commitment(x, q)

    def let_through(self, x: Tensor, q: Tensor) -> Tensor:
        return Exact.apply(x, q.detach())

    def commitment(self, x: Tensor, q: Tensor) -> Tensor:
        return F.mse_loss(x, q.detach())

    @torch.no_grad()
    def update(self, x: Tensor, q: Tensor, codes: Tensor) -> None:
        x, codes = self.usable(x, codes)
        self.average(x, codes)
        self.revive(x)

    def usable(self, x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        good = x.isfinite().all(1)
        return x[good], codes[good]

    def average(self, x: Tensor, codes: Tensor) -> None:
        onehot = F.one_hot(codes, self.embed.shape[0]).to(x)
        n = onehot.sum(0)
        self.counts.mul_(self.decay).add_(n, alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(onehot.t() @ x, alpha=1 - self.decay)
        chosen = n > 0
        self.embed.data[chosen] = (self.sums / self.counts[:, None])[chosen]

    def revive(self, x: Tensor) -> None:
        dead = self.counts < 0.1 * self.counts.mean()
        count = min(int(dead.sum()), x.shape[0])
        index = dead.nonzero()[:count, 0]
        self.embed.data[index] = x[:count]
        self.counts[index] = self.counts.mean()
        self.sums[index] = self.embed.data[index] * self.counts[index, None]


class CommitmentSendsNothing(PlainVQ):
    def commitment(self, x: Tensor, q: Tensor) -> Tensor:
        return F.mse_loss(x.detach(), q)


class FedWithOutputs(PlainVQ):
    def update(self, x: Tensor, q: Tensor, codes: Tensor) -> None:
        good = x.isfinite().all(1)
        with torch.no_grad():
            self.average(q[good], codes[good])
            self.revive(x[good])


class GainOfFour(PlainVQ):
    def let_through(self, x: Tensor, q: Tensor) -> Tensor:
        return Exact.apply(x, q.detach()) + 3 * (x - x.detach())


class StartsFromZero(PlainVQ):
    def __init__(self, dim: int, codebook_size: int = 24, decay: float = 0.9) -> None:
        super().__init__(dim, codebook_size, decay)
        self.counts.zero_()

    def average(self, x: Tensor, codes: Tensor) -> None:
        onehot = F.one_hot(codes, self.embed.shape[0]).to(x)
        n = onehot.sum(0)
        self.counts.mul_(self.decay).add_(n, alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(onehot.t() @ x, alpha=1 - self.decay)
        self.embed.copy_(self.sums / self.counts.clamp_min(1e-5)[:, None])


class TwoOwners(PlainVQ):
    def make_codebook(self, codes: Tensor) -> None:
        self.embed = nn.Parameter(codes)

    def commitment(self, x: Tensor, q: Tensor) -> Tensor:
        return F.mse_loss(x, q.detach()) + F.mse_loss(x.detach(), q)


class RevivalOverwritten(PlainVQ):
    def update(self, x: Tensor, q: Tensor, codes: Tensor) -> None:
        x, codes = self.usable(x, codes)
        with torch.no_grad():
            self.revive(x)
            self.average(x, codes)

    def revive(self, x: Tensor) -> None:
        dead = self.counts < 0.1 * self.counts.mean()
        count = min(int(dead.sum()), x.shape[0])
        self.embed.data[dead.nonzero()[:count, 0]] = x[:count]

    def average(self, x: Tensor, codes: Tensor) -> None:
        onehot = F.one_hot(codes, self.embed.shape[0]).to(x)
        self.counts.mul_(self.decay).add_(onehot.sum(0), alpha=1 - self.decay).clamp_(min=1e-30)
        self.sums.mul_(self.decay).add_(onehot.t() @ x, alpha=1 - self.decay)
        self.embed.data.copy_(torch.where(self.counts[:, None] > 1e-20, self.sums / self.counts[:, None], self.embed))


class PoisonedByNaN(PlainVQ):
    def usable(self, x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        return x, codes

    def revive(self, x: Tensor) -> None:
        super().revive(x[x.isfinite().all(1)])


class MovesInEvaluation(PlainVQ):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        result = super().forward(x)
        if not self.training:
            with torch.no_grad():
                self.counts.mul_(0.99)
        return result


class Rounds(PlainVQ):
    def let_through(self, x: Tensor, q: Tensor) -> Tensor:
        return x + (q - x).detach()


class CancelsAtAnOffset(PlainVQ):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, self.embed.mean = self.embed.mean, lambda _: 0.0  # type: ignore[method-assign]
        try:
            flat = x.reshape(-1, x.shape[-1]).detach()
            with torch.autocast("cpu", enabled=False):
                score = flat.square().sum(1, keepdim=True) - 2 * flat @ self.embed.t() + self.embed.square().sum(1)
        finally:
            self.embed.mean = mean  # type: ignore[method-assign]
        codes = score.argmin(1)
        q = self.embed[codes]
        if self.training:
            self.update(flat, q.detach(), codes)
        q = q.view(x.shape)
        return self.let_through(x, q), codes.view(x.shape[:2]), self.commitment(x, q)


class UnusedDrift(PlainVQ):
    def __init__(self, dim: int, codebook_size: int = 24, decay: float = 0.9) -> None:
        super().__init__(dim, codebook_size, decay)
        self.revive_dead = False

    def average(self, x: Tensor, codes: Tensor) -> None:
        super().average(x, codes)
        self.embed.data.mul_(torch.where(self.counts > 0.05 * self.counts.mean(), 1.0, 0.999)[:, None])

    def revive(self, x: Tensor) -> None:
        pass


UPDATES_IN_FORWARD = {"checkpointing"}  # the one law that no module which updates in forward can keep
MUTANTS: dict[type[PlainVQ], set[str]] = {
    CommitmentSendsNothing: {"commitment-reaches-encoder"},
    FedWithOutputs: {"ema-follows-inputs"},
    GainOfFour: {"straight-through-gain"},
    StartsFromZero: {"ema-start"},
    TwoOwners: {"one-owner"},
    RevivalOverwritten: {"revival-holds"},
    PoisonedByNaN: {"nan-contained"},
    MovesInEvaluation: {"eval-changes-nothing"},
    Rounds: {"forward-exact"},
    CancelsAtAnOffset: {"nearest-code-stress"},
    UnusedDrift: {"unused-code-rests"},
}

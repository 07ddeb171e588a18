"""Foreign modules whose codebook the optimizer moves: right ones of several rules, and one per classic bug."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conformance.foreign_modules import Exact


class TrainedVQ(nn.Module):
    """A right one: [B, T, D] -> (quantized, codes, loss), chosen in float64 around the codebook's mean."""

    def __init__(self, dim: int = 8, codebook_size: int = 24) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            codes = self.choose(x.reshape(-1, x.shape[-1]).double(), self.codebook.double())
        q = self.codebook[codes].view(x.shape)
        return Exact.apply(x, q.detach()), codes.view(x.shape[:2]), self.loss(x, q)

    def choose(self, x: Tensor, codes: Tensor) -> Tensor:
        return torch.cdist(x, codes, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)

    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        return F.mse_loss(q, x.detach()) + 0.25 * F.mse_loss(x, q.detach())


class Farthest(TrainedVQ):
    def choose(self, x: Tensor, codes: Tensor) -> Tensor:
        return torch.cdist(x, codes).argmax(1)


class WrongSign(TrainedVQ):
    def choose(self, x: Tensor, codes: Tensor) -> Tensor:
        return (x.square().sum(1, keepdim=True) + 2 * x @ codes.t() + codes.square().sum(1)).argmin(1)


class NoSquare(TrainedVQ):
    def choose(self, x: Tensor, codes: Tensor) -> Tensor:
        return (x.square().sum(1, keepdim=True) - 2 * x @ codes.t()).argmin(1)


class NoSquareOfSmallCodes(NoSquare):
    """Codes that start as small as in the first VQ-VAEs: their squares hardly matter yet."""

    def __init__(self, dim: int = 8, codebook_size: int = 24) -> None:
        super().__init__(dim, codebook_size)
        nn.init.uniform_(self.codebook, -1 / codebook_size, 1 / codebook_size)


class CachedNorms(TrainedVQ):
    """Right, but the squares of its codes are kept beside them: it takes no table that is written in place."""

    def __init__(self, dim: int = 8, codebook_size: int = 24) -> None:
        super().__init__(dim, codebook_size)
        nn.init.normal_(self.codebook, mean=1.0)
        self.register_buffer("squares", self.codebook.detach().square().sum(1))

    def choose(self, x: Tensor, codes: Tensor) -> Tensor:
        return (self.squares - 2 * x @ codes.t()).argmin(1)


class ByCosine(TrainedVQ):
    """Right: cosine similarity, as ViT-VQGAN has it, of rows that are not normalised when they flow on."""

    def choose(self, x: Tensor, codes: Tensor) -> Tensor:
        return (F.normalize(x, dim=1) @ F.normalize(codes, dim=1).t()).argmax(1)


class Standardised(TrainedVQ):
    """Right: the nearest to what a layer norm made of the input."""

    def choose(self, x: Tensor, codes: Tensor) -> Tensor:
        return super().choose(F.layer_norm(x, x.shape[1:]), codes)


class Projected(TrainedVQ):
    """Right: the nearest to a projection of the input."""

    def __init__(self, dim: int = 8, codebook_size: int = 24) -> None:
        super().__init__(dim, codebook_size)
        self.projection = nn.Linear(dim, dim)

    def choose(self, x: Tensor, codes: Tensor) -> Tensor:
        return super().choose(F.linear(x, self.projection.weight.double(), self.projection.bias.double()), codes)


class ByLogits(TrainedVQ):
    """Right: the likeliest code of a linear layer; the table only says what it decodes to."""

    def __init__(self, dim: int = 8, codebook_size: int = 24) -> None:
        super().__init__(dim, codebook_size)
        self.head = nn.Linear(dim, codebook_size)

    def choose(self, x: Tensor, codes: Tensor) -> Tensor:
        return F.linear(x, self.head.weight.double(), self.head.bias.double()).argmax(1)


class ByChance(TrainedVQ):
    """Drawn with a probability that falls with the distance, in evaluation too."""

    def choose(self, x: Tensor, codes: Tensor) -> Tensor:
        return torch.distributions.Categorical(logits=-torch.cdist(x, codes)).sample()


class Pushes(TrainedVQ):
    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        return F.mse_loss(q, x.detach()) - 0.25 * F.mse_loss(x, q.detach())


class PushesCodes(TrainedVQ):
    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        return 0.25 * F.mse_loss(x, q.detach()) - F.mse_loss(q, x.detach())


class NobodyTrains(TrainedVQ):
    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        return 0.25 * F.mse_loss(x, q.detach())


class Undetached(TrainedVQ):
    """The gradients of two betas of 1.25, which somebody may have meant: no law can tell."""

    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        return 1.25 * F.mse_loss(x, q)


class WithEntropy(TrainedVQ):
    """Right: a term of how evenly the codes are used has a gradient of its own."""

    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        soft = (-(flat[:, None] - self.codebook).square().sum(-1)).softmax(1)
        use = soft.mean(0)
        return super().loss(x, q) + 0.1 * (use * use.log()).sum() - 0.1 * (soft * (soft + 1e-9).log()).sum(1).mean()


class TrainedByTheDecoder(TrainedVQ):
    """Right: no codebook loss, since the decoder's gradient reaches the table."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, codes, loss = super().forward(x)
        rows = self.codebook[codes]
        return value + (rows - rows.detach()), codes, loss

    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        return 0.25 * F.mse_loss(x, q.detach())


class TrainedByTheCaller(NobodyTrains):
    """Right: the code vectors are returned too, for a codebook loss that the caller adds."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        value, codes, loss = super().forward(x)
        return value, codes, loss, self.codebook[codes]


WRONG_LOSSES = {
    Pushes: {"commitment-reaches-encoder"},
    PushesCodes: {"codebook-learns"},
    NobodyTrains: {"codebook-learns"},
}
WRONG_CHOICES = (Farthest, WrongSign, NoSquare, NoSquareOfSmallCodes)
OTHER_RULES = {
    ByCosine: ("kept", "by cosine"),
    Standardised: ("kept", "have a nearer code"),  # to what the norm, or the projection, gave
    Projected: ("kept", "have a nearer code"),
    ByLogits: ("n/a", "do not depend"),
    ByChance: ("n/a", "by chance"),
}

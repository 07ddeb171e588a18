"""Faults planted in the healthy styles: `FAULTY` maps a class to the law that must name it."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conformance.averages import Lucid, Masked, Sonnet
from tests.conformance.styles import (
    Codec,
    Cosine,
    Gumbel,
    Linear,
    Output,
    Residual,
    Scalar,
    Signs,
    Tutorial,
    TwoMethods,
)


class BetaOnTheCodebook(Tutorial):
    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        return self.cost * F.mse_loss(q, x.detach()) + F.mse_loss(q.detach(), x)


class NothingDetached(Tutorial):
    """x + (q - x) is q, and no gradient reaches the encoder."""

    def let_through(self, x: Tensor, q: Tensor) -> Tensor:
        return x + (q - x)


class InputFlowsOn(Tutorial):
    """Straight-through the wrong way round."""

    def let_through(self, x: Tensor, q: Tensor) -> Tensor:
        return q + (x - q).detach()


class Farthest(Tutorial):
    def choose(self, flat: Tensor) -> Tensor:
        return torch.cdist(flat, self._embedding.weight).argmax(1)


class DetachedLatents(Tutorial):
    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        return F.mse_loss(q, x.detach()) + self.cost * F.mse_loss(q, x.detach())


class ScrambledOut(Tutorial):
    def back(self, q: Tensor, inputs: Tensor) -> Tensor:
        return q.view(inputs.shape)


class HalfPrecision(Tutorial):
    def choose(self, flat: Tensor) -> Tensor:
        return torch.cdist(flat.bfloat16().float(), self._embedding.weight.bfloat16().float()).argmin(1)


class DropsTheSquare(Tutorial):
    def choose(self, flat: Tensor) -> Tensor:
        return (-2 * flat @ self._embedding.weight.t()).argmin(1)


class NoCodebookLoss(Tutorial):
    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        return self.cost * F.mse_loss(q.detach(), x)


class CodesFromOne(TwoMethods):
    def forward(self, x: Tensor) -> Any:
        value = super().forward(x)
        return value, self.encode(x) + 1, self.loss


class DecodesOthers(TwoMethods):
    def decode(self, codes: Tensor) -> Tensor:
        return self.codebook((codes + 1) % self.codebook.num_embeddings) if not codes.requires_grad else codes

    def forward(self, x: Tensor) -> Any:
        codes = self.encode(x)
        q = self.codebook(codes)
        loss = F.mse_loss(q, x.detach()) + 0.25 * F.mse_loss(x, q.detach())
        return x + (q - x).detach(), codes, loss


class Noisy(TwoMethods):
    """In evaluation too."""

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x + 0.5 * torch.randn_like(x))


class NumpyNoise(TwoMethods):
    """Noise of another library's generator."""

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x + 0.5 * torch.tensor([random.gauss(0, 1) for _ in range(x.shape[-1])]))


class OutputsFed(Sonnet):
    def update(self, flat: Tensor, codes: Tensor) -> None:
        super().update(self.embeddings.t()[codes], codes)


class WrongDecay(Sonnet):
    def __init__(self) -> None:
        super().__init__(decay=0.01)


class ZeroStart(Sonnet):
    def __init__(self) -> None:
        super().__init__()
        self.ema_count.zero_()
        self.ema_dw.normal_()


class NoEpsilon(Sonnet):
    @torch.no_grad()
    def update(self, flat: Tensor, codes: Tensor) -> None:
        hot = F.one_hot(codes, self.ema_count.numel()).to(flat)
        self.ema_count.mul_(self.decay).add_(hot.sum(0), alpha=1 - self.decay)
        self.ema_dw.mul_(self.decay).add_(flat.t() @ hot, alpha=1 - self.decay)
        self.embeddings.copy_(self.ema_dw / self.ema_count)


class UpdatesInEvaluation(Sonnet):
    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        found = super().forward(inputs)
        if not self.training:
            self.update(inputs.reshape(-1, inputs.shape[-1]), found["encoding_indices"].flatten())
        return found


class GathersLate(Sonnet):
    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        found = super().forward(inputs)
        q = self.embeddings.t()[found["encoding_indices"]]
        return found | {"quantize": inputs + (q - inputs).detach()}


class GraphInBuffers(Sonnet):
    def update(self, flat: Tensor, codes: Tensor) -> None:
        super().update(flat, codes)
        hot = F.one_hot(codes, self.ema_count.numel()).to(flat)
        self.ema_dw = self.ema_dw + 1e-3 * flat.t() @ hot


class NotSaved(Sonnet):
    def __init__(self) -> None:
        super().__init__()
        codes = self.embeddings
        del self.embeddings
        self.embeddings = codes


class RevivesInEvaluation(Lucid):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = super().forward(x)
        if not self.training:
            used = torch.bincount(found[1].flatten(), minlength=len(self.embed)) > 0
            self.embed[~used] = x.reshape(-1, x.shape[-1])[: int((~used).sum())].detach()
        return found


class ForgetsItsStart(Lucid):
    def __init__(self) -> None:
        super().__init__()
        self.ready = False

    def start(self, flat: Tensor) -> None:
        if not self.ready:
            self.initted.fill_(False)
            super().start(flat)
            self.ready = True


class EveryLevelTheInput(Residual):
    def rest(self, x: Tensor, r: Tensor, q: Tensor) -> Tensor:
        return x


class LastLevelNever(Residual):
    def used(self) -> int:
        return random.randrange(1, len(self.books)) if self.training else len(self.books)


class GainOfLevels(Residual):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, codes, loss = super().forward(x)
        return value + 3 * (x - x.detach()), codes, loss


class FirstLevelCommits(Residual):
    def rest(self, x: Tensor, r: Tensor, q: Tensor) -> Tensor:
        return (r - q).detach()


class FloatCodes(Scalar):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, codes = super().forward(x)
        return value, codes.float()


class Concentrates(Signs):
    sign = 1.0


class IgnoresTemperature(Gumbel):
    def draw(self, logits: Tensor) -> Tensor:
        return F.gumbel_softmax(logits, dim=1)


class Pushes(Cosine):
    def __init__(self) -> None:
        super().__init__(beta=-1.0)


class FixedMap(Linear):
    """The mapped table is detached: nothing trains it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, codes, _ = super().forward(x)
        q = self.map(self.frozen)[codes].detach()
        return value, codes, F.mse_loss(q, x.detach()) + 0 * self.map.weight.sum()


class IgnoresMask(Masked):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(x)


class DeadProjection(Codec):
    """The commitment's latents are detached at every level."""

    def forward(self, x: Tensor) -> Output:
        found = super().forward(x.detach())
        return Output(found.latents + (x - x.detach()), found.codes, found.commitment_loss, found.codebook_loss)


class FarthestProjected(Codec):
    def lookup(self, i: int, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.down[i](r)
        codes = torch.cdist(z.transpose(1, 2), self.books[i].weight.expand(len(z), -1, -1)).argmax(-1)
        return z, codes, self.books[i](codes).transpose(1, 2)


class RaggedCodes(Codec):
    def forward(self, x: Tensor) -> Output:
        found = super().forward(x)
        if self.training:
            found.codes[-1] = torch.full(x.shape, -1)
        return found


FAULTY: dict[type[nn.Module], str] = {
    BetaOnTheCodebook: "commitment-ratio",
    NothingDetached: "straight-through-gain",
    InputFlowsOn: "forward-exact",
    Farthest: "nearest-code",
    DetachedLatents: "commitment-reaches-encoder",
    ScrambledOut: "token-permutation",
    HalfPrecision: "nearest-code",
    DropsTheSquare: "nearest-code",
    NoCodebookLoss: "codebook-learns",
    CodesFromOne: "codes-are-codes",
    DecodesOthers: "decode-round-trip",
    Noisy: "deterministic",
    NumpyNoise: "deterministic",
    OutputsFed: "ema-follows-inputs",
    WrongDecay: "ema-follows-inputs",
    ZeroStart: "ema-start",
    NoEpsilon: "unused-code-rests",
    UpdatesInEvaluation: "eval-changes-nothing",
    GathersLate: "gathered-before-update",
    GraphInBuffers: "no-graph-kept",
    NotSaved: "state-round-trip",
    RevivesInEvaluation: "eval-changes-nothing",
    ForgetsItsStart: "state-round-trip",
    EveryLevelTheInput: "nearest-code",
    LastLevelNever: "every-level-trained",
    GainOfLevels: "straight-through-gain",
    FirstLevelCommits: "commitment-reaches-encoder",
    FloatCodes: "codes-are-codes",
    Concentrates: "loss-spreads-codes",
    IgnoresTemperature: "temperature-matters",
    Pushes: "commitment-reaches-encoder",
    IgnoresMask: "padding-irrelevant",
    DeadProjection: "commitment-reaches-encoder",
    FarthestProjected: "nearest-code",
    RaggedCodes: "codes-are-codes",
}

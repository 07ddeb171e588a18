"""Healthy quantizers whose codes follow a moving average of their inputs, in the styles that people write."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Sonnet(nn.Module):
    """A dict; the moving average as in the first paper, with counts that start at one."""

    def __init__(self, embedding_dim: int = 12, num_embeddings: int = 40, decay: float = 0.95) -> None:
        super().__init__()
        w = torch.randn(embedding_dim, num_embeddings)
        self.register_buffer("embeddings", w)
        self.register_buffer("ema_count", torch.ones(num_embeddings))
        self.register_buffer("ema_dw", w.clone())
        self.decay, self.epsilon, self.fed = decay, 1e-5, "inputs"

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        flat = inputs.reshape(-1, inputs.shape[-1])
        codes = (flat[:, :, None] - self.embeddings[None]).pow(2).sum(1).argmin(1)
        q = self.embeddings.t()[codes].view_as(inputs)
        if self.training:
            self.update(flat, codes)
        loss = 0.25 * F.mse_loss(q.detach(), inputs)
        value = inputs + (q - inputs).detach()
        return {"quantize": value, "loss": loss, "encoding_indices": codes.view(inputs.shape[:-1])}

    @torch.no_grad()
    def update(self, flat: Tensor, codes: Tensor) -> None:
        hot = F.one_hot(codes, self.ema_count.numel()).to(flat)
        self.ema_count.mul_(self.decay).add_(hot.sum(0), alpha=1 - self.decay)
        self.ema_dw.mul_(self.decay).add_(flat.t() @ hot, alpha=1 - self.decay)
        n = self.ema_count.sum()
        count = (self.ema_count + self.epsilon) / (n + self.ema_count.numel() * self.epsilon) * n
        self.embeddings.copy_(self.ema_dw / count)


class Lucid(nn.Module):
    """[B, T, D]; k-means from the first training batch, reinitialised dead codes, a flag among the buffers."""

    def __init__(self, dim: int = 16, codebook_size: int = 32, decay: float = 0.8, threshold: float = 0.5) -> None:
        super().__init__()
        self.decay, self.threshold_dead = decay, threshold
        self.register_buffer("initted", torch.tensor(False))
        for name, t in (("embed", torch.zeros(codebook_size, dim)), ("size", torch.ones(codebook_size))):
            self.register_buffer(name, t)
        self.register_buffer("embed_avg", self.embed.clone())

    @torch.no_grad()
    def start(self, flat: Tensor) -> None:
        if not bool(self.initted):
            rows = flat[torch.randperm(flat.shape[0])[: self.embed.shape[0]]]
            self.embed.copy_(rows)
            self.embed_avg.copy_(rows)
            self.initted.fill_(True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = x.reshape(-1, x.shape[-1])
        if self.training:
            self.start(flat.detach())
        codes = torch.cdist(flat, self.embed).argmin(1)
        q = self.embed[codes].view_as(x)
        if self.training:
            self.update(flat.detach(), codes)
        return x + (q - x).detach(), codes.view(x.shape[:-1]), F.mse_loss(x, q.detach())[None]

    @torch.no_grad()
    def update(self, flat: Tensor, codes: Tensor) -> None:
        hot = F.one_hot(codes, len(self.embed)).to(flat)
        self.size.lerp_(hot.sum(0), 1 - self.decay)
        self.embed_avg.lerp_(hot.t() @ flat, 1 - self.decay)
        self.embed.copy_(self.embed_avg / self.size.clamp_min(1e-5)[:, None])
        dead = self.size < self.threshold_dead
        if bool(dead.any()):
            rows = flat[torch.randint(0, len(flat), (int(dead.sum()),))]
            self.embed[dead], self.size[dead], self.embed_avg[dead] = rows, 1.0, rows


class Masked(nn.Module):
    """A mask that holds: padded tokens are left out of loss and average."""

    def __init__(self, dim: int = 16, size: int = 32, decay: float = 0.9) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(size, dim))
        self.register_buffer("count", torch.ones(size))
        self.register_buffer("total", self.embed.clone())
        self.decay = decay

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        keep = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        codes = torch.cdist(x.reshape(-1, x.shape[-1]), self.embed).argmin(-1).view(x.shape[:2])
        q = self.embed[codes]
        if self.training:
            self.update(x[keep].detach(), codes[keep])
        away = (x - q.detach()).pow(2).mean(-1)
        return x + (q - x).detach(), codes, (away * keep).sum() / keep.sum()

    @torch.no_grad()
    def update(self, x: Tensor, codes: Tensor) -> None:
        hot = F.one_hot(codes, len(self.embed)).to(x)
        self.count.mul_(self.decay).add_(hot.sum(0), alpha=1 - self.decay)
        self.total.mul_(self.decay).add_(hot.t() @ x, alpha=1 - self.decay)
        self.embed.copy_(self.total / self.count.clamp_min(1e-5)[:, None])


class ByHand(Sonnet):
    """The average is applied by a method that the loop calls after the step."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Tensor, Tensor]] = []

    def update(self, flat: Tensor, codes: Tensor) -> None:
        self.kept.append((flat.detach(), codes))

    def update_ema(self) -> None:
        for flat, codes in self.kept:
            super().update(flat, codes)
        self.kept.clear()

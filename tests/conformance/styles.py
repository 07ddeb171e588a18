"""Healthy quantizers in the styles that people write: `HEALTHY` maps a name to a function that builds one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conformance.averages import Lucid, Masked, Sonnet


class Tutorial(nn.Module):
    """Images; the loss first, one-hot encodings last."""

    def __init__(self, num_embeddings: int = 64, embedding_dim: int = 16, commitment_cost: float = 0.25) -> None:
        super().__init__()
        self._embedding = nn.Embedding(num_embeddings, embedding_dim)
        self._embedding.weight.data.uniform_(-1 / num_embeddings, 1 / num_embeddings)
        self.cost = commitment_cost

    def choose(self, flat: Tensor) -> Tensor:
        w = self._embedding.weight
        return ((flat**2).sum(1, keepdim=True) + (w**2).sum(1) - 2 * flat @ w.t()).argmin(1)

    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        return F.mse_loss(q, x.detach()) + self.cost * F.mse_loss(q.detach(), x)

    def let_through(self, x: Tensor, q: Tensor) -> Tensor:
        return x + (q - x).detach()

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        x = inputs.permute(0, 2, 3, 1).contiguous()
        flat = x.view(-1, self._embedding.embedding_dim)
        codes = self.choose(flat)
        onehot = torch.zeros(codes.shape[0], self._embedding.num_embeddings).scatter_(1, codes[:, None], 1)
        q = (onehot @ self._embedding.weight).view(x.shape)
        use = onehot.mean(0)
        perplexity = torch.exp(-(use * torch.log(use + 1e-10)).sum())
        return self.loss(x, q), self.back(self.let_through(x, q), inputs), perplexity, onehot

    def back(self, q: Tensor, inputs: Tensor) -> Tensor:
        return q.permute(0, 3, 1, 2).contiguous()


class SilentTutorial(Tutorial):
    """Returns neither codes nor encodings."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        loss, q, *_ = super().forward(inputs)
        return q, loss


@dataclass
class Output:
    """What a codec returns."""

    latents: Tensor
    codes: list[Tensor]
    commitment_loss: Tensor
    codebook_loss: Tensor


class Codec(nn.Module):
    """DAC: channel first, a projected codebook of 8 dimensions and cosine lookup at each level, levels dropped."""

    def __init__(self, input_dim: int = 48, levels: int = 3, size: int = 64, dim: int = 8, drop: bool = False) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv1d(input_dim, dim, 1) for _ in range(levels))
        self.up = nn.ModuleList(nn.Conv1d(dim, input_dim, 1) for _ in range(levels))
        self.books = nn.ModuleList(nn.Embedding(size, dim) for _ in range(levels))
        self.drop = drop

    def lookup(self, i: int, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.down[i](r)
        score = F.normalize(z.transpose(1, 2), dim=-1) @ F.normalize(self.books[i].weight, dim=-1).t()
        codes = score.argmax(-1)
        return z, codes, self.books[i](codes).transpose(1, 2)

    def levels(self) -> int:
        return random.randrange(1, len(self.books) + 1) if self.drop and self.training else len(self.books)

    def forward(self, x: Tensor) -> Output:
        total, r, codes, commitment, codebook = torch.zeros_like(x), x, [], 0.0, 0.0
        for i in range(self.levels()):
            z, found, q = self.lookup(i, r)
            commitment = commitment + F.mse_loss(z, q.detach())
            codebook = codebook + F.mse_loss(q, z.detach())
            out = self.up[i](z + (q - z).detach())
            total, r = total + out, r - out
            codes.append(found)
        return Output(total, codes, commitment, codebook)

    def from_codes(self, codes: list[Tensor]) -> Tensor:
        return sum(up(book(c).transpose(1, 2)) for up, book, c in zip(self.up, self.books, codes, strict=False))


class Residual(nn.Module):
    """[B, T, D]; codes [B, Q, T]; one straight-through of the sum."""

    def __init__(self, dim: int = 16, levels: int = 4, size: int = 32) -> None:
        super().__init__()
        self.books = nn.ParameterList(nn.Parameter(torch.randn(size, dim) * 0.5**i) for i in range(levels))
        self.quantize_dropout = False

    def used(self) -> int:
        return len(self.books)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r, total, codes, loss = x, 0.0, [], 0.0
        for book in list(self.books)[: self.used()]:
            found = torch.cdist(r, book.expand(r.shape[0], -1, -1)).argmin(-1)
            q = book[found]
            loss = loss + self.pull(r, q)
            r, total = self.rest(x, r, q), total + q
            codes.append(found)
        return x + (total - x).detach(), torch.stack(codes, 1), loss

    def pull(self, r: Tensor, q: Tensor) -> Tensor:
        return F.mse_loss(q, r.detach()) + 0.25 * F.mse_loss(r, q.detach())

    def rest(self, x: Tensor, r: Tensor, q: Tensor) -> Tensor:
        return r - q.detach()

    def decode(self, codes: Tensor) -> Tensor:
        return sum(book[c] for book, c in zip(self.books, codes.unbind(1), strict=False))


class Product(nn.Module):
    """Groups of features side by side, each with its own codebook; [B, T, D] and codes [B, T, G]."""

    def __init__(self, dim: int = 16, groups: int = 2, size: int = 24) -> None:
        super().__init__()
        self.codebooks = nn.Parameter(torch.randn(groups, size, dim // groups))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        parts = x.view(*x.shape[:-1], self.codebooks.shape[0], -1)
        codes = (parts[..., None, :] - self.codebooks).pow(2).sum(-1).argmin(-1)
        q = torch.stack([b[c] for b, c in zip(self.codebooks, codes.unbind(-1), strict=True)], -2).view_as(x)
        loss = F.mse_loss(q, x.detach()) + 0.5 * F.mse_loss(x, q.detach())
        return {"z_q": x + (q - x).detach(), "indices": codes, "loss": loss}


class Heads(nn.Module):
    """Several heads of one shared codebook."""

    def __init__(self, dim: int = 16, heads: int = 4, size: int = 24) -> None:
        super().__init__()
        self.heads, self.codebook = heads, nn.Embedding(size, dim // heads)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = x.view(*x.shape[:-1], self.heads, -1)
        codes = torch.cdist(h.reshape(-1, h.shape[-1]), self.codebook.weight).argmin(-1).view(h.shape[:-1])
        q = self.codebook(codes).view_as(x)
        return x + (q - x).detach(), codes, F.mse_loss(q, x.detach()) + 0.25 * F.mse_loss(x, q.detach())


class Cosine(nn.Module):
    """ViT-VQGAN: codes and latents on a sphere."""

    def __init__(self, n_embed: int = 48, embed_dim: int = 12, beta: float = 0.25) -> None:
        super().__init__()
        self.embedding, self.beta = nn.Embedding(n_embed, embed_dim), beta

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z_norm, table = F.normalize(z, dim=-1), F.normalize(self.embedding.weight, dim=-1)
        codes = (z_norm @ table.t()).argmax(-1)
        q = table[codes]
        loss = self.beta * (q.detach() - z_norm).pow(2).mean() + (q - z_norm.detach()).pow(2).mean()
        return z_norm + (q - z_norm).detach(), loss, codes


class Scalar(nn.Module):
    """FSQ between two projections; integer codes."""

    def __init__(self, dim: int = 20, levels: tuple[int, ...] = (5, 5, 3, 7)) -> None:
        super().__init__()
        self.project_in, self.project_out = nn.Linear(dim, len(levels)), nn.Linear(len(levels), dim)
        self.register_buffer("top", torch.tensor([(n - 1) // 2 for n in levels]), persistent=False)
        self.register_buffer("basis", torch.tensor([1, *levels[:-1]]).cumprod(0), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.project_in(x)) * self.top
        hard = h + (h.round() - h).detach()
        codes = ((hard.detach() + self.top) * self.basis).sum(-1).round().long()
        return self.project_out(hard / self.top), codes


class Signs(nn.Module):
    """LFQ with an entropy loss of the right sign."""

    sign = -1.0

    def __init__(self, bits: int = 7) -> None:
        super().__init__()
        grid = torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1
        self.register_buffer("codebook", grid.float() * 2 - 1, persistent=False)
        self.register_buffer("weights", 2 ** torch.arange(bits), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = torch.where(x > 0, 1.0, -1.0)
        p = (4 * x @ self.codebook.t()).softmax(-1)
        each = -(p * (p + 1e-8).log()).sum(-1).mean()
        use = p.flatten(0, -2).mean(0)
        together = -(use * (use + 1e-8).log()).sum()
        loss = 0.1 * (each + self.sign * together) + 0.25 * F.mse_loss(x, q.detach())
        return x + (q - x).detach(), ((q > 0) * self.weights).sum(-1), loss


class Gumbel(nn.Module):
    """Straight-through Gumbel softmax with a KL loss, as in DALL-E's first stage; [B, C, H, W]."""

    def __init__(self, channels: int = 16, n_embed: int = 32, embed_dim: int = 16) -> None:
        super().__init__()
        self.proj, self.embed, self.temperature = nn.Conv2d(channels, n_embed, 1), nn.Embedding(n_embed, embed_dim), 1.0

    def draw(self, logits: Tensor) -> Tensor:
        return F.gumbel_softmax(logits, tau=self.temperature, dim=1, hard=not self.training)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, tuple[None, None, Tensor]]:
        logits = self.proj(z)
        hot = (
            self.draw(logits) if self.training else F.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1).float()
        )
        q = torch.einsum("bnhw,nd->bdhw", hot, self.embed.weight)
        p = logits.softmax(1)
        kl = 5e-4 * (p * torch.log(p * logits.shape[1] + 1e-10)).sum(1).mean()
        return q, kl, (None, None, hot.argmax(1))


class Linear(nn.Module):
    """SimVQ: a fixed table behind a trained linear map."""

    def __init__(self, dim: int = 16, size: int = 40) -> None:
        super().__init__()
        self.register_buffer("frozen", torch.randn(size, dim))
        self.map = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        table = self.map(self.frozen)
        codes = torch.cdist(x.reshape(-1, x.shape[-1]), table).argmin(-1).view(x.shape[:-1])
        q = table[codes]
        return x + (q - x).detach(), codes, F.mse_loss(q, x.detach()) + 0.25 * F.mse_loss(x, q.detach())


class TwoMethods(nn.Module):
    """`encode` and `decode`; forward returns the vectors alone and keeps the loss."""

    def __init__(self, dim: int = 16, size: int = 48) -> None:
        super().__init__()
        self.codebook, self.loss = nn.Embedding(size, dim), None

    def encode(self, x: Tensor) -> Tensor:
        return torch.cdist(x, self.codebook.weight.expand(x.shape[0], -1, -1)).argmin(-1)

    def decode(self, codes: Tensor) -> Tensor:
        return self.codebook(codes)

    def forward(self, x: Tensor) -> Tensor:
        q = self.decode(self.encode(x))
        self.loss = F.mse_loss(q, x.detach()) + 0.25 * F.mse_loss(x, q.detach())
        return x + (q - x).detach()


class EncodeOnly(nn.Module):
    """Inference alone, with buffers that a checkpoint fills: no forward."""

    def __init__(self, dim: int = 16, levels: int = 3, size: int = 32) -> None:
        super().__init__()
        for i in range(levels):
            self.register_buffer(f"embed_{i}", torch.zeros(size, dim))
        self.books = [f"embed_{i}" for i in range(levels)]

    def encode(self, x: Tensor) -> Tensor:
        r, codes = x.transpose(1, 2), []
        for name in self.books:
            book = getattr(self, name)
            codes.append(torch.cdist(r, book.expand(r.shape[0], -1, -1)).argmin(-1))
            r = r - book[codes[-1]]
        return torch.stack(codes)

    def decode(self, codes: Tensor) -> Tensor:
        return sum(getattr(self, n)[c] for n, c in zip(self.books, codes.transpose(0, 1), strict=True)).transpose(1, 2)


class Nested(NamedTuple):
    """A loss beside a dict of details."""

    output: Tensor
    loss: Tensor
    info: dict[str, Any]


class Video(nn.Module):
    """[B, C, T, H, W], a nested result with a usage counter."""

    def __init__(self, dim: int = 12, size: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, dim)
        self.register_buffer("used", torch.zeros(size))

    def forward(self, x: Tensor) -> Nested:
        y = x.movedim(1, -1)
        codes = torch.cdist(y.reshape(-1, y.shape[-1]), self.embedding.weight).argmin(-1)
        q = self.embedding(codes).view_as(y)
        if self.training:
            self.used += torch.bincount(codes, minlength=len(self.used))
        loss = F.mse_loss(q, y.detach()) + 0.25 * F.mse_loss(y, q.detach())
        return Nested(
            (y + (q - y).detach()).movedim(-1, 1), loss, {"indices": codes.view(y.shape[:-1]), "n": len(self.used)}
        )


class Square(TwoMethods):
    """As many codes as features."""

    def __init__(self) -> None:
        super().__init__(32, 32)


class Fewer(Residual):
    """In training a random number of levels, and as many columns of codes."""

    def used(self) -> int:
        return random.randrange(1, len(self.books) + 1) if self.training else len(self.books)


class SummedLoss(Tutorial):
    """A mean over features and a sum over tokens: another scale, nothing else."""

    def loss(self, x: Tensor, q: Tensor) -> Tensor:
        return 1e-3 * super().loss(x, q) * x.numel()


class Flat(nn.Module):
    """Single vectors [N, D]."""

    def __init__(self, dim: int = 10, size: int = 20) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(size, dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, _ = x.shape
        codes = torch.cdist(x, self.table).argmin(1)
        q = self.table[codes]
        loss = (q - x.detach()).pow(2).mean() + 0.25 * (x - q.detach()).pow(2).mean()
        return x + (q - x).detach(), codes.view(n), loss


HEALTHY: dict[str, Callable[[], nn.Module]] = {
    cls.__name__: cls
    for cls in (
        Tutorial, SilentTutorial, Sonnet, Lucid, Codec, Residual, Product, Heads, Cosine, Scalar, Signs, Gumbel,
        Linear, TwoMethods, EncodeOnly, Masked, Video, Square, Fewer, SummedLoss, Flat,
    )
}  # fmt: skip
HEALTHY["dropping codec"] = lambda: Codec(drop=True)
HEALTHY["one head"] = lambda: Heads(heads=1)
HEALTHY["long codec"] = lambda: Codec(levels=6)

"""What the quantizers are measured against: libraries where installed, and the formulas of widely copied code."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.console import out

DECAY = 0.99


@functools.cache
def installed(name: str, *needed: str) -> ModuleType | None:
    """The module, if it can be imported and has what is `needed` of it; a broken one is warned of, once.

    Some libraries import their parts only when these are asked for, and a broken one may raise anything then.
    """
    if importlib.util.find_spec(name.split(".")[0]) is None:
        return None
    try:
        module = importlib.import_module(name)
        for part in needed:
            getattr(module, part)
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        out.warn(f"`{name}` is installed but cannot be used, so it is left out: {reason}")
        return None
    return module


class EnCodecFormula(nn.Module):
    """The search and update that EnCodec and its many descendants use, as formulas: three N x K terms, one-hot sums.

    forward: [1, N, D] -> (quantized, commitment).
    """

    embed: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(size, dim))
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", self.embed.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.detach().reshape(-1, x.shape[-1])
        table = self.embed.t()
        near = -(flat.square().sum(1, keepdim=True) - 2 * flat @ table + table.square().sum(0, keepdim=True))
        codes = near.max(1).indices
        value = F.embedding(codes, self.embed).view(x.shape)
        if self.training:
            chosen = F.one_hot(codes, self.embed.shape[0]).to(flat.dtype)
            self.counts.mul_(DECAY).add_(chosen.sum(0), alpha=1 - DECAY)
            self.sums.mul_(DECAY).add_(chosen.t() @ flat, alpha=1 - DECAY)
            smooth = (self.counts + 1e-5) / (self.counts.sum() + 1e-5 * self.embed.shape[0]) * self.counts.sum()
            self.embed.copy_(self.sums / smooth[:, None])
        return x + (value - x).detach(), F.mse_loss(value.detach(), x)


class GumbelFormula(nn.Module):
    """The Gumbel quantizer of wav2vec 2.0 as transformers computes it: probabilities times all code vectors."""

    def __init__(self, dim: int, size: int, groups: int) -> None:
        super().__init__()
        self.groups, self.size = groups, size
        self.codevectors = nn.Parameter(torch.rand(1, groups * size, dim // groups))
        self.weight_proj = nn.Linear(dim, groups * size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, length, _ = x.shape
        logits = self.weight_proj(x).view(batch * length * self.groups, self.size)
        if self.training:
            probs = F.gumbel_softmax(logits.float(), tau=2.0, hard=True)
            usage = logits.float().view(batch * length, self.groups, self.size).softmax(-1).mean(0)
        else:
            probs = F.one_hot(logits.argmax(-1), self.size).to(logits.dtype)
            usage = probs.view(batch * length, self.groups, self.size).mean(0)
        perplexity = torch.exp(-(usage * torch.log(usage + 1e-7)).sum(-1)).sum()
        per_code = probs.view(batch * length, -1, 1) * self.codevectors
        value = per_code.view(batch * length, self.groups, self.size, -1).sum(-2)
        return value.view(batch, length, -1), perplexity


def trained(module: nn.Module, x: Tensor, upstream: Tensor) -> Callable[[], Any]:
    """One training step of a peer: forward, backward from `upstream` and its own loss."""
    module.train()

    def step() -> None:
        x.grad = None
        module.zero_grad(set_to_none=True)
        out = module(x)
        losses = [t for t in out[1:] if t.is_floating_point() and t.requires_grad]
        torch.autograd.backward([out[0], *(t.sum() for t in losses)], [upstream, *(t.new_ones(()) for t in losses)])

    return step

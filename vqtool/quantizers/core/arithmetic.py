"""How other libraries compute the nearest code, rounding and all: near a tie their codes depend on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SCORES = 2**28  # computed at a time: 1 GiB


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """The search of one library.

    `choose` gives the code [N] of each of `tokens` [N, d] among the rows of a table [K, d].
    """

    choose: Callable[[Tensor, Tensor], Tensor]
    by_angle: bool = False  # codes are compared by their direction, and flow on with their own length
    adds: bool = False  # what flows on is z + (q - z), as straight-through estimators are mostly written

    def search(self, tokens: Tensor, table: Tensor) -> Tensor:
        """The code [N] of each of `tokens` [N, d]."""
        rows = max(1, SCORES // len(table))
        if torch.compiler.is_compiling() or len(tokens) <= rows:
            return self.choose(tokens, table)
        return torch.cat([self.choose(some, table) for some in tokens.split(rows)])


def encodec(tokens: Tensor, table: Tensor) -> Tensor:
    """EnCodec (Défossez et al. 2022, arXiv 2210.13438): -(|z|^2 - 2 z e + |e|^2)."""
    away = tokens.pow(2).sum(1, keepdim=True) - 2 * tokens @ table.t() + table.t().pow(2).sum(0, keepdim=True)
    return (-away).max(-1).indices


def vqgan(tokens: Tensor, table: Tensor) -> Tensor:
    """VQGAN (Esser et al. 2020, arXiv 2012.09841): |z|^2 + |e|^2 - 2 z e."""
    away = (tokens**2).sum(1, keepdim=True) + (table**2).sum(1) - 2 * torch.einsum("bd,dn->bn", tokens, table.t())
    return away.argmin(1)


def mimi(tokens: Tensor, table: Tensor) -> Tensor:
    """Mimi (Défossez et al. 2024, arXiv 2410.00037): torch's distance."""
    return torch.cdist(tokens[None], table[None], p=2)[0].argmin(-1)


def lucidrains(tokens: Tensor, table: Tensor) -> Tensor:
    """vector-quantize-pytorch: the root of |z|^2 + |e|^2 - 2 z e, of 1e-8 at least."""
    z, e = tokens[None], table[None]
    product = torch.einsum("bid,bjd->bij", z, e) * -2
    return (-((z**2).sum(-1)[..., None] + (e**2).sum(-1)[:, None] + product).clamp(min=1e-8).sqrt())[0].argmax(-1)


def similarity(tokens: Tensor, table: Tensor) -> Tensor:
    """vector-quantize-pytorch with `use_cosine_sim`: z e, of vectors of length one."""
    return torch.einsum("hnd,hcd->hnc", tokens[None], table[None])[0].argmax(-1)


def dac(tokens: Tensor, table: Tensor) -> Tensor:
    """DAC (Kumar et al. 2023, arXiv 2306.06546): EnCodec's, of vectors of length one."""
    z, e = F.normalize(tokens), F.normalize(table)
    away = z.pow(2).sum(1, keepdim=True) - 2 * z @ e.t() + e.pow(2).sum(1, keepdim=True).t()
    return (-away).max(1).indices


def dac_transformers(tokens: Tensor, table: Tensor) -> Tensor:
    """The same in transformers, where the sign of the last term is another; it is one for all codes."""
    z, e = F.normalize(tokens), F.normalize(table)
    near = -(z.pow(2).sum(1, keepdim=True) - 2 * z @ e.t()) + e.pow(2).sum(1, keepdim=True).t()
    return near.max(1).indices


ARITHMETIC: Mapping[str, Arithmetic] = {
    "encodec": Arithmetic(encodec),
    "vqgan": Arithmetic(vqgan),
    "mimi": Arithmetic(mimi),
    "vector-quantize-pytorch": Arithmetic(lucidrains),
    "vector-quantize-pytorch-cosine": Arithmetic(similarity),
    "dac": Arithmetic(dac, by_angle=True, adds=True),
    "dac-transformers": Arithmetic(dac_transformers, by_angle=True, adds=True),
}

"""Maps of latents to the width that codes have, and back."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Linear maps with a bias on the way in, or both ways; convolutions of width one, without and with.
Maps = Literal["learned", "affine", "conv", "affine-conv"]


def made_maps(kind: str, dim: int, inside: int, *, bias: bool = False) -> tuple[nn.Module | None, nn.Module | None]:
    """The maps into a width and out of it; none where `inside` is 0. `bias`: the second of "learned" has one too."""
    if not inside:
        return None, None
    if kind == "repeat":
        return Repeat(inside // dim), Sum(inside // dim)
    both, linear = kind.startswith("affine"), Pointwise if kind.endswith("conv") else nn.Linear
    return linear(dim, inside, bias=both or kind == "learned"), linear(inside, dim, bias=both or bias)


class Pointwise(nn.Linear):
    """A linear map of rows [N, in] that is computed, and rounded, as a convolution of width one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x.t()[None], self.weight[:, :, None], self.bias)[0].t().contiguous()


class Repeat(nn.Module):
    """Rows [N, d] several times side by side: each part gets them all."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(1, self.times)


class Sum(Repeat):
    """What several parts say [N, times * d], added up."""

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = x.chunk(self.times, 1)
        return sum(rest, first)


class Frozen(nn.Module):
    """A linear map of random orthonormal rows or columns [out, in] that stays as it is."""

    weight: Tensor

    def __init__(self, out: int, into: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(
            min(out, into)
        )  # the same both ways: out of the plane is its transpose
        rows = torch.linalg.qr(torch.randn(max(out, into), min(out, into), generator=generator, device="cpu"))[0]
        self.register_buffer("weight", rows if out > into else rows.T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

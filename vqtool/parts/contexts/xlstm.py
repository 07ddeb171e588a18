"""A recurrent network with matrix memory and exponential gates (xLSTM), its blocks reading forwards and backwards."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Context
from vqtool.errors import VqtoolError
from vqtool.layers.attention import FeedForward
from vqtool.layers.padding import zero_masked


class XlstmContext(Context):
    """mLSTM blocks in turns of direction (Beck et al. 2024, arXiv 2405.04517; Alkin et al. 2024, arXiv 2406.04303).

    What `mask` leaves out passes each memory on as it is and writes nothing, so padding changes no real token.
    """

    def __init__(
        self,
        dim: int,
        *,
        width: Annotated[int, Gt(0), Doc("features inside")] = 128,
        layers: Annotated[int, Ge(2), Doc("blocks; every second one reads from the end")] = 4,
        heads: Annotated[int, Gt(0), Doc("memories of a block; must divide `width`")] = 4,
        dropout: Annotated[float, Interval(ge=0, lt=1), Doc("share of features dropped in training")] = 0.1,
    ) -> None:
        super().__init__()
        if width % heads:
            raise VqtoolError(f"`width` {width} is not a multiple of `heads` {heads}")
        self.dim = dim
        self.start = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(MemoryBlock(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.end = nn.Linear(width, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, D] -> [B, T, D]; zeros where `mask` [B, T] is false."""
        x = self.drop(self.start(zero_masked(z, mask)))
        for block in self.blocks:
            x, mask = block(x, mask).flip(1), None if mask is None else mask.flip(1)
        if len(self.blocks) % 2:
            x, mask = x.flip(1), None if mask is None else mask.flip(1)
        return zero_masked(self.end(self.norm(x)), mask)


class MemoryBlock(nn.Module):
    """One pre-norm block: matrix memory, then feed-forward. [B, T, W] -> [B, T, W]; reads the past only."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_memory, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.gates = nn.Linear(width, 2 * heads)
        self.open = nn.Linear(width, width)
        self.norm_heads = nn.GroupNorm(heads, width)
        self.out = nn.Linear(width, width)
        self.feed = FeedForward(width, dropout)
        self.drop = nn.Dropout(dropout)
        with torch.no_grad():  # memories that reach far at first, each a little further, and are written to carefully
            self.gates.weight.zero_()
            self.gates.bias.copy_(torch.cat([torch.full((heads,), -2.0), torch.linspace(3.0, 6.0, heads)]))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`mask` [B, T] is true for real tokens."""
        inner = self.norm_memory(x)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(inner).chunk(3, -1)
        )
        write, keep = self.gates(inner).float().transpose(1, 2).chunk(2, dim=1)  # [B, H, T]
        kept = F.logsigmoid(keep)
        if mask is not None:
            write, kept = write.masked_fill(~mask[:, None], -torch.inf), kept.masked_fill(~mask[:, None], 0)
        read = recall(query.float(), key.float(), value.float(), write, kept).to(x.dtype)
        read = self.norm_heads(read.transpose(1, 2).flatten(2).flatten(0, 1)).view(x.shape)
        x = x + self.drop(self.out(read * torch.sigmoid(self.open(inner))))
        return x + self.feed(self.norm_feed(x))


def recall(query: Tensor, key: Tensor, value: Tensor, write: Tensor, kept: Tensor) -> Tensor:
    """What `query` [B, H, T, d] reads at each step from a memory of `key` and `value`, all steps at once.

    C_t = f_t C_{t-1} + i_t v_t k_t^T, n_t = f_t n_{t-1} + i_t k_t and h_t = C_t q_t / max(|n_t q_t|, 1), with k over
    the root of d, i = exp(write) and f = exp(kept), [B, H, T] (Beck et al. 2024, equations 19 to 27; appendix A.3).
    """
    steps, far = query.shape[2], kept.cumsum(2)
    past = torch.ones(steps, steps, dtype=torch.bool, device=query.device).tril()
    weight = (far[..., :, None] - far[..., None, :] + write[..., None, :]).masked_fill(~past, -torch.inf)
    most = weight.amax(3, keepdim=True).clamp_min(0)  # any number that no weight exceeds cancels out
    scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5 * (weight - most).exp()
    return scores @ value / torch.maximum(scores.sum(3, keepdim=True).abs(), (-most).exp())

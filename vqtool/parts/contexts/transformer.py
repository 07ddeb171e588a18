"""A bidirectional transformer whose positions come from a convolution."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Context
from vqtool.errors import VqtoolError
from vqtool.layers.attention import FeedForward, SelfAttention
from vqtool.layers.padding import zero_masked
from vqtool.layers.token_transformer import Dropout, Heads, Layers, Width


class TransformerContext(Context):
    """wav2vec 2.0's context network in its pre-norm form (Baevski et al. 2020, arXiv 2006.11477, section 2).

    A grouped convolution over the tokens, added to them, encodes their relative positions, so windows may be of any
    length. What `mask` leaves out reaches no real token.
    """

    def __init__(
        self,
        dim: int,
        *,
        width: Width = 128,
        layers: Layers = 3,
        heads: Heads = 4,
        kernel: Annotated[int, Gt(0), Doc("tokens that the convolution of positions spans")] = 31,
        groups: Annotated[int, Gt(0), Doc("groups of that convolution; must divide `width`")] = 16,
        dropout: Dropout = 0.1,
    ) -> None:
        super().__init__()
        if width % heads or width % groups:
            raise VqtoolError(f"heads = {heads} and groups = {groups} must both divide `width` = {width}")
        self.dim = dim
        self.start = nn.Linear(dim, width)
        self.place = nn.Conv1d(width, width, kernel, groups=groups)
        self.blocks = nn.ModuleList(OpenBlock(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.end = nn.Linear(width, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, D] -> [B, T, D]; zeros where `mask` [B, T] is false."""
        x = zero_masked(self.start(zero_masked(z, mask)), mask)
        kernel = self.place.kernel_size[0]
        around = F.pad(x.transpose(1, 2), (kernel // 2, (kernel - 1) // 2))
        x = self.drop(x + F.gelu(self.place(around)).transpose(1, 2))
        for block in self.blocks:
            x = block(x, mask)
        return zero_masked(self.end(self.norm(x)), mask)


class OpenBlock(nn.Module):
    """One pre-norm block: attention to all real tokens, then feed-forward. [B, T, W] -> [B, T, W]."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attend, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = SelfAttention(width, heads, causal=False)
        self.feed = FeedForward(width, dropout)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`mask` [B, T] is true for real tokens."""
        x = x + self.drop(self.attend(self.norm_attend(x), mask=mask))
        return x + self.feed(self.norm_feed(x))

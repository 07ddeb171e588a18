"""Attention blocks: self-attention, causal with a cache or open; cross-attention to a condition; feed-forward."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtool.layers.init import zeroed


class KeyValues:
    """The keys and values [B, heads, steps, width / heads] of the steps that one layer has already taken.

    With `room` 0 nothing is kept: the layer sees its whole sequence in one pass, as in training. With room for N steps
    the memory is taken once, and written in place (so only where no gradient is needed).
    """

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the newest steps and give all of them."""
        if not self.room:
            return keys, values
        if self._keys is None or self._values is None:
            shape = (*keys.shape[:2], self.room, keys.shape[-1])
            self._keys, self._values = keys.new_empty(shape), values.new_empty(shape)
        stop = self.length + keys.shape[2]
        self._keys[:, :, self.length : stop] = keys
        self._values[:, :, self.length : stop] = values
        self.length = stop
        return self._keys[:, :, :stop], self._values[:, :, :stop]

    def pick(self, rows: Tensor) -> None:
        """Let row b continue from the past of row `rows[b]`: beam search, or several paths from one past."""
        if self._keys is not None and self._values is not None:
            self._keys = self._picked(self._keys, rows)
            self._values = self._picked(self._values, rows)

    def _picked(self, kept: Tensor, rows: Tensor) -> Tensor:
        past = kept[rows, :, : self.length]
        if len(past) != len(kept):
            kept = kept.new_empty(len(past), *kept.shape[1:])
        kept[:, :, : self.length] = past
        return kept


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, N, W] -> [B, heads, N, W / heads]


class SelfAttention(nn.Module):
    """Self-attention: a step reads itself and, if causal, the steps before it, else all. [B, n, W] -> [B, n, W]."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, *, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, past: KeyValues | None = None, *, mask: Tensor | None = None, angles: Tensor | None = None
    ) -> Tensor:
        """Attend from the n newest steps `x` to those in `past` (causal attention only) and to themselves.

        Args:
            x: the steps [B, n, W].
            past: the steps already taken, which `x` joins; None: there is none.
            mask: [B, n] true for real steps, where there is no past; others are read by none. A row without any real
                step gets finite values without meaning.
            angles: of rotary positions [n, W / heads / 2], as `rotary_angles` gives them.
        """
        query, key, value = (_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        if angles is not None:
            query, key = rotated(query, angles), rotated(key, angles)
        before, steps = (past.length if past is not None else 0), x.shape[1]
        if past is not None:
            key, value = past.extend(key, value)
        allowed = None if mask is None else (mask | ~mask.any(1, keepdim=True))[:, None, None]  # [B, 1, 1, n]
        causal = self.causal and steps > 1
        if causal and (before or allowed is not None):  # causal within the block, open towards the past
            order = torch.ones(steps, before + steps, dtype=torch.bool, device=x.device).tril(before)
            itself = torch.eye(steps, dtype=torch.bool, device=x.device)  # else a row of padding would read nothing
            allowed = order if allowed is None else (allowed & order) | itself
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=allowed,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal and allowed is None,
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


def rotary_angles(places: Tensor, size: int, *, base: float = 10_000.0) -> Tensor:
    """Angles [N, size / 2] that turn the pairs of a head's `size` features (Su et al. 2021, arXiv 2104.09864).

    `places` [N, A] are positions along A axes, which share the pairs evenly; `size` is a multiple of 2 A. Products of
    turned queries and keys depend on differences of positions alone.
    """
    pairs = size // (2 * places.shape[1])
    rates = base ** (-torch.arange(pairs, device=places.device) / pairs)
    return (places[..., None] * rates).flatten(1)


def circular_angles(places: Tensor, size: int, length: int) -> Tensor:
    """The same of whole turns over `length` positions [N, 1]: the last one is next to the first."""
    turns = torch.arange(1, size // 2 + 1, device=places.device)
    return places * turns * (2 * math.pi / length)


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """`x` [B, heads, N, d] with the pairs (i, i + d / 2) of its features turned by `angles` [N, d / 2]."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).type_as(x)


class CrossAttention(nn.Module):
    """Attention from every step to all S positions of a condition [B, S, M]; the condition is not causal.

    The positions get Fourier features of where they lie in the window, so that S may differ from call to call.
    """

    frequencies = 16

    def __init__(self, width: int, heads: int, condition_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(condition_dim + 2 * self.frequencies, 2 * width)
        self.out = nn.Linear(width, width)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the condition, to be computed once and used at every step."""
        places = _fourier(tokens.shape[1], self.frequencies).to(tokens)
        placed = torch.cat([tokens, places.expand(tokens.shape[0], -1, -1)], dim=-1)
        key, value = (_heads(part, self.heads) for part in self.key_value(placed).chunk(2, dim=-1))
        return key, value

    def forward(self, x: Tensor, read: tuple[Tensor, Tensor]) -> Tensor:
        """[B, n, W] and what `read` gave -> [B, n, W]."""
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(_heads(self.query(x), self.heads), *read, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))


def _fourier(length: int, frequencies: int) -> Tensor:
    """[S, 2 F]: sines and cosines of 1 .. F half turns over the window, at the middle of each of its S positions."""
    turns = (torch.arange(length) + 0.5) / length
    angles = math.pi * turns[:, None] * torch.arange(1, frequencies + 1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class FilmNorm(nn.Module):
    """Layer norm whose gain and shift follow a vector [B, M] (Perez et al. 2018); starts as the plain layer norm."""

    def __init__(self, width: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.film = zeroed(nn.Linear(condition_dim, 2 * width)) if condition_dim else None

    def forward(self, x: Tensor, vector: Tensor | None) -> Tensor:
        """[B, n, W] -> [B, n, W]."""
        x = self.norm(x)
        if self.film is None or vector is None:
            return x
        gain, shift = self.film(vector)[:, None].chunk(2, dim=-1)
        return x * (1 + gain) + shift


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between. [..., W] -> [..., W]."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout))


class Block(nn.Module):
    """One pre-norm transformer block: self-attention, cross-attention to the condition (if any), feed-forward.

    Without `cross` the block reads the condition's vector only.
    """

    def __init__(
        self, width: int, heads: int, condition_dim: int, dropout: float, *, causal: bool = True, cross: bool = True
    ) -> None:
        super().__init__()
        self.norm_self = FilmNorm(width, condition_dim)
        self.attend = SelfAttention(width, heads, dropout, causal=causal)
        cross = cross and condition_dim > 0
        self.norm_cross = nn.LayerNorm(width) if cross else None
        self.cross = CrossAttention(width, heads, condition_dim, dropout) if cross else None
        self.norm_feed = FilmNorm(width, condition_dim)
        self.feed = FeedForward(width, dropout)
        self.drop = nn.Dropout(dropout)

    def read(self, tokens: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Keys and values of the condition's `tokens`; None for a block without a condition."""
        return None if self.cross is None or tokens is None else self.cross.read(tokens)

    def forward(
        self,
        x: Tensor,
        past: KeyValues | None,
        vector: Tensor | None,
        read: tuple[Tensor, Tensor] | None,
        *,
        angles: Tensor | None = None,
    ) -> Tensor:
        """[B, n, W] -> [B, n, W]; `read` is what `self.read` gave for the condition's tokens.

        `angles` are those of `SelfAttention`.
        """
        x = x + self.drop(self.attend(self.norm_self(x, vector), past, angles=angles))
        if self.cross is not None and self.norm_cross is not None and read is not None:
            x = x + self.drop(self.cross(self.norm_cross(x), read))
        return x + self.feed(self.norm_feed(x, vector))


class CompiledBlock:
    """A block without a condition, compiled for generation: one more step of every row, [B, W] -> [B, W].

    What `Block` computes, in as few calls as it takes: for few rows they cost more than the arithmetic. The matrices
    are stored as the products read them, and what can be multiplied into them is: gain and shift of the norms, the
    scale of the queries, the factors of GELU, u (1 + erf u) with u = x / sqrt 2. It holds copies of the weights, so it
    lives only as long as one sequence is generated.
    """

    def __init__(self, block: Block, past: KeyValues) -> None:
        attend = block.attend
        first, _, second, _ = (cast(nn.Linear, layer) for layer in block.feed)
        self.past, self.heads, self.width = past, attend.heads, attend.out.in_features
        scale = torch.ones(3 * self.width).to(attend.qkv.weight)
        scale[: self.width] /= math.sqrt(self.width / self.heads)
        self.qkv = _after(block.norm_self.norm, attend.qkv.weight * scale[:, None], attend.qkv.bias * scale)
        self.first = _after(block.norm_feed.norm, first.weight / math.sqrt(2), first.bias / math.sqrt(2))
        self.out = (attend.out.bias, attend.out.weight.t().contiguous())
        self.second = (second.bias, second.weight.t().contiguous() / math.sqrt(2))
        self.shape, self.split = (self.width,), (3, self.heads, 1, self.width // self.heads)
        self.eps = block.norm_self.norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        """The block's output for the newest step `x`, which also joins the past."""
        batch = x.shape[0]
        qkv = torch.addmm(self.qkv[0], torch.layer_norm(x, self.shape, eps=self.eps), self.qkv[1])
        query, key, value = qkv.view(batch, *self.split).unbind(1)
        key, value = self.past.extend(key, value)
        look = torch.matmul(query, key.mT).softmax(-1)
        x = x + torch.addmm(self.out[0], torch.matmul(look, value).view(batch, self.width), self.out[1])
        u = torch.addmm(self.first[0], torch.layer_norm(x, self.shape, eps=self.eps), self.first[1])
        return x + torch.addmm(self.second[0], torch.addcmul(u, u, torch.erf(u)), self.second[1])


def _after(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Bias and transposed weight that do to a norm's plain output what the layer does to its scaled and shifted one."""
    return bias + weight @ norm.bias, (weight * norm.weight).t().contiguous()

"""Gumbel-softmax choice of codes from logits, a chunk of tokens at a time; straight-through, with its own backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vqtool.api.quantizer import content_keys

CHUNK = 2**18  # logits handled at a time


def choose(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor,
    vectors: Tensor,
    valid: Tensor | None,
    temperature: float,
    keys: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One code per group for each token (Jang et al. 2016; wav2vec 2.0, Baevski et al. 2020, section 2).

    Args:
        tokens: [N, D], finite. weight [G*K, D] and bias [G*K]: the logits' linear map.
        vectors: [G, K, d] the codes, G * d wide together.
        valid: [N] bool; the other tokens count for nothing. None: all count.
        temperature: of the softmax behind the gradient.
        keys: [N] hashes that the noise of each token is made from; None: no noise.

    Returns:
        (value [N, G * d], codes [N, G] long, usage [G, K]): the chosen vectors, whose gradient reaches `vectors` and,
        through softmax((logits + noise) / temperature), the logits; and the mean of softmax(logits), with gradient.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (tokens, weight, bias, vectors)):
        return GumbelChoice.apply(tokens, weight, bias, vectors, valid, temperature, keys)
    return forwards(tokens, weight, bias, vectors, valid, temperature, keys, None, None)


class GumbelChoice(torch.autograd.Function):
    """Keeps the two softmaxes [N, G, K]; everything else lives for one chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        weight: Tensor,
        bias: Tensor,
        vectors: Tensor,
        valid: Tensor | None,
        temperature: float,
        keys: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        groups, size, _ = vectors.shape
        noisy = tokens.new_empty(tokens.shape[0], groups, size)
        plain = torch.empty_like(noisy)
        value, codes, usage = forwards(tokens, weight, bias, vectors, valid, temperature, keys, noisy, plain)
        ctx.save_for_backward(tokens, weight, vectors, valid, codes, noisy, plain)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(codes)
        ctx.set_materialize_grads(False)
        return value, codes, usage

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor | None, _: None, by_usage: Tensor | None) -> tuple[Tensor | None, ...]:
        tokens, weight, vectors, valid, codes, noisy, plain = ctx.saved_tensors
        groups, size, width = vectors.shape
        by_vectors = torch.zeros_like(vectors)
        by_weight, by_bias = torch.zeros_like(weight), weight.new_zeros(weight.shape[0])
        by_tokens = torch.empty_like(tokens)
        if by_value is not None:
            by_value = by_value if valid is None else by_value.masked_fill(~valid[:, None], 0)
            by_value = by_value.view(tokens.shape[0], groups, width)
            for group in range(groups):
                index = codes[:, group].clamp_min(0)[:, None].expand(-1, width)
                by_vectors[group].scatter_add_(0, index, by_value[:, group])
        if by_usage is not None:
            by_usage = by_usage / (max(tokens.shape[0], 1) if valid is None else valid.sum().clamp_min(1))
        for part in slices(tokens, groups * size):
            by_logits = torch.zeros_like(plain[part])
            if by_value is not None:
                by_choice = torch.stack([by_value[part, g] @ vectors[g].t() for g in range(groups)], 1)
                by_logits = softmax_backward(by_choice, noisy[part]).div_(ctx.temperature)
            if by_usage is not None:
                by_plain = softmax_backward(by_usage.expand_as(plain[part]), plain[part])
                by_logits += by_plain if valid is None else by_plain.masked_fill(~valid[part, None, None], 0)
            by_logits = by_logits.flatten(1)
            torch.mm(by_logits, weight, out=by_tokens[part])
            by_weight.addmm_(by_logits.t(), tokens[part])
            by_bias += by_logits.sum(0)
        return by_tokens, by_weight, by_bias, by_vectors, None, None, None


def softmax_backward(gradient: Tensor, probs: Tensor) -> Tensor:
    """The gradient by the logits of a softmax over the last axis."""
    weighted = probs * gradient
    return weighted.addcmul_(probs, weighted.sum(-1, keepdim=True), value=-1)


@torch.no_grad()
def forwards(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor,
    vectors: Tensor,
    valid: Tensor | None,
    temperature: float,
    keys: Tensor | None,
    noisy: Tensor | None,
    plain: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`choose` without a gradient; `noisy` and `plain` [N, G, K] receive the softmaxes with and without noise."""
    groups, size, _ = vectors.shape
    codes = torch.empty(tokens.shape[0], groups, dtype=torch.long, device=tokens.device)
    usage = tokens.new_zeros(groups * size)
    columns = columns_of(groups * size, tokens.device) if keys is not None else None
    for part in slices(tokens, groups * size):
        logits = torch.addmm(bias, tokens[part], weight.t()).view(tokens[part].shape[0], groups, size)
        probs = torch.softmax(logits, -1) if plain is None else torch.softmax(logits, -1, out=plain[part])
        counted = probs.new_ones(probs.shape[0]) if valid is None else valid[part].to(probs.dtype)
        usage += counted @ probs.view(probs.shape[0], -1)
        if keys is not None:
            logits = logits - gumbel(keys[part], columns).view_as(logits)
        codes[part] = highest(logits)
        if noisy is not None:
            torch.softmax(logits / temperature if temperature != 1 else logits, -1, out=noisy[part])
    usage = usage / (max(tokens.shape[0], 1) if valid is None else valid.sum().clamp_min(1))
    value = torch.cat([vectors[g].index_select(0, codes[:, g]) for g in range(groups)], 1)
    if valid is not None:
        value = value.masked_fill(~valid[:, None], 0)
        codes = codes.masked_fill(~valid[:, None], -1)
    return value, codes, usage.view(groups, size)


def highest(logits: Tensor) -> Tensor:
    """The index of the first highest of `logits` [n, G, K] in each row [n, G]; on CPUs twice as fast as argmax."""
    if torch.compiler.is_compiling() or logits.device.type != "cpu":
        return logits.argmax(-1)
    size = logits.shape[-1]
    hits = torch.ge(logits, logits.amax(-1, keepdim=True), out=torch.empty_like(logits))
    countdown = torch.arange(size, 0, -1, dtype=logits.dtype)
    return (size - hits.mul_(countdown).amax(-1)).clamp_(max=size - 1).long()


def slices(tokens: Tensor, width: int) -> Iterator[slice]:
    """Chunks of the rows of `tokens`, for `width` logits each; one chunk in a compiled graph."""
    count = tokens.shape[0]
    if torch.compiler.is_compiling():
        yield slice(None)
        return
    step = max(8, (CHUNK if tokens.device.type == "cpu" else 64 * CHUNK) // width)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


@torch.no_grad()
def noise_keys(z: Tensor, weights: Tensor) -> Tensor:
    """Hashes [N], int32, of each token of `z` [B, T, D], its place t and the state of `weights`, which are trained."""
    batch, length, width = z.shape
    keys = content_keys(z.reshape(-1, width)).view(batch, length)
    places = torch.arange(length, device=z.device) * 0x1E3779B97F4A7C15
    keys = (keys ^ places) + content_keys(weights[:8]).sum()
    keys = (keys ^ (keys >> 31)) * 0x3F58476D1CE4E5B9
    return (keys ^ (keys >> 29)).reshape(-1).to(torch.int32)


def columns_of(width: int, device: torch.device) -> Tensor:
    """A hash of each column's number [width], int32."""
    numbers = (torch.arange(width, device=device) + 1) * 0x1E3779B97F4A7C15
    numbers = (numbers ^ (numbers >> 30)) * 0x3F58476D1CE4E5B9
    return (numbers ^ (numbers >> 27)).to(torch.int32)


def gumbel(keys: Tensor, columns: Tensor) -> Tensor:
    """Minus standard Gumbel noise [n, width]: log(-log u) for uniform u hashed from row and column, 5 fast passes.

    The usual generators cost several times the matrix product that the noise is added to, and have a state.
    """
    bits = keys[:, None] ^ columns[None, :]
    bits *= -0x7A143589  # 0x85EBCA77, prime, as int32
    bits ^= bits >> 15
    bits *= -0x3D4D51C3  # 0xC2B2AE3D, prime, as int32
    uniform = bits.float()
    uniform.mul_(2**-32 * (1 - 2**-20)).add_(0.5)
    return uniform.log_().neg_().log_()

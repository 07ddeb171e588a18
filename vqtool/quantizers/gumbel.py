"""Codes chosen by logits with Gumbel noise, in groups, as in wav2vec 2.0."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vqtool.errors import VqtoolError
from vqtool.quantizers.core.averages import look_up
from vqtool.quantizers.core.checked import preset
from vqtool.quantizers.core.composable import Coded, Composable, Layout
from vqtool.quantizers.core.draw import column_keys, gumbel, noise_keys
from vqtool.quantizers.core.entropy import entropy
from vqtool.quantizers.estimators.straight_through import mean_of, slices
from vqtool.quantizers.gpu import switch as gpu
from vqtool.quantizers.grouped import Groups
from vqtool.quantizers.vq import Size, Weights

Logits = Annotated[Literal["linear", "distance"], Doc("of a linear map, or of the distance to the code")]
Spread = Annotated[
    float, Gt(0), Doc("standard deviation of a token's logits over the codes; of a linear map at its start")
]
MOST = 4096  # codes whose logits a kernel holds in registers
CHUNK = 2**18  # logits handled at a time


# kind: gumbel
class Gumbel(Composable):
    """Codes chosen by logits with Gumbel noise, in groups, as in wav2vec 2.0.

    wav2vec 2.0's quantizer (Baevski et al. 2020, arXiv 2006.11477, section 2).

        self.vq = Gumbel(256, groups=2, codebook_size=320)
        self.vq.temperature = 1.0                # anneal it while training

    Each token has a logit for every code: of a linear map, or minus the squared distance between the code and the
    token's features of that group. In training the code is the argmax of logits + Gumbel noise and the gradient that
    of softmax((logits + noise) / temperature); in evaluation it is the argmax of the logits. Nothing needs a start.
    The noise is a hash of the token, its place and the weights: a second pass draws the same, the next step another.
    It has a standard deviation of 1.28, and distances of many features would drown it: those of a token are divided by
    their own standard deviation over the codes, and multiplied by `spread`.
    Terms, from the perplexity P_g of the mean softmax(logits) in each of the G groups of K codes: `log-perplexity`, the
    mean over groups of -log(P_g / K), in nats, 0 to log K; `hf`, (G K - sum P_g) / (G K), 0 to 1 - 1 / K (as
    transformers and fairseq compute it). Both are 0 when all codes are used alike; both see the soft choice only.
    """

    terms = frozenset({"log-perplexity", "hf"})
    knobs = frozenset({"temperature"})
    straight_through = False
    nearest = False

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *,
        codebook_size: Size = 320, groups: Groups = 1,
        temperature: Annotated[float, Gt(0), Doc("of the softmax behind the gradient")] = 2.0,
        logits: Logits = "linear", spread: Spread = 4.0,
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights)
        if dim % groups:
            raise VqtoolError(
                f"`groups` = {groups} does not divide the latent width {dim}",
                hint="choose a divisor, or another encoder width",
            )
        self.width = dim // groups
        self.codebook_sizes = (codebook_size,) * groups
        self.temperature, self.spread = temperature, spread
        self.linear = nn.Linear(dim, groups * codebook_size) if logits == "linear" else None
        self.codes = nn.Parameter(0.1 * torch.randn(groups, codebook_size, self.width))  # small: directions turn fast
        if self.linear is not None:
            nn.init.normal_(self.linear.weight, std=spread * dim**-0.5)
            nn.init.zeros_(self.linear.bias)

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        inputs, weight, bias = self.logits_of(tokens)
        groups, size, _ = self.codes.shape
        if size <= MOST and gpu.usable(tokens, groups=groups, check="choice"):
            logits = torch.addmm(bias, inputs, weight.t())
            how = (valid, shape[1], self.temperature, self.training)
            value, codes, usage = gpu.Choice.apply(logits, tokens.detach(), weight.detach(), self.codes, *how)
            return Coded(codes, value, terms=self.all_terms(usage), usage=usage.detach(), complete=True)
        keys = noise_keys(tokens.detach().view(*shape, tokens.shape[1]), weight.detach()) if self.training else None
        pick = Choice.apply if torch.is_grad_enabled() else choose
        value, codes, usage = pick(inputs, weight, bias, self.codes, valid, self.temperature, keys)
        return Coded(codes, value, terms=self.all_terms(usage), usage=usage.detach(), complete=True)

    def logits_of(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(inputs [N, I], weight [G * K, I], bias [G * K]) of the linear map that gives the logits of `tokens` [N, D].

        Half a squared distance is |x|^2 / 2 - (x e - |e|^2 / 2): but for the first, which all codes share, linear in
        (x, -1/2), whose variance over the codes is a quadratic form.
        """
        if self.linear is not None:
            return tokens, self.linear.weight, self.linear.bias
        groups, size, width = self.codes.shape
        known = torch.cat([self.codes, self.codes.square().sum(2, keepdim=True)], 2)  # [G, K, d + 1]
        known = known - known.mean(1, keepdim=True)
        covariance = known.transpose(1, 2) @ known / size
        x = F.pad(tokens.view(-1, groups, width), (0, 1), value=-0.5)  # [N, G, d + 1]
        variance = (torch.einsum("ngi,gij->ngj", x, covariance) * x).sum(2, keepdim=True)
        x = x * self.spread * variance.clamp_min(1e-12).rsqrt()
        return x.flatten(1), torch.block_diag(*known.unbind()), self.codes.new_zeros(groups * size)

    def all_terms(self, usage: Tensor) -> dict[str, Tensor]:
        """The terms by name, from the mean softmax of the logits [G, K]; 0 where no token counts."""
        some = (usage.detach().sum() > 0).to(usage.dtype)
        nats, size = entropy(usage), self.codebook_sizes[0]  # [G]
        return {
            "log-perplexity": some * (math.log(size) - nats.mean()),
            "hf": some * (1 - nats.exp().mean() / size),
        }

    def decoded(self, codes: Tensor) -> Tensor:
        columns = codes.unbind(1)
        known = torch.cat([look_up(book, c, c >= 0) for book, c in zip(self.codes, columns, strict=False)], 1)
        return F.pad(known, (0, self.dim - known.shape[1]))

    def tables(self) -> tuple[Tensor, ...]:
        """Each group's codes with zeros where the other groups are."""
        left = range(0, self.dim, self.width)
        return tuple(
            F.pad(book, (at, self.dim - at - self.width)) for book, at in zip(self.codes.detach(), left, strict=True)
        )


# kind: product-gumbel
class ProductGumbel(Gumbel):
    """Groups of codes chosen by logits with Gumbel noise, as in wav2vec 2.0.

    `gumbel` with two groups by default.
    """

    __init__ = preset(
        Gumbel, {"codebook_size": 320, "groups": 2, "temperature": 2.0, "logits": "linear", "spread": 4.0}
    )


@torch.no_grad()
def choose(
    tokens: Tensor, weight: Tensor, bias: Tensor, vectors: Tensor, valid: Tensor | None, temperature: float,
    keys: Tensor | None, noisy: Tensor | None = None, plain: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One code per group for each token (Jang et al. 2016; wav2vec 2.0, Baevski et al. 2020, section 2).

    Args:
        tokens: [N, I], finite. weight [G * K, I] and bias [G * K]: the logits' linear map.
        vectors: [G, K, d] the codes, G * d wide together.
        valid: [N] bool; the other tokens count for nothing. None: all count.
        temperature: of the softmax behind the gradient.
        keys: [N] hashes that the noise of each token is made from; None: no noise.
        noisy, plain: [N, G, K] receive the softmaxes with temperature and noise, and without.

    Returns:
        (value [N, G * d], codes [N, G] long, usage [G, K]): the chosen vectors, and the mean of softmax(logits).
    """
    groups, size, _ = vectors.shape
    codes = torch.empty(tokens.shape[0], groups, dtype=torch.long, device=tokens.device)
    usage = tokens.new_zeros(groups * size)
    columns = column_keys(groups * size, tokens.device)
    for part in chunks(tokens, groups * size):
        logits = torch.addmm(bias, tokens[part], weight.t()).view(tokens[part].shape[0], groups, size)
        probs = torch.softmax(logits, -1, out=None if plain is None else plain[part])
        counted = probs.new_ones(probs.shape[0]) if valid is None else valid[part].to(probs.dtype)
        usage += counted @ probs.view(probs.shape[0], -1)
        if keys is not None:
            logits = logits - gumbel(keys[part], columns).view_as(logits)
        codes[part] = highest(logits)
        if noisy is not None:
            torch.softmax(logits / temperature if temperature != 1 else logits, -1, out=noisy[part])
    usage = mean_of(usage, tokens.shape[0] if valid is None else valid.sum())
    value = torch.cat([vectors[g].index_select(0, codes[:, g]) for g in range(groups)], 1)
    if valid is not None:
        value, codes = value.masked_fill(~valid[:, None], 0), codes.masked_fill(~valid[:, None], -1)
    return value, codes, usage.view(groups, size)


class Choice(torch.autograd.Function):
    """`choose` with a gradient of value to the codes and, through the noisy softmax, to the logits; and of usage.

    It keeps the two softmaxes [N, G, K]; everything else lives for one chunk.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor, vectors: Tensor, valid: Tensor | None,
        temperature: float, keys: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        noisy, plain = (tokens.new_empty(tokens.shape[0], *vectors.shape[:2]) for _ in range(2))
        value, codes, usage = choose(tokens, weight, bias, vectors, valid, temperature, keys, noisy, plain)
        ctx.save_for_backward(tokens, weight, vectors, valid, codes, noisy, plain)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(codes)
        return value, codes, usage

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor, _: None, by_usage: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight, vectors, valid, codes, noisy, plain = ctx.saved_tensors
        groups, size, width = vectors.shape
        by_vectors, by_weight = torch.zeros_like(vectors), torch.zeros_like(weight)
        by_bias, by_tokens = weight.new_zeros(weight.shape[0]), torch.empty_like(tokens)
        by_value = by_value if valid is None else by_value.masked_fill(~valid[:, None], 0)
        by_value = by_value.view(tokens.shape[0], groups, width)
        for group in range(groups):
            index = codes[:, group].clamp_min(0)[:, None].expand(-1, width)
            by_vectors[group].scatter_add_(0, index, by_value[:, group])
        by_usage = mean_of(by_usage, tokens.shape[0] if valid is None else valid.sum())
        for part in chunks(tokens, groups * size):
            by_choice = torch.stack([by_value[part, g] @ vectors[g].t() for g in range(groups)], 1)
            by_logits = softmax_backward(by_choice, noisy[part]).div_(ctx.temperature)
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


def highest(logits: Tensor) -> Tensor:
    """The index of the first highest of `logits` [n, G, K] in each row [n, G]; on CPUs twice as fast as argmax."""
    if torch.compiler.is_compiling() or logits.device.type != "cpu":
        return logits.argmax(-1)
    size = logits.shape[-1]
    hits = torch.ge(logits, logits.amax(-1, keepdim=True), out=torch.empty_like(logits))
    countdown = torch.arange(size, 0, -1, dtype=logits.dtype)
    return (size - hits.mul_(countdown).amax(-1)).clamp_(max=size - 1).long()


def chunks(tokens: Tensor, width: int) -> Iterable[slice]:
    """Chunks of the rows of `tokens`, for `width` logits each; one chunk in a compiled graph."""
    if torch.compiler.is_compiling():
        return [slice(None)]
    return slices(tokens.shape[0], max(8, (CHUNK if tokens.device.type == "cpu" else 64 * CHUNK) // width))

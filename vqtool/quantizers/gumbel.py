"""Codes chosen by logits with Gumbel noise, in groups, as in wav2vec 2.0."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.errors import VqtoolError
from vqtool.quantizers.core.codebook import look_up
from vqtool.quantizers.core.composable import Coded, Composable
from vqtool.quantizers.core.entropy import entropy
from vqtool.quantizers.core.gumbel import choose, noise_keys
from vqtool.quantizers.core.tokens import Layout
from vqtool.quantizers.grouped import Groups
from vqtool.quantizers.vq import Size, Weights

Temperature = Annotated[float, Gt(0), Doc("of the softmax behind the gradient")]
Logits = Annotated[Literal["linear", "distance"], Doc("of a linear map, or of the distance to the code")]
Spread = Annotated[
    float, Gt(0), Doc("standard deviation of a token's logits over the codes; of a linear map at its start")
]


class Gumbel(Composable):
    """wav2vec 2.0's quantizer (Baevski et al. 2020, arXiv 2006.11477, section 2).

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
        self,
        dim: int,
        layout: Layout = "BTD",
        weights: Weights = None,
        *,
        codebook_size: Size = 320,
        groups: Groups = 1,
        temperature: Temperature = 2.0,
        logits: Logits = "linear",
        spread: Spread = 4.0,
    ) -> None:
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
        keys = noise_keys(tokens.detach().view(*shape, tokens.shape[1]), weight.detach()) if self.training else None
        value, codes, usage = choose(inputs, weight, bias, self.codes, valid, self.temperature, keys)
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
        padded = ((at, self.dim - at - self.width) for at in left)
        return tuple(F.pad(book, pad) for book, pad in zip(self.codes.detach(), padded, strict=True))

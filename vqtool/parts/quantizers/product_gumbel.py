"""Groups of codes chosen by logits with Gumbel noise, as in wav2vec 2.0."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Quantized, Quantizer
from vqtool.errors import VqtoolError
from vqtool.nn.codebook import look_up
from vqtool.nn.gumbel import choose, noise_keys
from vqtool.nn.tokens import cleaned, flat, own_precision


class ProductGumbel(Quantizer):
    """wav2vec 2.0's quantizer (Baevski et al. 2020, arXiv 2006.11477, section 2).

    A linear map gives logits; in training the code is the argmax of logits + Gumbel noise and the gradient that of
    softmax((logits + noise) / temperature); in evaluation it is the argmax of the logits. Nothing needs a start.
    The noise is a hash of the token, its place and the weights: a second pass draws the same, the next step another.
    Terms: `diversity`, 1 minus the perplexity of the mean softmax(logits) over the number of codes, averaged over
    groups: 0 when all codes are used alike.
    """

    terms = frozenset({"diversity"})
    knobs = frozenset({"temperature"})
    straight_through = False
    nearest = False

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Annotated[int, Gt(1), Doc("codes per group")] = 320,
        groups: Annotated[int, Ge(1), Doc("groups that the output's features are cut into")] = 2,
        temperature: Annotated[float, Gt(0), Doc("of the softmax behind the gradient")] = 2.0,
    ) -> None:
        super().__init__()
        if dim % groups:
            raise VqtoolError(
                f"`groups` = {groups} does not divide the latent width {dim}",
                hint="choose a divisor, or another encoder width",
            )
        self.dim = dim
        self.width = dim // groups
        self.codebook_sizes = (codebook_size,) * groups
        self.temperature = temperature
        self.logits = nn.Linear(dim, groups * codebook_size)
        self.codes = nn.Parameter(torch.rand(groups, codebook_size, self.width))
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        with own_precision(z):
            tokens, valid, not_finite = cleaned(*flat(z, mask, self.codes.dtype))
            keys = noise_keys(z.detach(), self.logits.weight) if self.training else None
            value, codes, usage = choose(
                tokens, self.logits.weight, self.logits.bias, self.codes, valid, self.temperature, keys
            )
            perplexity = torch.special.entr(usage).sum(1).exp()
            some = (usage.detach().sum() > 0).to(usage.dtype)
            return Quantized(
                z=value.view(z.shape),
                codes=codes.view(*z.shape[:2], len(self.codebook_sizes)),
                hard=value.detach().view(z.shape),
                terms={"diversity": some * (1 - perplexity.mean() / self.codebook_sizes[0])},
                not_finite=not_finite,
            )

    def decode(self, codes: Tensor) -> Tensor:
        columns = codes.reshape(-1, codes.shape[-1]).long().unbind(1)
        known = torch.cat([look_up(book, c, c >= 0) for book, c in zip(self.codes, columns, strict=False)], 1)
        return F.pad(known, (0, self.dim - known.shape[1])).view(*codes.shape[:2], self.dim)

    def vectors(self) -> tuple[Tensor, ...]:
        """Each group's codes with zeros where the other groups are."""
        left = range(0, self.dim, self.width)
        padded = ((at, self.dim - at - self.width) for at in left)
        return tuple(F.pad(book, pad) for book, pad in zip(self.codes.detach(), padded, strict=True))

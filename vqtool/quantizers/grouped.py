"""Groups of features, each with a quantizer of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch
from annotated_doc import Doc
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.api import Nested
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.checked import preset
from vqtool.quantizers.core.composable import Coded, Composable, Layout, Make, n_values
from vqtool.quantizers.core.maps import Maps
from vqtool.quantizers.core.topology import Topology, joined, made, mean_terms
from vqtool.quantizers.estimators.straight_through import squared_distance
from vqtool.quantizers.vq import AVERAGE, VQ, Weights

Groups = Annotated[int, Ge(1), Doc("groups that the features are cut into")]


# kind: grouped
class Grouped(Topology):
    """Groups of features, each with a quantizer of its own.

    Product quantization (Jégou et al. 2011): the features are cut into groups, each quantized by itself.

        self.pq = Grouped(64, groups=4, of=partial(VQ, codebook_size=256))     # 256^4 codes, codes [B, T, 4]

    Terms: those of the groups, as means; `commitment`, the mean of (z - code)^2 over valid tokens and features.
    """

    old_names = ((r"^codebooks\.(\d+)\.", r"groups.\1.codebook."),)

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *,
        of: Annotated[Make | Sequence[Make], Nested("quantizer", many=True), Doc("a group, or a list of them")] = VQ,
        groups: Groups = 2,
        code_dim: Annotated[int, Ge(0), Doc("width that all groups share, behind trained maps; 0: no maps")] = 0,
        maps: Annotated[
            Maps | Literal["repeat"],
            Doc("these maps: see `residual`; repeat: each group gets all features, and their vectors are added"),
        ] = "learned",
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, inside=code_dim, maps=maps)
        makers = list(of) if isinstance(of, Sequence) else [of] * groups
        if (code_dim or dim) % len(makers):
            raise VqtoolError(
                f"`groups` = {len(makers)} does not divide the latent width {code_dim or dim}",
                hint="choose a divisor, or another encoder width",
            )
        if maps == "repeat" and code_dim != dim * len(makers):
            raise VqtoolError(f'`maps = "repeat"` gives {len(makers)} groups all {dim} features each',
                              hint=f"code_dim = {dim * len(makers)}")  # fmt: skip
        self.width = (code_dim or dim) // len(makers)
        self.groups = nn.ModuleList(made(make, self.width) for make in makers)
        self.adopt(self.groups)
        self.side_by_side = sum(group.side_by_side for group in self.parts)
        self.bounded = any(group.bounded for group in self.parts)
        self.straight_through = self.inwards is None and all(group.straight_through for group in self.parts)

    def cut(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """`tokens` [N, inside] by group, [N, width] each."""
        return tokens.split(self.width, 1)

    def inputs_of_parts(self, tokens: Tensor, *, starting: bool = False) -> Iterator[tuple[Composable, Tensor]]:
        return zip(self.parts, (part.contiguous() for part in self.cut(tokens)), strict=True)

    def placed(self, number: int, vectors: Tensor) -> Tensor:
        """`vectors` with zeros where the other groups are."""
        return F.pad(vectors, (number * self.width, (len(self.parts) - 1 - number) * self.width))

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        parts = self.cut(tokens)
        each = [group.code(part, valid, shape) for group, part in zip(self.parts, parts, strict=True)]
        complete = any(c.complete for c in each)
        if complete:  # each group passes its gradient on by itself
            each = [g.finished(part, c, valid) for g, part, c in zip(self.parts, parts, each, strict=True)]
        soft = [c.soft for c in each if c.soft is not None]
        whole = Coded(
            codes=torch.cat([c.codes for c in each], 1),
            value=torch.cat([c.value for c in each], 1),
            stats=tuple(s for c in each for s in c.stats),
            terms=mean_terms(c.terms for c in each),
            hard=None if all(c.hard is None for c in each) else torch.cat([c.vectors for c in each], 1),
            soft=torch.cat(soft, 1) if len(soft) == len(each) else None,
            probs=joined(each),
            complete=complete,
        )
        if not complete and any(c.sse is not None for c in each):
            self.sum_up(whole, parts, each, valid)
        return whole

    @staticmethod
    def sum_up(whole: Coded, parts: Sequence[Tensor], each: Sequence[Coded], valid: Tensor | None) -> None:
        """The commitment of groups that have several levels."""
        for part, c in zip(parts, each, strict=True):
            if c.sse is None:
                c.sse, c.n_values = squared_distance(part, c.vectors, valid), n_values(part, valid)
            whole.n_values = whole.n_values + c.n_values
        whole.sse = torch.stack([c.sse for c in each if c.sse is not None]).sum()
        if any(c.commit_grad is not None for c in each):
            pulls = (
                p.detach() - c.vectors if c.commit_grad is None else c.commit_grad
                for p, c in zip(parts, each, strict=True)
            )
            whole.commit_grad = torch.cat(list(pulls), 1)

    def nearest_tables(self) -> tuple[Tensor, ...]:
        each = [group.nearest_tables() for group in self.parts]
        alike = len({(book.kind, book.codes.shape) for book in self.books}) == 1
        simple = (
            type(self).coded is Grouped.coded and self.inwards is None and self.estimator.identity and alike
            and len({(len(tables), group.side_by_side) for tables, group in zip(each, self.parts, strict=True)}) == 1
        )  # fmt: skip
        return tuple(table for tables in each for table in tables) if simple else ()

    def estimate(self, tokens: Tensor, value: Tensor) -> Tensor:
        """Each group by its own features: a rotation in the whole space would mix them."""
        cuts = zip(self.parts, self.cut(tokens), self.cut(value), strict=True)
        return torch.cat([group.estimate(part, code.contiguous()) for group, part, code in cuts], 1)


# kind: product-ema
class ProductEMA(Grouped):
    """Groups of features, each with a codebook of its own that follows by moving average.

    Product quantization: `grouped` of `vq`.
    """

    terms = frozenset({"commitment"})
    __init__ = preset(Grouped, {"groups": 2}, of=(VQ, {"codebook_size": 320, **AVERAGE}))

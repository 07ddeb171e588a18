"""What a converted quantizer holds, and what holds the same in the quantizer it came from: there and back again."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtool.foreign.families import LEAST_USE

SMOOTHED = 1e-5  # of EnCodec's and vector-quantize-pytorch's counts: (n + this) / (sum + K this) * sum
State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Book:
    """A codebook: `ours` is the prefix of its tensors here, the others are names of tensors there."""

    ours: str
    vectors: str
    counts: str | None = None
    sums: str | None = None  # the moving average of the sum of inputs beside the vectors
    started: str | None = None
    part: int | None = None  # which of several codebooks that one tensor holds
    divide: bool = False  # the vectors are sums, to be divided by the counts
    follows: bool = True  # whether codes are moving averages, and counts are kept

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of its tensors there."""
        return tuple(n for n in (self.vectors, self.counts, self.sums, self.started) if n is not None)

    def take(self, theirs: State) -> dict[str, Tensor]:
        """Our tensors from theirs."""
        codes, counts = self._own(theirs, self.vectors), None if self.counts is None else self._own(theirs, self.counts)
        if self.divide and counts is not None:
            codes = codes / counts.clamp(min=LEAST_USE)[:, None]
        started = True if self.started is None else bool((theirs[self.started] != 0).all())
        state = {f"{self.ours}codes": codes.clone(), f"{self.ours}ready": torch.tensor(started)}
        if self.follows:
            state[f"{self.ours}weights"] = codes.new_zeros(len(codes)) if counts is None else counts.clone()
        return state

    def give(self, ours: State, theirs: MutableMapping[str, Tensor]) -> None:
        """Put our tensors in the place of theirs."""
        codes = ours[f"{self.ours}codes"].clone()
        counts = ours.get(f"{self.ours}weights", codes.new_zeros(len(codes)))
        counts = counts.clone() if bool(counts.sum() > 0) else torch.ones_like(counts)
        if self.divide:
            codes, counts = divisible(codes, counts.clamp(min=LEAST_USE))
        if self.sums is not None:
            smooth = (counts + SMOOTHED) / (counts.sum() + len(counts) * SMOOTHED) * counts.sum()
            self._put(theirs, self.sums, codes * smooth[:, None])
        self._put(theirs, self.vectors, codes)
        if self.counts is not None and self.follows:
            self._put(theirs, self.counts, counts)
        if self.started is not None:
            theirs[self.started] = torch.ones_like(theirs[self.started])

    def _own(self, theirs: State, name: str) -> Tensor:
        tensor = theirs[name]
        return (tensor if self.part is None else tensor[self.part]).detach().cpu().float()

    def _put(self, theirs: MutableMapping[str, Tensor], name: str, value: Tensor) -> None:
        there = theirs[name].detach().clone()
        (there if self.part is None else there[self.part]).copy_(value)
        theirs[name] = there


def divisible(codes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """(sums, counts) whose quotients are `codes` [K, d] to the last bit.

    Where a product would round, its count [K] becomes a power of two, at most 1.42 times as far from what it was.
    """
    sums = codes * counts[:, None]
    rounds = (sums / counts[:, None] != codes).any(1)
    counts = torch.where(rounds, torch.exp2(counts.log2().round()), counts)
    return codes * counts[:, None], counts


@dataclass(frozen=True, slots=True)
class Map:
    """A linear map or a convolution of width one: `ours` and `theirs` are the prefixes of its weight and its bias."""

    ours: str
    theirs: str
    has_bias: bool
    norm: tuple[str, str] | None = None  # what its weight is made of, where it is normalised: lengths and directions

    @classmethod
    def of(cls, ours: str, theirs: str, names: State) -> Map:
        """The map whose tensors' names there begin with `theirs`."""
        forms = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
        norm = next((form for form in forms if all(theirs + name in names for name in form)), None)
        return cls(ours, theirs, f"{theirs}bias" in names, norm)

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of its tensors there."""
        return tuple(self.theirs + name for name in (*(self.norm or ("weight",)), *["bias"] * self.has_bias))

    def take(self, theirs: State) -> dict[str, Tensor]:
        """Our tensors from theirs."""
        state = {f"{self.ours}weight": self.weight(theirs).flatten(1).clone()}
        if self.has_bias:
            state[f"{self.ours}bias"] = theirs[f"{self.theirs}bias"].detach().cpu().float().clone()
        return state

    def weight(self, theirs: State) -> Tensor:
        """Their weight, as their module computes it."""
        lengths, *directions = (theirs[self.theirs + n].detach().cpu().float() for n in self.norm or ("weight",))
        return torch._weight_norm(directions[0], lengths, 0) if directions else lengths

    def give(self, ours: State, theirs: MutableMapping[str, Tensor]) -> None:
        """Put our tensors in the place of theirs."""
        lengths, *directions = (self.theirs + n for n in self.norm or ("weight",))
        weight = ours[f"{self.ours}weight"].view_as(theirs[directions[0] if directions else lengths])
        if directions:  # with the lengths of the directions themselves nothing rounds
            theirs[directions[0]] = weight.to(theirs[directions[0]]).clone()
            norms = torch._weight_norm_interface(weight.contiguous(), torch.ones_like(weight[:, :1, :1]), 0)[1]
            theirs[lengths] = norms.view_as(theirs[lengths]).to(theirs[lengths])
        else:
            theirs[lengths] = weight.to(theirs[lengths]).clone()
        if self.has_bias:
            name = f"{self.theirs}bias"
            theirs[name] = ours[f"{self.ours}bias"].to(theirs[name]).clone()


Slot = Book | Map

"""What quantizers that are made of others have in common: they announce, decode, start and move what their parts do."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.api.quantizer import PART_NAMES
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.composable import Coded, Composable, Make
from vqtool.quantizers.estimators.straight_through import mean_of


def knob(name: str) -> property:
    """An attribute that a topology shares with all its parts that have it."""

    def read(self: Any) -> Any:
        return next(getattr(part, name) for part in self.parts if name in part.knobs)

    def write(self: Any, value: Any) -> None:
        for part in self.parts:
            if name in part.knobs:
                setattr(part, name, value)

    return property(read, write)


class Topology(Composable):
    """Base of quantizers that are made of others, its parts: what it announces is what they do.

    A kind writes `coded`, `inputs_of_parts` and, where codes of parts do not simply add up, `placed`.
    """

    temperature = knob("temperature")
    hard = knob("hard")
    parts: list[Composable]  # in the order of their codes; a shared one several times
    nested_parts: list[Composable]  # those that know by themselves whether they were started

    def adopt(self, parts: Iterable[nn.Module], *own_terms: str) -> None:
        """Take the parts' terms, knobs, promises and estimator."""
        self.parts = list(parts)  # type: ignore[arg-type]  # a ModuleList of what `made` gave
        self.books = tuple(book for part in self.parts for book in part.books)
        self.nested_parts = [part for part in self.parts if type(part).initialised is not Composable.initialised]
        self.terms = frozenset(own_terms).union(*(part.terms for part in self.parts))
        self.knobs = frozenset().union(*(part.knobs for part in self.parts))
        self.estimator = self.parts[0].estimator
        self.codebook_sizes = tuple(size for part in self.parts for size in part.codebook_sizes)
        self.nearest = self.inwards is None and all(part.nearest for part in self.parts)
        for part in self.parts:
            part.nested = True

    def inputs_of_parts(self, tokens: Tensor, *, starting: bool = False) -> Iterator[tuple[Composable, Tensor]]:
        """Each part and what reaches it [N, d] of `tokens` [N, inside]; it may change before the next is asked for."""
        raise NotImplementedError

    def placed(self, number: int, vectors: Tensor) -> Tensor:
        """What `vectors` [N, d] of a part are in the whole [N, inside]."""
        return vectors

    def decoded(self, codes: Tensor) -> Tensor:
        return functools.reduce(torch.add, self.decoded_parts(codes))

    def decoded_parts(self, codes: Tensor) -> Iterator[Tensor]:
        """What the columns of `codes` [N, Q'] of each part give [N, inside]."""
        at = 0
        for number, part in enumerate(self.parts):
            columns = codes[:, at : at + len(part.codebook_sizes)]
            at += len(part.codebook_sizes)
            if columns.shape[1]:
                yield self.placed(number, part.decode_tokens(columns))

    def tables(self) -> tuple[Tensor, ...] | None:
        each = [part.vectors() for part in self.parts]
        if any(tables is None for tables in each):
            return None
        return tuple(self.placed(number, table) for number, tables in enumerate(each) for table in tables or ())

    @property
    def additive(self) -> bool:
        return (self.outwards is None and all(part.additive for part in self.parts)) or super().additive

    @property
    def codebook_names(self) -> tuple[str, ...]:
        return tuple(
            f"{PART_NAMES[self.topology]}{i}" + (f".{name}" if len(part.codebook_sizes) > 1 else "")
            for i, part in enumerate(self.parts)
            for name in part.codebook_names
        )

    @property
    def fixed(self) -> bool:
        return all(part.fixed for part in self.parts)

    @property
    def initialised(self) -> bool:
        return all(part.initialised for part in self.nested_parts) and super().initialised

    def start_from(self, points: Tensor, generator: torch.Generator) -> None:
        for part, inputs in self.inputs_of_parts(points, starting=True):
            part.start_on_points(inputs, generator)

    def codebooks_with_inputs(self, tokens: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
        tokens = tokens if self.inwards is None else self.inwards(tokens).detach()
        for part, inputs in self.inputs_of_parts(tokens):
            yield from part.codebooks_with_inputs(inputs)

    @classmethod
    def announced(cls, options: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
        """Those of the parts that `options` name, and one's own."""
        of = options.get("of", ())
        each = [(cls.terms, cls.knobs)]
        each += [one.cls.announced(one) for one in (of if isinstance(of, tuple | list) else (of,))]
        return frozenset().union(*(terms for terms, _ in each)), frozenset().union(*(knobs for _, knobs in each))


def made(of: Make, dim: int) -> Composable:
    """A part of the width `dim`.

    Raises:
        VqtoolError: what `of` builds is not a quantizer that can be composed.
    """
    kind = getattr(of, "func", of)
    part: object = kind if isinstance(kind, type) and not issubclass(kind, Composable) else of(dim)
    if isinstance(part, Composable):
        return part
    raise VqtoolError(
        f"`of` is a {getattr(part, '__name__', type(part).__name__)}, which cannot be part of another quantizer",
        hint="a class of vqtool.quantizers, or functools.partial of one",
    )


def mean_terms(many: Iterable[Mapping[str, Tensor]], counts: Sequence[Tensor | int] = ()) -> dict[str, Tensor]:
    """The mean of each term over the parts that have it, weighed by how many tokens reached each of them."""
    sums: dict[str, tuple[Any, Any]] = {}
    for terms, count in zip(many, counts or itertools.repeat(1), strict=False):
        for name, value in terms.items():
            total, tokens = sums.get(name, (0, 0))
            sums[name] = total + value * count, tokens + count
    return {name: mean_of(total, tokens) for name, (total, tokens) in sums.items()}


def joined(each: Sequence[Coded]) -> Tensor | None:
    """The probabilities of all codebooks [N, Q, K], where all have as many codes."""
    probs = [c.probs for c in each if c.probs is not None]
    same = len(probs) == len(each) and len({p.shape[2] for p in probs}) == 1
    return torch.cat(probs, 1) if same else None

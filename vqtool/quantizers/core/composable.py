"""What all of vqtool's quantizers have in common: layouts, masks, precision, the start, the gradient and the update."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqtool.api import CodebookStats, Estimator, Quantized, Quantizer, Route
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.all_reduce import gather_rows
from vqtool.quantizers.core.checked import Checked
from vqtool.quantizers.core.codebook import Codebook, not_started
from vqtool.quantizers.core.kmeans import points_wanted
from vqtool.quantizers.core.straight_through import squared_distance, straight_through
from vqtool.quantizers.core.tokens import (
    Layout,
    counted,
    features_axis,
    n_values,
    own_precision,
    restored,
    starting_points,
    windows,
)
from vqtool.quantizers.core.updates import passed_without_update, updated
from vqtool.quantizers.estimators.straight_through import StraightThrough

Make = Callable[..., Quantizer]  # builds a quantizer from its width
WEIGHTS = {  # of the terms in `Quantized.loss`, where the constructor gives no others
    "commitment": 0.25, "codebook": 1.0, "confidence": 0.1, "diversity": 0.1, "log-perplexity": 0.1, "balance": 0.01,
}  # fmt: skip


@dataclass(slots=True)
class Coded:
    """What a quantizer makes of N tokens, before the gradient is passed on.

    `value` may carry a gradient to the quantizer's own parameters, and to the tokens if it is `complete`.
    """

    codes: Tensor  # [N, Q] long, -1 for tokens that do not count
    value: Tensor  # [N, D] what flows on
    stats: tuple[CodebookStats, ...] = ()
    terms: dict[str, Tensor] = field(default_factory=dict)
    sse: Tensor | None = None  # the sum of |input - code|^2 behind the commitment; None: |tokens - value|^2
    n_values: Tensor | int = 0  # how many squared numbers `sse` is of
    commit_grad: Tensor | None = None  # [N, D] half the gradient of `sse` by the tokens; None: tokens - value
    hard: Tensor | None = None  # [N, D] the code vectors, where `value` is something else
    soft: Tensor | None = None  # [N, D]
    probs: Tensor | None = None  # [N, Q, K]
    usage: Tensor | None = None  # [Q, K]
    route: Route | None = None
    complete: bool = False  # `value` has its gradient to the tokens already, and `terms` the commitment, if any

    @property
    def vectors(self) -> Tensor:
        """The code vectors [N, D], detached."""
        return (self.value if self.hard is None else self.hard).detach()


class Composable(Quantizer, metaclass=Checked):
    """Base of vqtool's own quantizers: one can be a level, a group or an expert of another.

    A kind writes `coded`, `decoded` and `start_from` for flat tokens; everything else is here, once.

    Args:
        dim: the width of the latents.
        layout: the axes of inputs: "BTD", "BCL", "BCHW", "BHWC", "BCTHW" or "ND".
        weights: of the terms in the third result, by name; by default those of `WEIGHTS`.
        inside: the width that `coded` works in, behind trained linear maps; 0: no maps.
    """

    old_names: ClassVar[tuple[tuple[str, str], ...]] = ()  # patterns of tensors' names, and what they are today
    bounded: ClassVar[bool] = False  # values have a fixed range: as a level it needs a scale
    estimator: Estimator = StraightThrough()
    inwards: nn.Module | None
    outwards: nn.Module | None
    nested = False  # part of another quantizer, which asks for the gradient of the commitment itself
    given: Mapping[str, Any]  # the options that the constructor got

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Mapping[str, float] | None = None, *, inside: int = 0,
        bias: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dim, self.layout = dim, layout
        self.own_dtype = torch.float32
        self.loss_weights = {**WEIGHTS, **(weights or {})}
        self.inwards = nn.Linear(dim, inside) if inside else None
        self.outwards = nn.Linear(inside, dim, bias=bias) if inside else None
        if inside:
            self.straight_through = self.nearest = False

    # What a kind writes, for tokens [N, inside] that are finite; those not `valid` [N] (None: all are) hold zeros.

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        """Quantize `tokens` [B * T, inside] of windows of the `shape` (B, T). Pure."""
        raise NotImplementedError

    def decoded(self, codes: Tensor) -> Tensor:
        """The code vectors [N, inside] of `codes` [N, Q'], -1 for none."""
        raise NotImplementedError

    def start_from(self, points: Tensor, generator: torch.Generator) -> None:
        """Start from inputs [N, inside]."""

    def tables(self) -> tuple[Tensor, ...] | None:
        """Q tables [K_q, inside] whose rows add up to what `decoded` gives; None if they do not."""
        return None

    # What every kind has.

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize latents `z` in the quantizer's layout; `mask`, with the axes of the tokens, is true for real ones.

        Raises:
            VqtoolError: the shape does not fit the layout, or the codebooks were never started, in evaluation.
        """
        with own_precision(z):
            batch = windows(z, self.layout, self.dim, type(self).__name__)
            if mask is not None and mask.numel() != batch.shape[0] * batch.shape[1]:
                axes = [size for axis, size in enumerate(z.shape) if axis != features_axis(self.layout)]
                raise VqtoolError(f"the mask of {type(self).__name__} has the shape {list(mask.shape)}, not {axes}",
                                  hint="one value for each token, true for real ones")  # fmt: skip
            mask = None if mask is None else mask.reshape(batch.shape[:2]).bool()
            if not self.initialised:
                self.start_on(batch, mask)
            flat = None if mask is None else mask.reshape(-1)
            tokens = batch.reshape(-1, self.dim).to(self.own_dtype).contiguous()
            tokens, valid, not_finite = counted(tokens, flat)
            shape = (batch.shape[0], batch.shape[1])
            coded = self.code(tokens, valid, shape)
            passed, terms = self.pass_gradient(tokens, coded, valid)
            if coded.stats and not torch.compiler.is_compiling():
                passed_without_update(self)
            return self.result(z, shape, coded, passed, terms, not_finite)

    def result(
        self, z: Tensor, shape: tuple[int, int], coded: Coded, passed: Tensor, terms: dict[str, Tensor], bad: Tensor
    ) -> Quantized:
        """The outcome in the layout of `z` [...]; `passed` [N, D] flows on, `bad` tokens were not finite."""

        def back(x: Tensor) -> Tensor:
            return restored(x.view(*shape, self.dim), z.shape, self.layout)

        codes = coded.codes.view(*shape, coded.codes.shape[-1])
        return Quantized(
            z=back(passed).to(z.dtype),
            codes=restored(codes, z.shape, self.layout, features_last=True),
            hard=back(coded.vectors),
            soft=None if coded.soft is None else back(coded.soft),
            probs=None if coded.probs is None else coded.probs.view(*shape, *coded.probs.shape[1:]),
            usage=coded.usage,
            terms=terms,
            stats=coded.stats,
            not_finite=bad,
            route=coded.route,
            weights=self.loss_weights,
        )

    def code(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        """`coded` for tokens [N, D], through the linear maps where there are any."""
        if self.inwards is None or self.outwards is None:
            return self.coded(tokens, valid, shape)
        inside = self.inwards(tokens)
        coded = self.coded(inside, valid, shape)
        passed, coded.terms = self.pass_gradient(inside, coded, valid)

        def out(x: Tensor | None) -> Tensor | None:
            x = None if x is None else self.outwards(x)  # type: ignore[misc]
            return x if x is None or valid is None else x.masked_fill(~valid[:, None], 0)

        coded.value, coded.hard, coded.soft = out(passed), out(coded.hard), out(coded.soft)  # type: ignore[assignment]
        coded.complete = True
        return coded

    def pass_gradient(self, tokens: Tensor, coded: Coded, valid: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """What flows on [N, D], with a gradient to `tokens`, and the terms."""
        if coded.complete:
            return coded.value, coded.terms
        if coded.sse is None:
            coded.sse, coded.n_values = squared_distance(tokens, coded.vectors, valid), n_values(tokens, valid)
        if coded.hard is not None and coded.commit_grad is None and tokens.requires_grad:
            coded.commit_grad = tokens.detach() - coded.vectors
        passed, commitment = straight_through(tokens, coded.value, valid, coded.sse, coded.n_values, coded.commit_grad)
        if not self.estimator.identity:
            passed = self.estimate(tokens, coded.value, valid)
        inner = coded.terms.get("commitment")
        return passed, {**coded.terms, "commitment": commitment if inner is None else commitment + inner}

    def estimate(self, tokens: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
        """`value` [N, D] with the estimator's gradient to `tokens`."""
        return self.estimator.pass_on(tokens, value, valid)

    def decode(self, codes: Tensor) -> Tensor:
        """The code vectors of `codes` [B, T, Q'], Q' <= Q, as latents [B, T, D]; -1 adds nothing. Other layouts alike.

        Raises:
            VqtoolError: the codebooks were never started.
        """
        if not self.initialised:
            raise not_started()
        flat = codes.reshape(-1, codes.shape[-1]).long()
        with own_precision(flat):
            value = self.decode_tokens(flat).view(*codes.shape[:-1], self.dim)
        return value if self.layout[-1] == "D" or self.layout == "BHWC" else value.movedim(-1, 1)

    def decode_tokens(self, codes: Tensor) -> Tensor:
        """`decoded` of `codes` [N, Q'], behind the linear map where there is one [N, D]."""
        value = self.decoded(codes)
        if self.outwards is None:
            return value
        return self.outwards(value).masked_fill((codes < 0).all(1)[:, None], 0)

    def vectors(self) -> tuple[Tensor, ...] | None:
        """What each code adds to the latent: Q tensors [K_q, D]; None if codes do not add up."""
        tables = self.tables()
        if tables is None or getattr(self.outwards, "bias", None) is not None:
            return None
        with torch.no_grad(), own_precision(tables[0]):
            return tuple(t.detach() if self.outwards is None else self.outwards(t).detach() for t in tables)

    def initialise(self, z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        """Start the codebooks from latents `z` in the quantizer's layout; the same on every rank that gives the same.

        Raises:
            VqtoolError: no token of `z` is real and finite.
        """
        batch, generator = windows(z, self.layout, self.dim, type(self).__name__), torch.Generator().manual_seed(seed)
        self.start_on_points(starting_points(batch, mask, self.points_wanted(), generator), generator)

    def points_wanted(self) -> int:
        """How many tokens a start looks at."""
        return points_wanted(max(self.codebook_sizes))

    @torch.no_grad()
    def start_on_points(self, points: Tensor, generator: torch.Generator) -> None:
        """Start from latents [N, D]."""
        self.start_from(points if self.inwards is None else self.inwards(points.to(self.own_dtype)), generator)

    def start_on(self, batch: Tensor, mask: Tensor | None) -> None:
        """Start from the first training batch [B, T, D] of all ranks; an error in evaluation."""
        if not self.training or torch.compiler.is_compiling():
            raise not_started()
        wanted, generator = self.points_wanted(), torch.Generator().manual_seed(0)
        points = gather_rows(starting_points(batch, mask, wanted, generator), wanted)
        most = max(self.codebook_sizes)
        if len(points) < most and any(isinstance(part, Codebook) for part in self.modules()):
            warnings.warn(f"{type(self).__name__} starts {most} codes from {len(points)} tokens: many begin as copies. "
                          "Call initialise(z) with more latents first.", stacklevel=3)  # fmt: skip
        self.start_on_points(points, torch.Generator().manual_seed(0))

    def update(self, stats: Sequence[CodebookStats]) -> None:
        """Move the codebooks by the statistics of an optimizer step, one for each that follows by moving average."""
        updated(self)
        self.follow(list(stats))

    def follow(self, stats: list[CodebookStats]) -> None:
        """Take this quantizer's statistics from the front of `stats` and move its codebooks."""

    def no_stats(self) -> tuple[CodebookStats, ...]:
        """The statistics of a batch without a token."""
        return ()

    def extra_repr(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.given.items() if not callable(value))
        return f"{self.dim}{', ' if options else ''}{options}{'' if self.initialised else ', not started'}"

    def renamed(self, name: str) -> str:
        for pattern, today in self.old_names:
            name = re.sub(pattern, today, name)
        return name

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in [n for n in state_dict if n.startswith(prefix)] if self.old_names else ():
            state_dict[prefix + self.renamed(name.removeprefix(prefix))] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Quantizer:
        wider = fn(torch.empty(0, dtype=self.own_dtype)).dtype
        self.own_dtype = wider if wider.itemsize >= 4 else self.own_dtype
        return super()._apply(fn, recurse)


def knob(name: str) -> property:
    """An attribute that a topology shares with all its children that have it."""

    def read(self: Any) -> Any:
        return next(getattr(child, name) for child in self.children_of_kind() if name in child.knobs)

    def write(self: Any, value: Any) -> None:
        for child in self.children_of_kind():
            if name in child.knobs:
                setattr(child, name, value)

    return property(read, write)


class Topology(Composable):
    """Base of quantizers that are made of others: what they announce is what their children do."""

    temperature = knob("temperature")
    hard = knob("hard")

    def adopt(self, children: Sequence[Composable]) -> None:
        """Take the children's terms, knobs, promises and estimator; `children` in the order of their codes."""
        plain = any("commitment" in child.terms for child in children)
        self.terms = frozenset(t for child in children for t in child.terms) | ({"commitment"} if plain else set())
        self.knobs = frozenset(k for child in children for k in child.knobs)
        self.estimator = children[0].estimator
        self.codebook_sizes = tuple(size for child in children for size in child.codebook_sizes)
        for child in children:
            child.nested = True

    def children_of_kind(self) -> Iterator[Composable]:
        """The quantizers that this one is made of, each once."""
        return (child for name, child in self.named_children() if isinstance(child, nn.ModuleList) for child in child)

    @property
    def initialised(self) -> bool:
        return all(child.initialised for child in self.children_of_kind())

    @classmethod
    def announced(cls, options: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
        """Those of the children that `options` name, and one's own."""
        of = options.get("of", ())
        made = [one.cls.announced(one) for one in (of if isinstance(of, tuple | list) else (of,))]
        terms, knobs = (frozenset().union(*each) for each in zip(*made, strict=True)) if made else (frozenset(),) * 2
        return terms | cls.terms, knobs | cls.knobs

    def follow(self, stats: list[CodebookStats]) -> None:
        for child in self.children_of_kind():
            child.follow(stats)

    def no_stats(self) -> tuple[CodebookStats, ...]:
        return tuple(s for child in self.children_of_kind() for s in child.no_stats())


def made(of: Make, dim: int) -> Composable:
    """A child of the width `dim`.

    Raises:
        VqtoolError: what `of` builds is no quantizer that can be composed.
    """
    kind = getattr(of, "func", of)
    if isinstance(kind, type) and not issubclass(kind, Composable):
        child: object = kind
    elif isinstance(child := of(dim), Composable):
        return child
    name = getattr(child, "__name__", type(child).__name__)
    raise VqtoolError(f"`of` is a {name}, which cannot be part of another quantizer",
                      hint="a class of vqtool.quantizers, or functools.partial of one")  # fmt: skip


def mean_terms(many: Sequence[Mapping[str, Tensor]], counts: Sequence[Tensor | int] = ()) -> dict[str, Tensor]:
    """The mean of each term over the children that have it, weighed by how many tokens reached each of them."""
    weights = counts if len(counts) else (1,) * len(many)
    names = dict.fromkeys(name for terms in many for name in terms)
    found = {
        name: [(terms[name], w) for terms, w in zip(many, weights, strict=True) if name in terms] for name in names
    }
    return {
        name: sum(value * w for value, w in pairs) / one_at_least(sum(w for _, w in pairs))
        for name, pairs in found.items()
    }


def one_at_least(count: Tensor | int) -> Tensor | int:
    """`count`, or 1 where it is 0."""
    return count.clamp_min(1) if isinstance(count, Tensor) else max(count, 1)


def joined(each: Sequence[Coded]) -> Tensor | None:
    """The probabilities of all codebooks [N, Q, K], where all have as many codes."""
    probs = [c.probs for c in each if c.probs is not None]
    if len(probs) < len(each) or any(p.shape[2] != probs[0].shape[2] for p in probs):
        return None
    return torch.cat(probs, 1)

"""What all of vqtool's quantizers have in common: layouts, masks, precision, the start, the gradient and the update."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from vqtool.api import CodebookStats, Estimator, Quantized, Quantizer, Route
from vqtool.api.precision import exact
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.checked import Checked
from vqtool.quantizers.core.codebook import Codebook, not_started, update_all
from vqtool.quantizers.core.kmeans import points_wanted, starting_points
from vqtool.quantizers.core.maps import made_maps
from vqtool.quantizers.core.updates import gather_rows, passed_without_update, updated
from vqtool.quantizers.estimators.straight_through import StraightThrough, mean_of, squared_distance, straight_through
from vqtool.quantizers.gpu import switch as gpu

Layout = Literal["BTD", "BCL", "BCHW", "BHWC", "BCTHW", "ND"]  # B windows, C or D features, the others are tokens
NAMES = {"B": "batch", "T": "tokens", "L": "length", "H": "height", "W": "width", "N": "tokens"}
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
        inside: the width that `coded` works in, behind maps of the kind `maps` (see `made_maps`); 0: no maps.
    """

    old_names: ClassVar[tuple[tuple[str, str], ...]] = ()  # patterns of tensors' names, and what they are today
    bounded: bool = False  # values have a fixed range: as a level it needs a scale
    estimator: Estimator = StraightThrough()
    inwards: nn.Module | None
    outwards: nn.Module | None
    books: tuple[Codebook, ...] = ()  # in the order of the codes; one that several parts share as often
    side_by_side = 1  # groups of features that have codebooks of their own
    nested = False  # part of another quantizer, which asks for the gradient of the commitment itself
    given: Mapping[str, Any]  # the options that the constructor got
    origin: object = None  # the quantizer of another library that it was converted from: see vqtool.convert

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Mapping[str, float] | None = None, *, inside: int = 0,
        bias: bool = False, maps: str = "learned",
    ) -> None:  # fmt: skip
        super().__init__()
        self.dim, self.layout = dim, layout
        self.own_dtype = torch.float32
        self.loss_weights = {**WEIGHTS, **(weights or {})}
        self.maps = maps
        self.inwards, self.outwards = made_maps(maps, dim, inside, bias=bias)
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
        with exact(z):
            batch, mask = windows(z, mask, self.layout, self.dim, type(self).__name__)
            if not self.initialised:
                self.start_on(batch, mask)
            shape = (batch.shape[0], batch.shape[1])
            flat, tables, by = batch.reshape(-1, self.dim), self.nearest_tables(), None
            if tables and self.own_dtype == torch.float32:
                by = gpu.whole(flat, len(tables) // self.side_by_side, self.side_by_side)
            if by is not None:
                coded, not_finite = self.at_once(by, flat, mask, tables)
            else:
                tokens, valid, not_finite = counted(flat.to(self.own_dtype).contiguous(), mask)
                coded = self.finished(tokens, self.code(tokens, valid, shape), valid)
            if coded.stats and not torch.compiler.is_compiling():
                passed_without_update(self)

        def back(x: Tensor, *, features_last: bool = False) -> Tensor:
            return restored(x.view(*shape, x.shape[1]), z.shape, self.layout, features_last=features_last)

        return Quantized(
            z=back(coded.value).to(z.dtype),
            codes=back(coded.codes, features_last=True),
            hard=back(coded.vectors),
            soft=None if coded.soft is None else back(coded.soft),
            probs=None if coded.probs is None else coded.probs.view(*shape, *coded.probs.shape[1:]),
            usage=coded.usage,
            terms=coded.terms,
            stats=coded.stats,
            not_finite=not_finite,
            route=coded.route,
            weights=self.loss_weights,
        )

    def nearest_tables(self) -> tuple[Tensor, ...]:
        """Tables [K, D], all as large, whose nearest codes are taken one after the other and nothing else is done.

        Of `side_by_side` groups of features each has as many, those of the first group first. None where more is done,
        or less: only this is done `at_once`, with the moving average and straight-through.
        """
        return ()

    def at_once(self, by: Any, tokens: Tensor, mask: Tensor | None, tables: Sequence[Tensor]) -> tuple[Coded, Tensor]:
        """What `tokens` [N, dim] become, in few launches, and how many of them are not finite."""
        moving, groups = self.training and self.books[0].kind == "ema", self.side_by_side
        codes, value, mean, not_finite, stats = gpu.passed(by, tokens, mask, tables, groups, stats=moving)
        return Coded(codes, value, stats, {"commitment": mean}, complete=True), not_finite

    def code(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int]) -> Coded:
        """`coded` for tokens [N, D], through the linear maps where there are any."""
        if self.inwards is None or self.outwards is None:
            return self.coded(tokens, valid, shape)

        def through(linear: nn.Module, x: Tensor) -> Tensor:
            return linear(x) if valid is None else linear(x).masked_fill(~valid[:, None], 0)

        inside = through(self.inwards, tokens)
        coded = self.finished(inside, self.coded(inside, valid, shape), valid)
        coded.value = through(self.outwards, coded.value)
        coded.hard = None if coded.hard is None else through(self.outwards, coded.hard)
        coded.soft = None if coded.soft is None else through(self.outwards, coded.soft)
        return coded

    def finished(self, tokens: Tensor, coded: Coded, valid: Tensor | None) -> Coded:
        """`coded`, complete: its value has a gradient to `tokens` [N, inside], and the commitment is a term."""
        if coded.complete:
            return coded
        if coded.sse is None:
            coded.sse, coded.n_values = squared_distance(tokens, coded.vectors, valid), n_values(tokens, valid)
        if coded.hard is not None and coded.commit_grad is None and tokens.requires_grad:
            coded.commit_grad = tokens.detach() - coded.vectors
        value = coded.value
        coded.value, sse = straight_through(tokens, value, coded.sse, coded.commit_grad)
        if not self.estimator.identity and torch.is_grad_enabled() and coded.value.requires_grad:
            coded.value = self.estimate(tokens, value)
        commitment = mean_of(sse, coded.n_values)
        inner = coded.terms.get("commitment")
        coded.terms = {**coded.terms, "commitment": commitment if inner is None else commitment + inner}
        coded.complete = True
        return coded

    def estimate(self, tokens: Tensor, value: Tensor) -> Tensor:
        """`value` [N, D] with the estimator's gradient to `tokens`."""
        return self.estimator.estimate(tokens, value)

    def decode(self, codes: Tensor) -> Tensor:
        """The code vectors of `codes` [B, T, Q'], Q' <= Q, as latents [B, T, D]; -1 adds nothing. Other layouts alike.

        Raises:
            VqtoolError: the codebooks were never started.
        """
        if not self.initialised:
            raise not_started()
        flat = codes.reshape(-1, codes.shape[-1]).long()
        with exact(flat):
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
        bias = getattr(self.outwards, "bias", None)
        if tables is None or (bias is not None and not self.maps.startswith("affine")):
            return None
        with torch.no_grad(), exact(tables[0]):
            if self.outwards is None:
                return tuple(t.detach() for t in tables)
            first, *rest = (self.outwards(t).detach() for t in tables)  # a bias is there once in the sum
            return first, *(t if bias is None else t - bias for t in rest)

    def initialise(self, z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        """Start the codebooks from latents `z` in the quantizer's layout; the same on every rank that gives the same.

        Raises:
            VqtoolError: no token of `z` is real and finite.
        """
        batch, mask = windows(z, mask, self.layout, self.dim, type(self).__name__)
        generator = torch.Generator().manual_seed(seed)
        self.start_on_points(starting_points(batch, mask, self.points_wanted(), generator), generator)

    def points_wanted(self) -> int:
        """How many tokens a start looks at."""
        return points_wanted(max(self.codebook_sizes))

    @torch.no_grad()
    def start_on_points(self, points: Tensor, generator: torch.Generator) -> None:
        """Start from latents [N, D]."""
        with exact(points):
            self.start_from(points if self.inwards is None else self.inwards(points.to(self.own_dtype)), generator)

    def start_on(self, batch: Tensor, mask: Tensor | None) -> None:
        """Start from the first training batch [B, T, D] of all ranks; an error in evaluation."""
        if not self.training or torch.compiler.is_compiling():
            raise not_started()
        wanted, generator = self.points_wanted(), torch.Generator().manual_seed(0)
        points = gather_rows(starting_points(batch, mask, wanted, generator), wanted)
        most = max(self.codebook_sizes)
        if len(points) < most and self.books:
            warnings.warn(f"{type(self).__name__} starts {most} codes from {len(points)} tokens: many begin as copies. "
                          "Call initialise(z) with more latents first.", stacklevel=3)  # fmt: skip
        self.start_on_points(points, torch.Generator().manual_seed(0))

    @property
    def fixed(self) -> bool:
        return self.bounded or (bool(self.books) and all(book.kind == "frozen" for book in self.books))

    @property
    def initialised(self) -> bool:
        return all(book.is_ready for book in self.books)

    def code_use(self) -> tuple[Tensor, ...] | None:
        known = len(self.books) == len(self.codebook_sizes) and all(book.kind == "ema" for book in self.books)
        return tuple(book.weights for book in self.books) if known else None

    def no_stats(self) -> tuple[CodebookStats, ...]:
        """The statistics of a batch without a token."""
        return tuple(book.no_stats() for book in self.books if book.kind == "ema")

    def update(self, stats: Sequence[CodebookStats]) -> None:
        """Move the codebooks by the statistics of an optimizer step, one for each that follows by moving average."""
        updated(self)
        sums: dict[Codebook, CodebookStats] = {}
        for book, some in zip((book for book in self.books if book.kind == "ema"), stats, strict=True):
            sums[book] = sums[book] + some if book in sums else some
        update_all(sums)

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


def windows(z: Tensor, mask: Tensor | None, layout: Layout, dim: int, owner: str) -> tuple[Tensor, Tensor | None]:
    """`z` as windows of tokens [B, T, D], rows of `ND` in one window, and `mask` [B * T] as booleans.

    Raises:
        VqtoolError: `z` has not the axes of `layout`, or other than `dim` features, or the mask is of other tokens.
    """
    features = features_axis(layout)
    if z.dim() != len(layout) or z.shape[features] != dim:
        wanted = ", ".join(f"{dim} features" if i == features else NAMES[axis] for i, axis in enumerate(layout))
        fits = [one for one in get_args(Layout) if z.dim() == len(one) and z.shape[features_axis(one)] == dim]
        hint = " or ".join(f'layout="{one}"' for one in fits) or f"the quantizer was made for {dim} features"
        raise VqtoolError(f'{owner} with layout "{layout}" takes [{wanted}], not {list(z.shape)}', hint=hint)
    axes = [size for axis, size in enumerate(z.shape) if axis != features]
    if mask is not None and mask.numel() != math.prod(axes):
        raise VqtoolError(
            f"the mask of {owner} has the shape {list(mask.shape)}, not {axes}",
            hint="one value for each token, true for real ones",
        )
    z = z[None] if layout == "ND" else z if layout == "BTD" else z.movedim(features, -1).flatten(1, -2)
    return z, None if mask is None else mask.reshape(-1).bool()


def features_axis(layout: Layout) -> int:
    """Which axis of a layout holds the features."""
    return layout.index("C" if "C" in layout else "D")


def restored(x: Tensor, shape: torch.Size, layout: Layout, *, features_last: bool = False) -> Tensor:
    """`x` [B, T, ...] with the axes of an input of `shape`; features where they were, or at the end."""
    if layout == "BTD":
        return x
    at = features_axis(layout)
    places = [size for axis, size in enumerate(shape) if axis != at]
    x = x.reshape(*places, *x.shape[2:])
    return x if features_last else x.movedim(-1, at)


def counted(tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Which of `tokens` [N, D] count: (tokens with zeros for the others, valid [N] or None for all, not finite).

    A token counts if `mask` [N] is true and it holds no NaN and no infinity. Everything behind this call sees finite
    numbers only; `valid` is None where all count, which saves the passes that mask.
    """
    eager = not torch.compiler.is_compiling() and tokens.device.type == "cpu"
    if mask is None and eager and math.isfinite(float(tokens.detach().sum())):
        return tokens, None, torch.zeros((), dtype=torch.long)
    finite = finite_rows(tokens.detach())
    valid = finite if mask is None else mask & finite
    not_finite = (~finite if mask is None else mask & ~finite).sum()
    if eager and bool(valid.all()):
        return tokens, None, not_finite
    return torch.where(valid[:, None], tokens, 0), valid, not_finite


def finite_rows(tokens: Tensor) -> Tensor:
    """Which rows of `tokens` [N, d] hold neither NaN nor infinity [N]; several times as fast as isfinite().all(1)."""
    return tokens.amax(1).isfinite() & tokens.amin(1).isfinite()


def n_values(tokens: Tensor, valid: Tensor | None) -> Tensor | int:
    """How many numbers the valid rows of `tokens` [N, d] hold."""
    return tokens.numel() if valid is None else valid.sum() * tokens.shape[1]


def both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Where both masks hold; None stands for everywhere."""
    return second if first is None else first if second is None else first & second

"""A codebook: K code vectors that follow their inputs, are trained, mapped or frozen; search and statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vqtool.api.quantizer import SAMPLES, CodebookStats, sample
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.arithmetic import Arithmetic
from vqtool.quantizers.core.averages import look_up, totals
from vqtool.quantizers.core.search import nearest
from vqtool.quantizers.estimators.straight_through import mean_of
from vqtool.quantizers.gpu import operators
from vqtool.quantizers.gpu import switch as gpu

Codes = Literal["ema", "learned", "mapped", "frozen"]
TOGETHER = 2**22  # numbers of a codebook up to which several are copied to be moved as one
Start = Callable[[Tensor, int, torch.Generator], Tensor]  # chooses the first codes among points


class Started(nn.Module):
    """Something that must be started from data before it is used.

    `ready` says whether it was. It is a buffer, so that it travels with the weights, mirrored by a plain Python flag,
    so that asking costs no wait for the device and breaks no graph.
    """

    ready: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))
        self.is_ready = False

    def set_ready(self) -> None:
        """Note that it was started."""
        self.ready.fill_(True)
        self.is_ready = True

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.is_ready = not self.ready.is_meta and bool(self.ready)


def not_started() -> VqtoolError:
    """The error for a quantizer whose codebooks hold no codes yet."""
    return VqtoolError(
        "the quantizer was never started: its codebook holds no codes",
        hint="load a checkpoint, train on a batch, or call quantizer.initialise(z) with outputs of the encoder",
        exit_code=1,
    )


class Codebook(Started):
    """K codes [K, d], and the table [K, D] of what they stand for.

    Args:
        codes: "ema", a buffer that `update` moves; "learned", a parameter; "mapped", a frozen buffer behind a trained
            linear map (SimVQ, Zhu et al. 2024, arXiv 2411.02038); "frozen".
        unit: the table's rows have length one.
        code_dim: d, where it is not D: the codes lie in a plane of d orthonormal directions through the mean of the
            inputs that the codebook starts from, along their principal components, and the plane stays. Fewer
            dimensions need fewer inputs to be filled evenly. The search is among the rows of the table: far from zero
            they are rounded, and the nearest code inside the plane need not be the nearest of them.
        arithmetic: of the search, where it is another library's; codes of length one are then used as they are.
    """

    codes: Tensor
    weights: Tensor  # [K]  of "ema": the moving average of use
    basis: Tensor  # [d, D]
    origin: Tensor  # [D]

    def __init__(
        self, size: int, dim: int, *, codes: Codes = "ema", unit: bool = False, code_dim: int = 0,
        decay: float = 0.99, revive_below: float = 0.1, arithmetic: Arithmetic | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.arithmetic = arithmetic
        if code_dim > dim:
            raise VqtoolError(f"codes of {code_dim} dimensions do not fit into a latent of {dim}")
        self.kind, self.unit, self.decay, self.revive_below = codes, unit, decay, revive_below
        self.plane = code_dim > 0
        inside = code_dim or dim
        start = torch.zeros(size, inside)
        if codes == "learned":
            self.codes = nn.Parameter(start)
        else:
            self.register_buffer("codes", start)
        if codes == "ema":
            self.register_buffer("weights", torch.zeros(size))
        if codes == "mapped":
            self.map = nn.Linear(inside, inside, bias=False)
            with torch.no_grad():
                self.map.weight.copy_(torch.eye(inside))
        if self.plane:
            self.register_buffer("basis", torch.eye(inside, dim))
            self.register_buffer("origin", torch.zeros(dim))

    @property
    def table(self) -> Tensor:
        """What each code stands for [K, D]; a gradient reaches what is trained."""
        table = self.map(self.codes) if self.kind == "mapped" else self.codes
        if self.unit and self.arithmetic is None:
            table = F.normalize(table, dim=1)
        return table @ self.basis + self.origin if self.plane else table

    def inside(self, tokens: Tensor) -> Tensor:
        """The coordinates [N, d] of `tokens` [N, D] where the codes are."""
        return (tokens.to(self.basis.dtype) - self.origin) @ self.basis.T if self.plane else tokens

    @torch.no_grad()
    def set(self, codes: Tensor) -> None:
        """Take `codes` [K, d] as the codebook, all of equal weight."""
        self.codes.copy_(codes)
        self.keep_length()
        if self.kind == "ema":
            self.weights.zero_()
        self.set_ready()

    @torch.no_grad()
    def start(self, points: Tensor, how: Start, generator: torch.Generator) -> None:
        """Start from `points` [N, D]: codes that `how` chooses among them, or random ones as spread as they are."""
        if self.plane:
            self.origin.copy_(points.mean(0))
            away = (points - self.origin).double()
            self.basis.copy_(torch.linalg.eigh(away.T @ away).eigenvectors.T.flip(0)[: len(self.basis)])
        points = self.inside(points.to(self.codes.dtype))
        if self.kind in ("mapped", "frozen"):
            normal = torch.randn(self.codes.shape, generator=generator).to(points)
            self.set(points.mean(0) + points.std(0, correction=0).clamp_min(1e-6) * normal)
        else:
            self.set(how(points, self.codes.shape[0], generator))

    def search(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """The nearest code [N] of each of `tokens` [N, D], finite all; -1 where `valid` [N] is false."""
        tokens, table = tokens.detach(), self.table.detach()
        if self.arithmetic is None and gpu.usable(tokens):
            return gpu.search(tokens, valid, table)
        codes = nearest(tokens, table)[0] if self.arithmetic is None else self.arithmetic.search(tokens, table)
        return codes if valid is None else codes.masked_fill(~valid, -1)

    def scores(self, tokens: Tensor, temperature: float | Tensor) -> Tensor:
        """-mean((z - e_k)^2) / temperature [N, K] of `tokens` [N, D], but for what all codes have in common."""
        table = self.table
        centre = table.detach().mean(0)  # distances do not depend on it; without an offset they cancel less
        away, ours = tokens - centre, table - centre
        half = ours.square().sum(1) / 2
        return torch.addmm(half, away, ours.t(), alpha=-1) * (-2 / (tokens.shape[1] * temperature))

    def look_up(self, codes: Tensor, valid: Tensor | None, *, trained: bool = False) -> Tensor:
        """The rows [N, D] of `codes` [N]; zero where `valid` [N] is false. A gradient reaches them if `trained`."""
        return look_up(self.table if trained else self.table.detach(), codes, valid)

    def loss(self, tokens: Tensor, codes: Tensor, valid: Tensor | None, sse: Tensor, n_values: Tensor | int) -> Tensor:
        """The codebook loss sse / n_values, whose gradient goes to the codes only (van den Oord et al. 2017, eq. 3)."""
        table = self.table
        if not (torch.is_grad_enabled() and table.requires_grad):
            return mean_of(sse, n_values)
        return mean_of(_CodebookError.apply(table, tokens.detach(), codes, valid, sse), n_values)

    @torch.no_grad()
    def stats(self, tokens: Tensor, codes: Tensor, valid: Tensor | None) -> CodebookStats:
        """Counts and sums of the valid `tokens` [N, D] by the code that they chose."""
        size = self.codes.shape[0]
        tokens = self.inside(tokens.detach())
        if gpu.usable(tokens):
            return CodebookStats(*gpu.statistics(tokens, codes, valid, size, samples=True))
        counts, sums = totals(tokens, codes, valid, size)
        some = valid if valid is not None else codes >= 0
        return CodebookStats(counts.float(), sums.float(), sample(tokens, size, some).float())

    def no_stats(self) -> CodebookStats:
        """The statistics of a batch without a token."""
        size, width = self.codes.shape
        rows = self.codes.new_full((min(size, SAMPLES), width), torch.nan, dtype=torch.float32)
        return CodebookStats(rows.new_zeros(size), rows.new_zeros(size, width), rows)

    @torch.no_grad()
    def update(self, stats: CodebookStats) -> None:
        """m <- g m + (1 - g) n and code <- (g m code + (1 - g) s) / m_new, for n inputs with the sum s that chose it.

        (van den Oord et al. 2017, appendix A.1.) That is the moving average of counts and of sums, with the sums kept
        as m * code: nothing can be stale, so a codebook that is set from outside stays. A code that nobody chose rests,
        bit for bit. Before the first update every code weighs as uniform use of that update's batch would: the start
        survives. Then codes that are hardly ever chosen start again at inputs that were seen.
        """
        update_all({self: stats})

    def keep_length(self) -> None:
        """Give codes that another library's arithmetic takes as they are the length one, if they should have it."""
        if self.unit and self.arithmetic is not None:
            self.codes.copy_(F.normalize(self.codes, dim=1))

    def extra_repr(self) -> str:
        return f"{' x '.join(map(str, self.codes.shape))}, {self.kind}{'' if self.is_ready else ', not started'}"


@torch.no_grad()
def update_all(stats: Mapping[Codebook, CodebookStats]) -> None:
    """`Codebook.update` of many; of those that are alike as one, where a launch costs more than what it does."""
    alike: dict[tuple[Any, object], list[Codebook]] = {}
    for book, some in stats.items():
        codes, by = book.codes, gpu.ops if gpu.usable(book.codes) else operators
        alone = codes.numel() > TOGETHER or (by is operators and codes.device.type == "cpu")
        kind = (codes.shape, codes.dtype, codes.device, some.samples.shape, book.decay, book.revive_below)
        alike.setdefault((by, book if alone else kind), []).append(book)
    for (by, _), books in alike.items():
        each = [stats[book] for book in books]
        counts, sums = ([part.to(books[0].codes.dtype) for part in parts]
                        for parts in zip(*((s.counts, s.sums) for s in each), strict=True))  # fmt: skip
        by.follow([book.codes for book in books], [book.weights for book in books], counts, sums,
                  [s.samples for s in each], books[0].decay, books[0].revive_below)  # fmt: skip
        for book in books:
            book.keep_length()


class _CodebookError(torch.autograd.Function):
    """The sum of squares, with the gradient 2 (n_k e_k - s_k) by counts n and sums s instead of one per token."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, tokens: Tensor, codes: Tensor, valid: Tensor | None, sse: Tensor) -> Tensor:
        ctx.save_for_backward(table, tokens, codes, valid)
        return sse.view_as(sse)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_sse: Tensor) -> tuple[Tensor | None, ...]:
        table, tokens, codes, valid = ctx.saved_tensors
        if gpu.usable(tokens):
            counts, sums, _ = gpu.statistics(tokens, codes, valid, table.shape[0], samples=False)
        else:
            counts, sums = totals(tokens, codes, valid, table.shape[0])
        return (counts[:, None] * table - sums) * (2 * by_sse), None, None, None, None

"""The one switch: where kernels run, the check before their first use, and a quantizer's pass with them."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vqtool.api.precision import exact
from vqtool.api.quantizer import CodebookStats
from vqtool.quantizers.gpu import operators

WIDEST = 512  # features
ASKED = ("on", "certified")  # VQTOOL_KERNELS; the second takes products in bfloat16 where that gives the same codes
UNASKED = "auto"  # where nothing is said: on GPUs that kernels were compiled for, but not in compiled graphs
COMPILED_FOR = (8, 0)  # the oldest generation of GPUs for which the tests compile them
TYPES = (torch.float32, torch.bfloat16, torch.float16)  # of tokens, computed as float32
CHECKED = 256  # tokens of the check before first use
LARGE = 2100  # codes of a codebook whose tokens are sorted to be summed
ops = torch.ops.vqtool
_trusted: dict[tuple[str, int, int, int, int, str], bool] = {}
_noted: set[str] = set()


def usable(x: Tensor, levels: int = 1, groups: int = 1, check: str = "pass") -> bool:
    """Whether kernels take rows like those of `x` [N, groups x D]: on CUDA with Triton, after a check; not in exports.

    VQTOOL_KERNELS=off in the environment turns them off; with `on` or `certified` compiled graphs hold them too. An
    exported program has to run where vqtool is not. On a CPU they run in Triton's interpreter, with VQTOOL_KERNELS=on
    and TRITON_INTERPRET=1: for tests. The meta device, which has shapes alone, takes the operators that a GPU would.
    """
    kind = x.device.type
    if kind not in ("cuda", "cpu", "meta") or x.dtype not in TYPES or torch.compiler.is_exporting():
        return False
    if kind == "cpu" and not interpreted():
        return False
    dim, several = x.shape[-1] // groups, min(groups, 2)
    if kind == "meta":
        return os.environ.get("VQTOOL_KERNELS") != "off" and 0 < dim <= WIDEST and len(x) > 0
    compiled = torch.compiler.is_compiling()
    return trusted(kind, x.device.index or 0, dim, levels, several, check, compiled) and len(x) > 0


def whole(x: Tensor, levels: int, groups: int) -> Any:
    """The operators that make the whole pass of tokens like `x`: kernels, or plain ones; None: a CPU, part by part.

    The plain ones are few and large, as every one costs a launch; a compiled graph finds its own.
    """
    if usable(x, levels, groups):
        return ops
    return None if x.device.type == "cpu" or torch.compiler.is_compiling() or not len(x) else operators


def interpreted() -> bool:
    """Whether kernels are asked for on a CPU, and can be interpreted there."""
    if os.environ.get("VQTOOL_KERNELS") not in ASKED:
        return False
    return os.environ.get("TRITON_INTERPRET") == "1" or note("GPU kernels need CUDA: quantizers run without")


def trusted(
    kind: str, index: int, dim: int, levels: int, groups: int = 1, check: str = "pass", compiled: bool = False
) -> bool:
    """Whether kernels gave on this device what plain PyTorch gives, when they were first asked for such a size."""
    key = (kind, index, dim, levels, groups, check)
    if compiled and os.environ.get("VQTOOL_KERNELS") not in ASKED:
        return False
    if key not in _trusted:
        if not wanted(kind, index):
            _trusted[key] = False
        elif importlib.util.find_spec("triton") is None:
            _trusted[key] = note("Triton is not installed: quantizers run without kernels")
        elif not 0 < dim <= WIDEST:
            _trusted[key] = note(f"GPU kernels take up to {WIDEST} features: wider quantizers run without")
        elif kind == "cuda" and torch.cuda.is_current_stream_capturing():
            return False  # a check waits for the device; the next use outside a capture makes it
        else:
            _trusted[key] = agrees(
                torch.device(f"{kind}:{index}" if kind == "cuda" else kind), dim, levels, groups, check
            )
    return _trusted[key]


def wanted(kind: str, index: int) -> bool:
    """Whether VQTOOL_KERNELS asks for kernels, or leaves them to GPUs that they were compiled for."""
    said = os.environ.get("VQTOOL_KERNELS") or UNASKED
    if said == UNASKED:
        nvidia = kind == "cuda" and torch.version.cuda is not None
        return nvidia and torch.cuda.get_device_capability(index) >= COMPILED_FOR
    if said not in (*ASKED, "off"):
        return note(f"VQTOOL_KERNELS is auto, on, certified or off, not `{said}`: quantizers run without GPU kernels")
    return said in ASKED


# what torch.compiler.assume_constant_result does; the decorator imports torch._dynamo: two seconds
trusted._dynamo_marked_constant = True  # type: ignore[attr-defined]  # a function takes attributes
interpreted._dynamo_marked_constant = True  # type: ignore[attr-defined]  # a function takes attributes


def note(text: str) -> bool:
    """Warn once in a process; false."""
    if text not in _noted:
        _noted.add(text)
        warnings.warn(text, stacklevel=2)
    return False


@torch.no_grad()
def agrees(device: torch.device, dim: int, levels: int, groups: int = 1, check: str = "pass") -> bool:
    """Whether kernels and plain PyTorch agree on a few tokens, masked ones and NaN among them; else a note."""
    try:
        given = [t.to(device) for t in trial_inputs(dim, levels, groups)]
        with exact(given[0]):
            found, plain = (TRIALS[check](by, *given, groups) for by in (ops, operators))
        close = all(
            torch.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True) if a.is_floating_point() else torch.equal(a, b)
            for a, b in zip(found, plain, strict=True)
        )
    except Exception as error:  # a compiler that is missing or too old is no reason to stop
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return note(f"GPU kernels cannot run here, so quantizers run without: {reason}"[:300])
    return close or note(f"GPU kernels disagree with plain PyTorch on {device} at {dim} features: they are not used")


def trial_inputs(dim: int, levels: int, groups: int) -> tuple[Tensor, ...]:
    """Tokens [N, groups x D], a mask, codebooks, a gradient and a number for a trial; always the same.

    Tokens that are nearly as close to a second code are masked: there the order of a sum decides, and no fault does.
    """
    generator = torch.Generator().manual_seed(0)
    x, upstream = (torch.randn(CHECKED, groups * dim, generator=generator) for _ in range(2))
    tables = torch.randn(groups * levels, 300, dim, generator=generator) + 3
    x, mask = (x + 3).bfloat16().float(), torch.rand(CHECKED, generator=generator) > 0.2
    shaken = [x + by * upstream.sign() for by in (0, 1e-3, -1e-3)]
    codes = [operators.quantize(some.double(), mask, tables.double(), groups, False)[0] for some in shaken]
    mask &= (torch.stack(codes) == operators.quantize(x, mask, tables, groups, False)[0]).all(2).all(0)
    x[7, -1], x[9] = torch.nan, torch.inf
    return x, mask, tables, upstream, torch.tensor(0.5)


def trial(
    by: Any, x: Tensor, mask: Tensor, tables: Tensor, upstream: Tensor, by_mean: Tensor, groups: int
) -> list[Tensor]:
    """What each operator `by` a module of them gives; of a large codebook and of narrow, strided tokens too."""
    codes, value, pull, rests, mean, values, bad = by.quantize(x, mask, tables, groups, True)
    counts, sums, samples = by.statistics(x, rests, codes, groups, tables.shape[1], True)
    back = by.pass_back(upstream, by_mean, x, value, pull, codes, values)
    table, weights = tables.clone(), tables.new_zeros(tables.shape[:2])
    by.follow(*map(list, (table, weights, counts, sums, samples)), 0.9, 0.1)
    dim = tables.shape[2]
    found = by.search(x[:, :dim], mask, tables[0])
    narrow = x[:, :dim].bfloat16().t().contiguous().t()
    more = [*by.quantize(narrow, mask, tables[:1], 1, True)[:2],
            *by.statistics(narrow, rests[:0], codes[:, :1], 1, LARGE, False)[:2]]  # fmt: skip
    return [codes, value, pull, rests, mean, values, bad, counts, sums, samples, back, table, weights, found, *more]


def trial_of_choice(
    by: Any, x: Tensor, mask: Tensor, tables: Tensor, upstream: Tensor, temperature: Tensor, groups: int
) -> list[Tensor]:
    """The same of codes drawn by logits, in windows of one token, and of two."""
    tables = tables[:groups]
    tokens, weight = x.nan_to_num(0, 0, 0), torch.block_diag(*tables)
    logits, found = tokens @ weight.t() / weight.shape[1], []
    by_choice = upstream.view(len(x), groups, -1).transpose(0, 1) @ tables.mT / weight.shape[1]
    for length, valid, noisy in ((1, None, True), (2, mask, True), (2, mask, False)):
        how = (valid, length, float(temperature), noisy)
        value, codes, usage, sums = by.choose(logits, tokens, weight, tables, *how)
        back = by.choose_back(by_choice, by_choice[:, 0], logits, sums, tokens, weight, *how)
        found += [value, codes, usage, sums, back]
    return found


TRIALS: dict[str, Callable[..., list[Tensor]]] = {"pass": trial, "choice": trial_of_choice}


class Pass(torch.autograd.Function):
    """(codes, value, rests, mean squared error, not finite) of `quantize`, with its gradient by tokens."""

    @staticmethod
    def forward(
        ctx: Any, by: Any, x: Tensor, mask: Tensor | None, tables: Tensor, groups: int, train: bool
    ) -> tuple[Tensor, ...]:
        codes, value, pull, rests, mean, values, bad = by.quantize(x, mask, tables, groups, train)
        ctx.set_materialize_grads(False)
        ctx.by = by
        ctx.save_for_backward(x, value, pull, codes, values)
        ctx.mark_non_differentiable(codes, rests, bad)
        return codes, value, rests, mean, bad

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _c: None, upstream: Tensor | None, _r: None, by_mean: Tensor | None, _b: None) -> Any:
        if upstream is None and by_mean is None:
            return None, None, None, None, None, None
        return None, ctx.by.pass_back(upstream, by_mean, *ctx.saved_tensors), None, None, None, None


def passed(
    by: Any, x: Tensor, mask: Tensor | None, tables: Sequence[Tensor], groups: int, *, stats: bool
) -> tuple[Any, ...]:
    """(codes [N, B], value [N, W], mean squared error, not finite, statistics by codebook if wanted) of `x` [N, W]."""
    table = tables[0].detach()[None] if len(tables) == 1 else torch.stack([t.detach() for t in tables])
    train = stats or (torch.is_grad_enabled() and x.requires_grad)
    codes, value, rests, mean, bad = Pass.apply(by, x, mask, table, groups, train)
    if not stats:
        return codes, value, mean, bad, ()
    with torch.no_grad():
        every = by.statistics(x.detach(), rests, codes, groups, table.shape[1], True)
    return codes, value, mean, bad, tuple(CodebookStats(*book) for book in zip(*every, strict=True))


def search(x: Tensor, mask: Tensor | None, table: Tensor) -> Tensor:
    """The nearest row of `table` [K, D] for each of `x` [N, D]; -1 for tokens that are masked or not finite."""
    return ops.search(x, mask, table.to(x.dtype))


def statistics(x: Tensor, codes: Tensor, valid: Tensor | None, size: int, *, samples: bool) -> tuple[Tensor, ...]:
    """(counts [K], sums [K, D], samples [S, D]) of the valid tokens `x` [N, D] by their `codes` [N]."""
    codes = codes if valid is None else torch.where(valid, codes, -1)
    counts, sums, rows = ops.statistics(x, x.new_empty(0, *x.shape), codes[:, None], 1, size, samples)
    return counts[0], sums[0], rows[0]


class Choice(torch.autograd.Function):
    """(value, codes, usage) of `operators.choose`, with a gradient by the logits and the code vectors."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, weight: Tensor, vectors: Tensor, *how: Any) -> Any:
        value, codes, usage, sums = ops.choose(logits, tokens, weight, vectors, *how)
        ctx.save_for_backward(logits, sums, tokens, weight, vectors, codes)
        ctx.how = how
        ctx.mark_non_differentiable(codes)
        return value, codes, usage

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor, _: None, by_usage: Tensor) -> tuple[Tensor | None, ...]:
        logits, sums, tokens, weight, vectors, codes = ctx.saved_tensors
        valid, (groups, size, width) = ctx.how[0], vectors.shape
        by_value = by_value if valid is None else by_value.masked_fill(~valid[:, None], 0)
        by_choice = by_value.view(-1, groups, width).transpose(0, 1) @ vectors.mT
        by_usage = by_usage / (len(tokens) if valid is None else valid.sum().clamp_min(1))
        by_logits = ops.choose_back(by_choice, by_usage, logits, sums, tokens, weight, *ctx.how)
        by_vectors = ops.statistics(by_value, by_value.new_empty(0, *by_value.shape), codes, groups, size, False)[1]
        return by_logits, None, None, by_vectors, None, None, None, None

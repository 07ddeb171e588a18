"""The quantizer contract: a pure forward that returns codes and statistics, and an explicit update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vqtool.errors import VqtoolError

SAMPLES = 256  # the most inputs that the statistics of one codebook carry along
PART_NAMES = {"grouped": "group", "residual": "level", "routed": "expert"}  # of a topology, in names of codebooks
ROUNDED = 12  # low bits of a float32's fraction (23 bits) that only break ties between samples


@dataclass(frozen=True, slots=True)
class CodebookStats:
    """What one codebook needs to follow the encoder: sums over the *inputs* of a batch, never over outputs.

    All tensors are float32, whatever the precision of the forward pass. Masked and non-finite tokens are in none.
    """

    counts: Tensor  # [K]     how many inputs chose each code
    sums: Tensor  # [K, d]  the sum of those inputs
    samples: Tensor  # [S, d]  a few of the inputs, from `sample`: S <= min(K, SAMPLES); NaN rows stand for none

    def __add__(self, other: CodebookStats) -> CodebookStats:
        """Statistics of both batches together: the same as those of one batch that holds all their tokens."""
        samples = sample(torch.cat([self.samples, other.samples]), self.counts.shape[0])
        return CodebookStats(self.counts + other.counts, self.sums + other.sums, samples)


def sample(inputs: Tensor, codes: int, valid: Tensor | None = None) -> Tensor:
    """min(N, `codes`, SAMPLES) rows of `inputs` [N, d], those with the smallest hash of their content.

    A pure function of the set of rows: the sample of a union is the sample of the samples, so micro-batches and ranks
    add up to what one large batch gives, in any order. Rows that are not finite or not `valid` [N] come last, as NaN.
    """
    size = min(inputs.shape[0], codes, SAMPLES)
    if valid is None:
        valid = inputs.isfinite().all(1)
    keys = order_keys(inputs).masked_fill(~valid, torch.iinfo(torch.long).max)
    chosen = keys.topk(size, largest=False, sorted=True).indices
    return inputs[chosen].masked_fill(~valid[chosen, None], torch.nan)


def content_keys(rows: Tensor) -> Tensor:
    """A non-negative 62-bit hash [N] of each row of `rows` [N, d], from the bits of up to four of its numbers."""
    return mixed(bits_of(rows))


def order_keys(rows: Tensor) -> Tensor:
    """The same from rounded numbers first and from all bits last: rows that differ by rounding alone keep their places.

    What is left over by a level depends on its codes, and those on the order in which sums were taken: several ranks
    would else reinitialise other codes than one rank does.
    """
    return order_of(bits_of(rows))


def order_of(bits: Tensor) -> Tensor:
    """`order_keys` [...] of rows whose `bits_of` are [..., n]."""
    coarse, fine = mixed(torch.stack([(bits + (1 << ROUNDED - 1)) >> ROUNDED, bits]))
    return (coarse & -(2**22)) | (fine & (2**22 - 1))


def bits_of(rows: Tensor) -> Tensor:
    """The bits of up to four numbers of each row of `rows` [..., d], as whole numbers [..., <= 4]."""
    return rows[..., :: -(-rows.shape[-1] // 4)].float().contiguous().view(torch.int32).long()


def mixed(numbers: Tensor) -> Tensor:
    """A non-negative 62-bit hash [...] of each row of whole numbers [..., n]."""
    odd = torch.arange(1, 2 * numbers.shape[-1], 2, device=numbers.device) * -0x61C8864680B583EB  # the golden ratio
    keys = (numbers * (odd & (2**63 - 1) | 1)).sum(-1)
    keys = (keys ^ (keys >> 29)) * 0x3F58476D1CE4E5B9
    return (keys ^ (keys >> 32)) & (2**62 - 1)


@dataclass(frozen=True, slots=True)
class Route:
    """What a router chose for each window: one of R experts, the one with the largest probability.

    The probabilities have a gradient to the router alone.
    """

    expert: Tensor  # [B] long
    expert_probs: Tensor  # [B, R]


@dataclass(frozen=True, slots=True)
class Quantized:
    """What a quantizer returns. B windows, T tokens, D features, Q codebooks (levels or groups), K codes.

    Unpacks as `z, codes, loss = quantizer(x)`. In another layout than [B, T, D] `z`, `hard` and `soft` have the axes of
    the input, and `codes` those of the tokens, with the codebooks last: [B, H, W, Q] for images.
    """

    z: Tensor  # [B, T, D]  what flows on; in value the code vectors, its gradient reaches the input
    codes: Tensor  # [B, T, Q]  long; -1 where a token is masked or not finite, for dropped levels, experts not taken
    hard: Tensor  # [B, T, D]  the code vectors, detached
    soft: Tensor | None = None  # [B, T, D]  the expectation under `probs`, for soft quantizers
    probs: Tensor | None = None  # [B, T, Q, K]
    usage: Tensor | None = None  # [Q, K]  the mean of such probabilities over the real tokens, without noise; detached
    terms: Mapping[str, Tensor] = field(default_factory=dict)  # unweighted scalars, e.g. "commitment"
    stats: tuple[CodebookStats, ...] = ()  # one per codebook that follows by moving average; in training only
    not_finite: Tensor | None = None  # 0-dim long: real tokens that held a NaN or an infinity (see `Quantizer`)
    route: Route | None = None  # of quantizers that choose a codebook for each window
    weights: Mapping[str, float] = field(default_factory=dict)  # of the terms in `loss`

    def __iter__(self) -> Iterator[Tensor]:
        """`z`, `codes` and `loss`."""
        return iter((self.z, self.codes, self.loss))

    @property
    def loss(self) -> Tensor:
        """The terms, each by its weight, in one number to add to one's own loss; 0 where there are none."""
        parts = [term * self.weights.get(name, 0.0) for name, term in self.terms.items() if self.weights.get(name)]
        return torch.stack(parts).sum() if parts else self.z.new_zeros(())

    @property
    def perplexity(self) -> Tensor:
        """How many codes are in even use, exp of the entropy of the codes of each codebook [Q]."""
        columns = self.codes.reshape(-1, self.codes.shape[-1]).unbind(1)
        counts = [column[column >= 0].unique(return_counts=True)[1].double() for column in columns]
        shares = [count / count.sum() for count in counts]
        return torch.stack([torch.special.entr(share).sum().exp() for share in shares]).float()


class Quantizer(nn.Module):
    """Base of all quantizers. Built with the latent width `dim`; keyword-only parameters are the recipe's options.

    `forward` is pure: it changes no parameter, no buffer and no random state, in training and in evaluation. That is
    what makes gradient accumulation, several machines, activation checkpointing and freezing correct without special
    cases. Where it needs chance (noise, level dropout) it derives the draw from the content of its inputs and codebook.

    Masked tokens and tokens with a NaN or an infinity get code -1 and a zero vector, pass no gradient back and enter
    neither terms nor statistics; the non-finite ones among the real tokens are counted in `Quantized.not_finite`.

    A quantizer computes in float32, whatever autocast says, and stays in float32 when the model is cast to less.

    With the attribute `bypass` at 1 the inputs flow on as they are, with code -1, terms of 0 and no statistics, started
    or not: for training the other parts first. In between, `z` lies that far on the way from the codes to the inputs.
    The base class does this to every subclass's `forward`. It is a matter of training, and in no checkpoint.
    """

    terms: frozenset[str] = frozenset()  # what a stage may weight in its losses
    knobs: frozenset[str] = frozenset()  # attributes that a stage may set or schedule
    training_knobs: ClassVar[frozenset[str]] = frozenset({"bypass"})  # those of every quantizer, in no checkpoint
    bypass: float = 0.0
    straight_through: bool = True  # promise: the gradient of `z` by the input is exactly the identity
    nearest: bool = True  # promise: each code is the nearest of its `vectors()` to what the ones before left
    # Of several codebooks: groups share out the features, a level codes what those before left, and each window takes
    # one of the experts alone.
    topology: ClassVar[Literal["grouped", "residual", "routed"]] = "grouped"
    start_tokens: int = 64  # tokens per code that the codebooks want to start from, where the data have them
    dim: int
    codebook_sizes: tuple[int, ...]

    @property
    def codebook_names(self) -> tuple[str, ...]:
        """What the codebooks are called in metrics and findings: "codebook", or "level0", "level1", ..."""
        count = len(self.codebook_sizes)
        return ("codebook",) if count == 1 else tuple(f"{PART_NAMES[self.topology]}{q}" for q in range(count))

    @property
    def initialised(self) -> bool:
        """Whether the codebooks hold usable codes; before, `forward` starts them from a training batch, or refuses.

        In evaluation it always refuses: an error, never a silent start.
        """
        return True

    @property
    def fixed(self) -> bool:
        """Whether nothing ever moves its codes, as in a grid; a diagnosis then expects no motion.

        By default it is so where `update` is not overridden and no parameter has an axis with one entry a code.
        """
        moves = type(self).update is not Quantizer.update
        sizes = set(self.codebook_sizes)
        return not moves and not any(sizes & set(p.shape) for p in self.parameters() if p.requires_grad)

    def initialise(self, z: Tensor, mask: Tensor | None = None, *, seed: int = 0) -> None:
        """Start the codebooks from encoder outputs `z` [B, T, D]; `mask` [B, T] is true for real tokens.

        Called once by the loop, with the same `z` and `seed` on every rank, so that all ranks get the same codes.
        """

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize `z` [B, T, D]; `mask` [B, T] is true for real tokens. Pure."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """`codes` [B, T, Q'] with Q' <= Q (the first Q' codebooks) -> [B, T, D]; -1 contributes nothing.

        The base class has every subclass's `decode` refuse what `check_codes` refuses, on the CPU and not compiled.
        """
        raise NotImplementedError

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "decode" in vars(cls):
            cls.decode = checked(vars(cls)["decode"])  # type: ignore[method-assign, assignment]  # wrapped in place
        if "forward" in vars(cls):
            cls.forward = bypassable(vars(cls)["forward"])  # type: ignore[method-assign]  # likewise

    def passed_on(self, z: Tensor, mask: Tensor | None) -> Quantized:
        """Latents in the quantizer's layout as they are, but zero where they do not count: what a bypass gives."""
        layout = getattr(self, "layout", "BTD")
        features = layout.index("C" if "C" in layout else "D")
        finite = z.isfinite().all(features)
        real = torch.ones_like(finite) if mask is None else mask.bool().reshape(finite.shape)
        value = torch.where((real & finite).unsqueeze(features), z, 0)
        return Quantized(
            z=value,
            codes=torch.full((*finite.shape, len(self.codebook_sizes)), -1, device=z.device),
            hard=value.detach().float(),
            terms=dict.fromkeys(sorted(self.terms), value.flatten()[:0].float().sum()),  # 0, with a gradient of 0
            not_finite=(real & ~finite).sum(),
            weights=getattr(self, "loss_weights", {}),
        )

    def check_codes(self, codes: Tensor) -> None:
        """Refuse `codes` [B, T, Q'] that no codebook holds: looked up, they would give a wrong vector or none.

        Raises:
            VqtoolError: there are more columns than codebooks, or values that are not whole, below -1 or too large.
        """
        names, sizes = self.codebook_names, self.codebook_sizes
        if codes.dtype.is_floating_point or codes.dtype.is_complex or codes.dtype == torch.bool:
            raise VqtoolError(f"codes should be whole numbers, not {codes.dtype}".replace("torch.", ""))
        if codes.shape[-1] > len(sizes):
            raise VqtoolError(f"the codes have {codes.shape[-1]} columns, and the quantizer has {len(sizes)} codebooks")
        for name, size, column in zip(names, sizes, codes.unbind(-1), strict=False):
            if column.numel():
                low, high = int(column.min()), int(column.max())
                if low < -1 or high >= size:
                    raise VqtoolError(
                        f"code {low if low < -1 else high} is not one of `{name}`, whose codes are 0 to {size - 1}",
                        hint="-1 stands for no code; were the codes made by another model?",
                    )

    def use_levels(self, count: int) -> int:
        """Encode with the first `count` levels; returns how many it was before.

        Override where a search must know which level is the last.
        """
        return len(self.codebook_sizes)

    def vectors(self) -> tuple[Tensor, ...] | None:
        """What each code adds to the latent: Q tensors [K_q, D] whose sum is `decode`; None if not additive.

        Works before the codebooks are started as well: what is built upon it needs the shapes then.
        """
        return None

    @property
    def additive(self) -> bool:
        """Whether `decode` is the sum of what each codebook's codes give alone, with -1 for those of the others."""
        return len(self.codebook_sizes) == 1 or self.vectors() is not None

    def code_use(self) -> tuple[Tensor, ...] | None:
        """How much training used each code of each codebook, Q tensors [K_q] in any unit; None if it is not known.

        For those who write codes in few bits. It is part of the weights, so whoever has the model has the same numbers.
        """
        return None

    @classmethod
    def announced(cls, options: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
        """(terms, knobs) of a quantizer made with checked `options`, for the checks of a recipe."""
        return cls.terms, cls.knobs

    def renamed(self, name: str) -> str:
        """What a tensor is called today that older checkpoints call `name`."""
        return name

    def codebooks_with_inputs(self, tokens: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
        """(a codebook, the inputs [N, d] that reach it) for latents `tokens` [N, D], in the order they are searched.

        The codebooks are `vqtool.quantizers.core.codebook.Codebook`s whose codes may be set while this goes on: the
        inputs of those that follow are what the changed ones leave. Empty where codes cannot be moved one by one.
        """
        return iter(())

    def update(self, stats: Sequence[CodebookStats]) -> None:
        """Move the codebooks; called once per optimizer step, after the statistics of all ranks are summed."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Quantizer:
        """Follow `.to(device)` and `.double()`, but keep float32 where `.half()` or `.bfloat16()` ask for less."""

        def careful(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            narrower = result.is_floating_point() and result.dtype.itemsize < 4 <= tensor.dtype.itemsize
            return tensor.to(result.device) if narrower else result

        return super()._apply(careful, recurse)


def checked(decode: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """`decode` behind `check_codes`: where that costs no wait for a device and stands in no graph."""

    @wraps(decode)
    def careful(self: Quantizer, codes: Tensor) -> Tensor:
        if codes.device.type == "cpu" and not torch.compiler.is_compiling():
            self.check_codes(codes)
        return decode(self, codes)

    return careful


def bypassable(forward: Callable[..., Quantized]) -> Callable[..., Quantized]:
    """`forward` of a class, past which the inputs flow by the share `bypass`."""

    @wraps(forward)
    def either(self: Quantizer, z: Tensor, mask: Tensor | None = None, **more: Any) -> Quantized:
        if not self.bypass or type(self).forward is not either:  # a `super().forward` is inside of another
            return forward(self, z, mask, **more)
        passed = self.passed_on(z, mask)
        if self.bypass >= 1:
            return passed
        given = forward(self, z, mask, **more)
        return replace(given, z=torch.lerp(given.z, passed.z, self.bypass))

    return either


def sum_stats(many: Sequence[tuple[CodebookStats, ...]]) -> tuple[CodebookStats, ...]:
    """Add up the statistics of several micro-batches, codebook by codebook."""
    total = many[0]
    for more in many[1:]:
        total = tuple(a + b for a, b in zip(total, more, strict=True))
    return total

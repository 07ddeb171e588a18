"""A quantizer under test: builds fresh ones of the same kind, and the inputs to try them on."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vqtool.api import Quantized, Quantizer

SMALL = {
    "codebook_size": 48,
    "codebook_sizes": (8, 16, 24),
}  # large enough to distinguish laws, small enough to try many things
EVEN = 8  # features of normal tokens up to which any code can win some of them


@dataclass(frozen=True)
class Subject:
    """What the laws of vqtool's quantizers are checked on.

    Args:
        make: builds a quantizer: `make(dim, **options)`, best the class itself.
        dim: latent width. options: its keyword arguments; a codebook size that is not given is made small.
        seed: of weights and inputs. batch, length: windows and tokens of an input.
    """

    make: Callable[..., Quantizer]
    dim: int = 8
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch: int = 4
    length: int = 64
    _ready: dict[str, Quantizer] = field(default_factory=dict, init=False, repr=False, compare=False)

    def accepts(self, option: str) -> bool:
        """Whether the constructor takes this keyword."""
        return option in inspect.signature(self.make).parameters

    def new(self, **changes: Any) -> Quantizer:
        """A fresh quantizer, not started; `changes` override options."""
        small = {name: value for name, value in SMALL.items() if self.accepts(name)}
        of = inspect.signature(self.make).parameters.get("of")
        if of is not None and isinstance(of.default, type):  # a quantizer of others: small ones
            small["of"] = partial(of.default, codebook_size=SMALL["codebook_size"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.make(self.dim, **{**small, **self.options, **changes})

    def started(self, z: Tensor | None = None, *, train: bool = True, **changes: Any) -> Quantizer:
        """A quantizer that was started from `z`, by default from plenty of `tokens`: then copied from one started once.

        A start takes as long as ten passes, and nearly every law asks for one.
        """
        if z is not None:
            return self.start(self.new(**changes), z).train(train)
        options = repr(changes)
        if options not in self._ready:
            self._ready[options] = self.start(self.new(**changes))
        return copy.deepcopy(self._ready[options]).train(train)

    def start(self, quantizer: Quantizer, z: Tensor | None = None) -> Quantizer:
        """Start a quantizer that needs it, from `z` or plenty of `tokens`."""
        if not quantizer.initialised:
            quantizer.initialise(self.tokens(salt=99, windows=4 * self.batch) if z is None else z, seed=self.seed)
        return quantizer

    def tokens(self, *, salt: int = 0, windows: int | None = None, scale: float = 1.0, offset: float = 0.0) -> Tensor:
        """Normal inputs [B, T, D] around `offset`; the same for the same `salt`."""
        generator = torch.Generator().manual_seed(self.seed * 1000 + salt)
        shape = (windows or self.batch, self.length, self.dim)
        return torch.randn(shape, generator=generator) * scale + offset


def clustered(tokens: Tensor, seed: int, spread: float | Tensor = 1.0) -> Tensor:
    """Tokens [..., D] of many features, normal with that spread, in 64 clusters; others as they are.

    Between many evenly spread ones, codes in their middle would win them all, and one at a token that token alone.
    """
    features = tokens.shape[-1]
    if features <= EVEN:
        return tokens
    centres = torch.randn(64, features, generator=torch.Generator().manual_seed(0))
    which = torch.randint(64, tokens.shape[:-1], generator=torch.Generator().manual_seed(seed))
    return tokens + 2 * spread * centres[which]


def state_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, by reference, also those that a state_dict leaves out."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of them."""
    return {name: tensor.detach().clone() for name, tensor in state_of(module).items()}


def changed(module: torch.nn.Module, before: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that are not, bit for bit, what they were (a NaN equals itself)."""
    now = snapshot(module)
    return sorted(
        n for n in now.keys() | before.keys() if n not in now or n not in before or not same(now[n], before[n])
    )


def same(a: Tensor, b: Tensor) -> bool:
    """Equal in shape, kind and every value; NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return bool((a == b).all())
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def flat_vectors(quantizer: Quantizer) -> list[Tensor] | None:
    """`vectors()` in float64, if the quantizer is additive."""
    vectors = quantizer.vectors()
    return None if vectors is None else [v.detach().double().clone() for v in vectors]


def rows_for(vectors: Tensor, codes: Tensor) -> Tensor:
    """Rows [N, D] of `vectors` [K, D] for `codes` [N]; zero for -1."""
    return torch.where((codes >= 0)[:, None], vectors[codes.clamp_min(0)], 0)


def inputs_by_level(z: Tensor, codes: Tensor, vectors: list[Tensor]) -> list[Tensor]:
    """What each codebook was given [N, D], float64: z minus the vectors of the codebooks before it."""
    rest = z.detach().reshape(-1, z.shape[-1]).double()
    given = []
    for level, table in enumerate(vectors):
        given.append(rest)
        rest = rest - rows_for(table.detach().double(), codes.reshape(-1, codes.shape[-1])[:, level])
    return given


def total(quantized: Quantized, names: frozenset[str] | set[str]) -> Tensor:
    """The sum of the terms with these names."""
    found = [term for name, term in quantized.terms.items() if name in names]
    return torch.stack(found).sum() if found else quantized.z.new_zeros(())


def codebook_tensors(quantizer: Quantizer) -> list[Tensor] | None:
    """The parameters or buffers that hold each codebook, found by their values; None if they are not all there.

    A table may be narrower than the latent (a product's group): then its columns stand among zeros.
    """
    vectors = quantizer.vectors()
    if vectors is None:
        return None
    state = quantizer.state_dict(keep_vars=True).values()
    free = [part for t in state if t.is_floating_point() for part in (t.unbind(0) if t.ndim == 3 else [t])]
    found = []
    for table in vectors:
        used = table[:, table.abs().sum(0) > 0]
        match = next((t for t in free if t.ndim == 2 and t.shape == used.shape and torch.equal(t.detach(), used)), None)
        if match is None:
            return None
        free = [t for t in free if t is not match]
        found.append(match)
    return found

"""A foreign module from outside: finds its input layout, its outputs, its codebooks and its losses by trying."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.conformance.law import NotApplicable, in_a_line, tried
from vqtool.conformance.subject import snapshot, state_of
from vqtool.errors import VqtoolError

LAYOUTS = ("BTD", "BDT", "BDHW", "ND", "BHWD")
GRID = (18, 2)  # sides of a probe's window where it has two axes: with its length and the number of windows they are
TOKENS, WINDOWS = GRID[0] * GRID[1], 7  # such that hardly a width equals them; one that does would fit a wrong axis
BEST = 3  # the score of a width and a layout that nothing can better
WIDTHS = ("dim", "embedding_dim", "code_dim", "codebook_dim", "n_embd", "embed_dim", "latent_dim", "dimension",
          "input_dim", "e_dim", "D", "d", "channels", "features", "hidden_size")  # fmt: skip


@dataclass
class Seen:
    """What one forward gave, in the tool's own terms."""

    value: Tensor  # [N, D]  the quantized output, with gradient
    found_codes: Tensor | None  # [N, Q]
    losses: list[Tensor]  # scalars that are losses
    outputs: list[Tensor] = field(default_factory=list)  # all that it returned

    @property
    def codes(self) -> Tensor:
        """The codes [N, Q], for laws that need them."""
        if self.found_codes is None:
            raise NotApplicable("it returns no codes")
        return self.found_codes


@dataclass
class ForeignModule:
    """A module that knows nothing of vqtool, and how to talk to it.

    Args:
        make: builds a fresh one, the same each time (seeded). name: for messages.
        dim, layout: found by `infer_interface`.
    """

    make: Callable[[], nn.Module]
    name: str
    dim: int = 0
    layout: str = ""
    notes: dict[str, Any] = field(default_factory=dict)  # what the laws have found out about it

    def new(self, *, train: bool = True) -> nn.Module:
        """A fresh module; what it draws while it is built does not touch the global random state."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make().train(train)

    def tokens(self, salt: int = 0, *, windows: int = WINDOWS, scale: float = 1.0, offset: float = 0.0) -> Tensor:
        """Normal tokens [N, D] with N = windows * TOKENS."""
        generator = torch.Generator().manual_seed(salt)
        return torch.randn(windows * TOKENS, self.dim, generator=generator) * scale + offset

    def see(self, module: nn.Module, tokens: Tensor, *, seed: int = 0) -> Seen:
        """Run `module` on `tokens` [N, D] in its own layout and read its outputs."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            outputs = list(leaves(module(arranged(tokens, self.layout))))
        value = find_value(outputs, tokens, self.layout)
        if value is None:
            raise VqtoolError(f"`{self.name}` returns nothing of the shape of its input")
        codes = find_codes(outputs, tokens.shape[0], self.layout)
        losses = [t for t in outputs if is_loss(t)]
        return Seen(value, codes, losses, outputs)

    def warmed_up(self, steps: int = 2, *, train: bool = True, scale: float = 1.0, offset: float = 0.0) -> nn.Module:
        """A module that has seen a few training batches, so that whatever starts by data is started."""
        module = self.new()
        for i in range(steps):
            self.see(module, self.tokens(100 + i, scale=scale, offset=offset))
        return module.train(train)


def infer_interface(make: Callable[[], nn.Module], name: str, options: Mapping[str, Any]) -> ForeignModule:
    """Find the width and the layout that a module takes, or say what was tried."""
    reasons: list[str] = []
    best: tuple[int, ForeignModule] | None = None
    for dim in widths(ForeignModule(make, name).new(train=False), options):
        for layout in LAYOUTS:
            found = ForeignModule(make, name, dim, layout)
            reached = tried(partial(score, found))
            if isinstance(reached, BaseException):
                reasons.append(f"[{layout}] with D = {dim}: {in_a_line(reached)[:90]}")
                continue
            if best is None or reached > best[0]:
                best = (reached, found)
        if best is not None and best[0] == BEST:
            break
    if best is None:
        raise VqtoolError(
            f"`{name}` took no input that was tried, or returned nothing of its shape",
            hint=reasons[0] if reasons else "give its width as --arg dim=64",
        )
    return best[1]


def score(found: ForeignModule) -> int:
    """How well a width and a layout fit: it gives codes, of a table of that width, whose rows are what flows on."""
    module = found.new()
    seen = found.see(module, found.tokens())
    if seen.found_codes is None:
        return 0
    if not tables(module, found.dim, int(seen.codes.max()) + 1):
        return 1
    before = snapshot(module.eval())
    with torch.no_grad():
        again = tried(lambda: found.see(module, found.tokens()))
    exact = not isinstance(again, BaseException) and matching(module, before, again, found.dim)
    return BEST if exact else 2


def widths(module: nn.Module, options: Mapping[str, Any]) -> list[int]:
    """Latent widths to try: what was asked for, then what its tensors say, then its other numbers and common ones."""
    asked = [options[n] for n in WIDTHS if isinstance(options.get(n), int)]
    numbers = {n: v for n, v in vars(module).items() if isinstance(v, int) and not isinstance(v, bool)}
    state = list(state_of(module).values())
    last = [t.shape[-1] for t in state if t.ndim in (2, 3)]
    named = [numbers[n] for n in WIDTHS if n in numbers]
    lists = [t.shape[0] for t in state if t.ndim == 1]  # the levels of a scalar quantizer, the weights of a norm
    others = [*numbers.values(), *(n for t in state if t.ndim >= 2 for n in t.shape[:2])]
    found = dict.fromkeys([*asked, *last, *named, *lists, *others, 64, 32, 16, 8])
    return [n for n in found if 1 < n <= 4096][:12]


def arranged(tokens: Tensor, layout: str) -> Tensor:
    """`tokens` [N, D] in a layout; T and H * W are TOKENS."""
    if layout == "ND":
        return tokens
    windows = tokens.view(-1, TOKENS, tokens.shape[1])
    if layout == "BTD":
        return windows
    if layout == "BDT":
        return windows.transpose(1, 2)
    grid = windows.view(-1, *GRID, tokens.shape[1])
    return grid if layout == "BHWD" else grid.permute(0, 3, 1, 2)


def flattened(value: Tensor, layout: str) -> Tensor:
    """The inverse of `arranged`."""
    width = {"BDT": 1, "BDHW": 1}.get(layout, value.ndim - 1)
    return value.movedim(width, -1).reshape(-1, value.shape[width])


def leaves(output: Any, depth: int = 0) -> Iterator[Tensor]:
    """All tensors in a nested output: tuples, lists, mappings, dataclasses, other objects' attributes."""
    if isinstance(output, Tensor):
        yield output
    elif depth > 4 or output is None:
        return
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from leaves(part, depth + 1)
    elif isinstance(output, list | tuple | set):
        for part in output:
            yield from leaves(part, depth + 1)
    elif dataclasses.is_dataclass(output):
        for f in dataclasses.fields(output):
            yield from leaves(getattr(output, f.name), depth + 1)
    elif hasattr(output, "__dict__"):
        yield from leaves(vars(output), depth + 1)


def find_value(outputs: list[Tensor], tokens: Tensor, layout: str) -> Tensor | None:
    """The first float output of the input's shape that is not the input: the quantized value, [N, D]."""
    given = arranged(tokens, layout)
    fits = [t for t in outputs if t.is_floating_point() and t.shape == given.shape]
    other = [t for t in fits if not torch.equal(t.detach(), given.detach())]
    chosen = (other or fits)[:1]
    return flattened(chosen[0], layout) if chosen else None


def find_codes(outputs: list[Tensor], count: int, layout: str) -> Tensor | None:
    """The integer output with a whole number of codes per token, or a one-hot float one: [N, Q]."""
    for t in outputs:
        if not t.is_floating_point() and t.dtype != torch.bool and t.numel() and t.numel() % count == 0 and t.ndim:
            return codes_by_token(t, count, layout)
    for t in outputs:
        rows = t.reshape(-1, t.shape[-1]) if t.ndim >= 2 else t
        if t.ndim >= 2 and rows.shape[0] == count and bool(((rows == 0) | (rows == 1)).all()) and rows.shape[1] > 1:
            return rows.argmax(1)[:, None]
    return None


def codes_by_token(codes: Tensor, count: int, layout: str) -> Tensor:
    """Integer codes of any arrangement as [N, Q]: levels may come first, in the middle, or last."""
    levels = codes.numel() // count
    if levels == 1:
        return codes.reshape(count, 1).long()
    windows = count // TOKENS if layout != "ND" else count
    if codes.shape[0] == levels and codes.shape[0] != windows:
        return codes.reshape(levels, count).t().long()
    if codes.ndim >= 3 and codes.shape[1] == levels and codes.shape[0] == windows and codes.shape[-1] != levels:
        return codes.reshape(windows, levels, -1).transpose(1, 2).reshape(count, levels).long()
    return codes.reshape(count, levels).long()


def is_loss(t: Tensor) -> bool:
    """Whether an output looks like a loss: a float scalar, or one per level."""
    return t.is_floating_point() and (t.numel() == 1 or (t.ndim <= 2 and t.numel() <= 64 and t.shape[0] <= 32))


@dataclass(frozen=True)
class Book:
    """One codebook of a foreign module: the tensor that holds it, or a part of that."""

    name: str
    index: int | None = None
    transposed: bool = False

    def rows(self, state: nn.Module | Mapping[str, Tensor]) -> Tensor:
        """The code vectors [K, D] in a module now, or in a copy of its state; by reference."""
        held = (state_of(state) if isinstance(state, nn.Module) else state)[self.name]
        held = held if self.index is None else held[self.index]
        return held.t() if self.transposed else held


def tables(module: nn.Module, dim: int, least: int) -> list[Book]:
    """Everything in the state that could be a table of at least `least` codes of width `dim`."""
    found = []
    for name, t in state_of(module).items():
        if t.is_floating_point() and t.ndim in (2, 3):
            rows, width = t.shape[-2:]
            for index in [None] if t.ndim == 2 else range(t.shape[0]):
                found += [Book(name, index)] if width == dim and rows >= least else []
                found += [Book(name, index, transposed=True)] if rows == dim and width >= least else []
    return found


def matching(module: nn.Module, before: Mapping[str, Tensor], seen: Seen, dim: int) -> list[Book]:
    """The codebooks, one per level: tables of `before` (the state when `seen` was made) that add up to the value."""
    if seen.found_codes is None:
        return []
    value, codes = seen.value.detach(), seen.codes
    candidates = tables(module, dim, int(codes.max()) + 1)
    groups = [[book] for book in candidates] if codes.shape[1] == 1 else same_kind(candidates, codes.shape[1])
    for books in groups:
        total = torch.stack([book.rows(before).detach()[codes[:, i]] for i, book in enumerate(books)]).sum(0)
        if float((total - value).abs().max()) <= 1e-3 * (float(value.abs().max()) + 1e-12):
            return books
    return []


def same_kind(candidates: list[Book], levels: int) -> list[list[Book]]:
    """Groups of `levels` candidates whose names differ in numbers only, or one shared by all levels."""
    kinds: dict[str, list[Book]] = {}
    for book in candidates:
        kinds.setdefault("".join(c for c in book.name if not c.isdigit()), []).append(book)
    return [group * (levels if len(group) == 1 else 1) for group in kinds.values() if len(group) in (1, levels)]


def signature_gaps(target: Callable[..., Any], options: Mapping[str, Any]) -> list[str]:
    """Required constructor arguments that `options` do not give."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in fixed]
    return [n for n in needed if n not in options]

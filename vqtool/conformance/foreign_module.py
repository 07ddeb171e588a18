"""A foreign module from outside: how it is built, called and read, always with the same random numbers."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vqtool.conformance.law import NotApplicable
from vqtool.conformance.own_quantizers import OwnUpdates, holds_own, step_own
from vqtool.errors import VqtoolError

LAYOUTS = ("BTD", "BDT", "BDHW", "ND", "BHWD", "BDTHW", "BTHWD")
GRIDS = {1: (36,), 2: (18, 2), 3: (9, 2, 2)}  # sides of a probe's window, by its number of axes
TOKENS, WINDOWS = 36, 7  # such that hardly a width equals a side; one that does would fit a wrong axis
CHOOSERS = ("argmin", "argmax", "max", "min", "topk", "sort", "multinomial")
CODES_ALONE = "its codes"  # the value of a module that returns nothing else
NO_LOSS = re.compile(
    r"(?!.*loss).*(perplex|usage|util|bandwidth|entropy|count|temperature|cluster|active)", re.IGNORECASE
)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Every generator that code under test may draw from (torch, random, numpy) starts at `seed`, then is put back."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        # Where no GPU is in use, `torch.manual_seed` would note the stack for when one is: slow, ten thousand times.
        if torch.cuda.is_initialized():
            torch.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


class Trace(TorchDispatchMode):
    """Copies of what a forward computes: codes where they are chosen, and float tensors of the asked-for widths."""

    def __init__(self, count: int, widths: set[int]) -> None:
        super().__init__()
        self.count, self.widths = count, widths
        self.floats: list[tuple[int, Tensor]] = []  # (position among the choices, tensor)
        self.choices: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if not isinstance(t, Tensor) or t.numel() % self.count or not t.numel():
                continue
            if t.dtype == torch.long and func.overloadpacket.__name__ in CHOOSERS:
                self.choices.append(t.detach().clone())
            elif t.is_floating_point() and t.numel() // self.count in self.widths:
                self.floats.append((len(self.choices), t.detach().clone()))
        return out


@dataclass
class Seen:
    """What one forward gave, in the tool's own terms."""

    value: Tensor  # [N, E]  the quantized output, with gradient; E is D but where the module changes the width
    found_codes: Tensor | None  # [N, Q]
    losses: list[Tensor]  # scalars that are losses
    outputs: list[Tensor] = field(default_factory=list)  # all that it returned
    raw: Any = None
    returned: bool = True  # whether the codes are an output
    trace: Trace | None = None

    @property
    def codes(self) -> Tensor:
        """The codes [N, Q], for laws that need them."""
        if self.found_codes is None:
            raise NotApplicable("it returns no codes")
        return self.found_codes

    @property
    def loss(self) -> Tensor | None:
        """The sum of the losses that carry a gradient."""
        parts = [t.sum() for t in self.losses if t.requires_grad]
        return torch.stack(parts).sum() if parts else None


@dataclass
class ForeignModule:
    """A module that knows nothing of vqtool, and how to talk to it.

    Args:
        make: builds a fresh one, the same each time (seeded). name: for messages.
        dim, layout: found by `infer_interface`.
        call: in place of `module(x)`. update: what follows each training step. decode: of the module and its codes.
        centre, spread: [D] mean and deviation of its inputs; standard normal where they are not known.
        rebuilt: whether `make` builds by the seed (an instance can be copied only).
    """

    make: Callable[[], nn.Module]
    name: str
    dim: int = 0
    layout: str = ""
    call: Callable[[nn.Module, Tensor], Any] | None = None
    update: Callable[[nn.Module], Any] | None = None
    decode: Callable[[nn.Module, Any], Any] | None = None
    centre: Tensor | float = 0.0
    spread: Tensor | float = 1.0
    rebuilt: bool = True
    seed: int = 0
    notes: dict[str, Any] = field(default_factory=dict)  # what the laws have found out about it
    warnings: list[str] = field(default_factory=list)

    def new(self, *, train: bool = True, seed: int = 0) -> nn.Module:
        """A fresh module; what it draws while it is built does not touch the global random state."""
        with seeded(self.seed + seed), filled_memory():
            module = self.make().train(train)
        fill_unset(module, seed)
        if self.update is None and holds_own(module):
            OwnUpdates(module)
        return module

    def tokens(self, salt: int = 0, *, windows: int = WINDOWS, scale: float = 1.0, offset: float = 0.0) -> Tensor:
        """Normal tokens [N, D] with N = windows * TOKENS."""
        generator = torch.Generator().manual_seed(1000 * self.seed + salt)
        normal = torch.randn(windows * TOKENS, self.dim, generator=generator) * scale + offset
        return normal * self.spread + self.centre

    def see(self, module: nn.Module, tokens: Tensor, *, seed: int = 0, widths: set[int] | None = None) -> Seen:
        """Run `module` on `tokens` [N, D] in its own layout and read its outputs; with `widths`, traced as well."""
        given = arranged(tokens, self.layout)
        trace = Trace(tokens.shape[0], widths or set())
        with seeded(seed):
            if widths is None and self.notes.get("returns codes"):
                raw = self.run(module, given)
            else:
                with trace:
                    raw = self.run(module, given)
        named = list(leaves(raw))
        alone = self.notes.get("value") == CODES_ALONE
        path = None if alone else find_value(named, given, self.layout, self.notes.get("value"))
        codes = find_codes([t for _, t in named], tokens.shape[0], self.layout)
        returned = codes is not None
        if path is None and codes is not None and self.notes.get("value", CODES_ALONE) == CODES_ALONE:
            path = self.notes["value"] = CODES_ALONE
            named.append((path, arranged(codes.to(tokens), self.layout)))
        if path is None:
            raise VqtoolError(f"`{self.name}` returns nothing of the shape of its input")
        if codes is None:
            codes = chosen(trace.choices, tokens.shape[0], self.layout)
        value = dict(named)[path]
        losses = find_losses(named, module, codes)
        outputs = [t for _, t in named]
        return Seen(flattened(value, self.layout), codes, losses, outputs, raw, returned, trace)

    def run(self, module: nn.Module, given: Tensor) -> Any:
        """One call, by `call`, by `forward`, or by `encode` and `decode` where it has no forward."""
        if self.call is not None:
            return self.call(module, given)
        if has_forward(module):
            return module(given)
        codes = integers(module.encode(given))  # type: ignore[operator]  # a method, by has_forward
        for arrangement in (codes, codes.transpose(0, 1) if codes.ndim > 1 else codes):
            try:
                value = module.decode(arrangement)  # type: ignore[operator]  # as above
            except Exception:  # levels come first or second: the other arrangement is tried
                continue
            if isinstance(value, Tensor) and value.numel() == given.numel():
                return value, codes
        raise VqtoolError(f"`{self.name}`: `decode` gives nothing of the shape that `encode` took")

    def step(self, module: nn.Module, tokens: Tensor, *, seed: int = 0) -> Seen:
        """One training pass with the update that follows it."""
        seen = self.see(module, tokens, seed=seed)
        self.after(module)
        return seen

    def after(self, module: nn.Module) -> None:
        """The update that follows a training pass, if there is one."""
        if module.training:
            with seeded(0):
                (self.update or step_own)(module)

    def warmed_up(
        self, steps: int = 2, *, train: bool = True, scale: float = 1.0, offset: float = 0.0, seed: int = 0
    ) -> nn.Module:
        """A module that has seen a few training batches, so that whatever starts by data is started."""
        module = self.new(seed=seed)
        for i in range(steps):
            self.step(module, self.tokens(100 + i, scale=scale, offset=offset))
        return module.train(train)


def copied(module: nn.Module) -> nn.Module:
    """A deep copy; tensors kept as attributes with their graph are copied without it."""
    memo: dict[int, Any] = {}
    for sub in module.modules():
        for t in [*vars(sub).values(), *sub._buffers.values()]:
            if isinstance(t, Tensor) and t.grad_fn is not None:
                memo[id(t)] = t.detach().clone()
    return copy.deepcopy(module, memo)


def has_forward(module: nn.Module) -> bool:
    """Whether it can be called; a few have `encode` and `decode` alone."""
    return type(module).forward is not nn.Module.forward or not callable(getattr(module, "encode", None))


@contextmanager
def filled_memory() -> Iterator[None]:
    """Memory that a constructor leaves unset holds NaN, so that it is seen."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # torch.utils.deterministic fills memory by default then
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@torch.no_grad()
def fill_unset(module: nn.Module, seed: int) -> None:
    """Normal values where weights were never set: a model or a checkpoint would have set them."""
    generator = torch.Generator().manual_seed(10**6 + seed)  # not the inputs' numbers
    for t in {**dict(module.named_parameters()), **dict(module.named_buffers())}.values():
        unset = bool(t.isnan().all()) if t.is_floating_point() and t.numel() else False
        zero = not has_forward(module) and t.ndim == 2 and t.is_floating_point() and not bool(t.any())
        if unset or zero:
            t.copy_(torch.randn(t.shape, generator=generator))


def arranged(tokens: Tensor, layout: str) -> Tensor:
    """`tokens` [N, D] in a layout; the axes beside B and D are those of `GRIDS`."""
    if layout == "ND":
        return tokens
    windows = tokens.view(-1, *GRIDS[len(layout) - 2], tokens.shape[1])
    return windows.movedim(-1, layout.index("D")).contiguous()


def token_axes(layout: str) -> tuple[int, ...]:
    """The sides of a window in a layout."""
    return GRIDS[len(layout) - 2] if layout != "ND" else ()


def flattened(value: Tensor, layout: str) -> Tensor:
    """The inverse of `arranged`."""
    width = layout.index("D")
    return value.movedim(width, -1).reshape(-1, value.shape[width])


def leaves(output: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """All tensors in a nested output with their names: tuples, lists, mappings, dataclasses, objects' attributes."""
    if isinstance(output, Tensor):
        yield path, output
        return
    if depth > 4 or output is None:
        return
    parts: Mapping[Any, Any] = {}
    if isinstance(output, Mapping):
        parts = output
    elif hasattr(output, "_fields"):
        parts = output._asdict()
    elif isinstance(output, list | tuple | set):
        parts = dict(enumerate(output))
    elif dataclasses.is_dataclass(output):
        parts = {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
    elif hasattr(output, "__dict__"):
        parts = vars(output)
    for name, part in parts.items():
        yield from leaves(part, f"{path}.{name}" if path else str(name), depth + 1)


def find_value(named: list[tuple[str, Tensor]], given: Tensor, layout: str, known: str | None) -> str | None:
    """The output that is the quantized value: `known`, else the first float one of the input's shape that is not it.

    An output of another width will do where none has the input's.
    """
    floats = {name: t for name, t in named if t.is_floating_point()}
    if known in floats:
        return known
    width = layout.index("D")
    for dims in (given.shape, (*given.shape[:width], None, *given.shape[width + 1 :])):
        fits = [
            name
            for name, t in floats.items()
            if t.ndim == given.ndim and all(b is None or a == b for a, b in zip(t.shape, dims, strict=True))
        ]
        other = [name for name in fits if not same_values(floats[name], given)]
        if other or fits:
            return min(other or fits, key=lambda name: "quant" not in name.lower() and "z_q" not in name)
    return None


def same_values(a: Tensor, b: Tensor) -> bool:
    """Bit for bit."""
    return a.shape == b.shape and torch.equal(a.detach(), b.detach())


def integers(output: Any) -> Tensor:
    """The integer tensors of an output as one."""
    found = [t for _, t in leaves(output) if not t.is_floating_point() and t.dtype != torch.bool and t.ndim]
    if not found:
        raise VqtoolError("`encode` gives no codes")
    return found[0] if len(found) == 1 else torch.stack(found)


def find_codes(outputs: list[Tensor], count: int, layout: str) -> Tensor | None:
    """The integer outputs with whole numbers of codes per token, or a one-hot float one: [N, Q]."""
    whole = [t for t in outputs if not t.is_floating_point() and t.dtype != torch.bool and t.ndim and t.numel()]
    fits = [t for t in whole if t.numel() % count == 0]
    if fits and fits[0].numel() == count:  # a list of levels
        fits = [codes_by_token(t, count, layout) for t in fits if t.shape == fits[0].shape]
        distinct = [t for i, t in enumerate(fits) if not any(torch.equal(t, other) for other in fits[:i])]
        return torch.cat(fits if len(distinct) == len(fits) else distinct, 1)
    if fits:
        return codes_by_token(fits[0], count, layout)
    for t in outputs:
        if t.is_floating_point() and t.ndim >= 2 and t.shape[-1] > 1 and t.numel() == count * t.shape[-1]:
            rows = t.detach().reshape(-1, t.shape[-1])
            if bool(((rows == 0) | (rows == 1)).all()) and bool((rows.sum(1) == 1).all()):
                return rows.argmax(1)[:, None]
    return None


def chosen(choices: list[Tensor], count: int, layout: str) -> Tensor | None:
    """The codes [N, Q] of a module that returns none, from where it chose them."""
    fits = [codes_by_token(t, count, layout) for t in choices if t.numel() <= 64 * count]
    fits = [t for i, t in enumerate(fits) if not any(torch.equal(t, other) for other in fits[:i])]
    return torch.cat(fits, 1) if fits else None


def codes_by_token(codes: Tensor, count: int, layout: str) -> Tensor:
    """Integer codes of any arrangement as [N, Q]: levels may come first, in the middle, or last."""
    windows = count // TOKENS
    if layout != "ND" and codes.numel() > count:
        for first, size in enumerate(codes.shape):
            for start in range(first + 1, codes.ndim) if size == windows else ():
                for end in range(start + 1, codes.ndim + 1):
                    if codes.shape[start:end].numel() == TOKENS:
                        axes = (first, *range(start, end))
                        rest = tuple(i for i in range(codes.ndim) if i not in axes)
                        return codes.permute(*axes, *rest).reshape(count, -1).long()
    if codes.shape[0] != count and codes.shape[-1] == count:
        return codes.reshape(-1, count).t().long()
    return codes.reshape(count, -1).long()


def is_loss(t: Tensor) -> bool:
    """Whether an output looks like a loss: a float scalar, or one per level."""
    return t.is_floating_point() and (t.numel() == 1 or (t.ndim <= 2 and t.numel() <= 64 and t.shape[0] <= 32))


def find_losses(named: list[tuple[str, Tensor]], module: nn.Module, codes: Tensor | None) -> list[Tensor]:
    """The losses among the outputs; where there are none, those that the module keeps as attributes."""
    scalars = {name: t for name, t in named if is_loss(t) and not NO_LOSS.match(name)}
    found = {name: t for name, t in scalars.items() if not perplexity_like(t, module, codes)}
    if found:
        depth = min(name.count(".") for name in found)  # what lies deeper are details
        return [t for name, t in found.items() if name.count(".") == depth]
    kept = {
        f"{prefix}.{name}": t
        for prefix, sub in module.named_modules()
        for name, t in vars(sub).items()
        if isinstance(t, Tensor) and is_loss(t) and not NO_LOSS.match(name)
    }
    lossy = [t for name, t in kept.items() if "loss" in name.lower() or t.requires_grad]
    return [t for i, t in enumerate(lossy) if not any(t is other for other in lossy[:i])]


def perplexity_like(t: Tensor, module: nn.Module, codes: Tensor | None) -> bool:
    """Whether a scalar is the perplexity that the module's source speaks of: about that of its codes."""
    if codes is None or t.numel() != 1 or float(t.detach()) <= 1:
        return False
    try:
        source = inspect.getsource(type(module).forward)
    except (OSError, TypeError):
        return False
    if "perplexity" not in source.lower():
        return False
    ratio = float(t.detach()) / sum(perplexity(column) for column in codes.unbind(1))
    return 0.5 < ratio < 2 or 0.5 < ratio * codes.shape[1] < 2


def perplexity(codes: Tensor) -> float:
    """exp of the entropy of codes [N]; of those that were not left out."""
    counts = torch.bincount(codes[codes >= 0].flatten()).double()
    use = counts[counts > 0] / counts.sum().clamp_min(1)
    return float((-(use * use.log()).sum()).exp())

"""How a foreign module is talked to: its width and layout, found by trying, and what its constructor needs."""

from __future__ import annotations

import inspect
import operator
import sys
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.conformance.codebooks import copies, everything, find_levels, tables
from vqtool.conformance.foreign_module import LAYOUTS, ForeignModule
from vqtool.conformance.law import in_a_line, tried
from vqtool.conformance.subject import state_of
from vqtool.errors import VqtoolError
from vqtool.suggest import did_you_mean

BEST = 3  # the score of a width and a layout that nothing can better
WIDTHS = ("dim", "embedding_dim", "code_dim", "codebook_dim", "n_embd", "embed_dim", "latent_dim", "dimension",
          "input_dim", "e_dim", "hidden_size", "D", "d", "channels", "features")  # fmt: skip


def infer_interface(
    make: Callable[[], nn.Module],
    name: str,
    options: Mapping[str, Any],
    *,
    layout: str | None = None,
    example: Tensor | None = None,
    **how: Any,
) -> ForeignModule:
    """Find the width and the layout that a module takes, or report what was tried.

    Args:
        make, name, how: of `ForeignModule`. options: what `make` was called with: widths are looked for there first.
        layout: the one it takes, where it is known. example: an input [...] whose width and values are typical.
    """
    if layout is not None and layout not in LAYOUTS:
        raise VqtoolError(f"`{layout}` is not a layout", hint=did_you_mean(layout, LAYOUTS), where="--layout")
    layouts = [one for one in ([layout] if layout else LAYOUTS) if example is None or len(one) == example.ndim]
    reasons: list[str] = []
    scores: list[tuple[int, ForeignModule]] = []
    asked = None if example is None else {one: example.shape[one.index("D")] for one in layouts}
    module = ForeignModule(make, name, **how).new(train=False)
    for dim in dict.fromkeys(asked.values()) if asked else widths(module, options):
        for one in layouts:
            if asked and asked[one] != dim:
                continue
            found = ForeignModule(make, name, dim, one, **how)
            if example is not None:
                like(found, example)
            reached = tried(partial(score, found))
            if isinstance(reached, BaseException):
                reasons.append(f"[{one}] with D = {dim}: {in_a_line(reached)[:90]}")
            else:
                scores.append((reached, found))
        if any(reached == BEST for reached, _ in scores):
            break
    if not scores:
        raise VqtoolError(
            f"`{name}` took no input that was tried, or returned nothing of its shape",
            hint="; ".join(reasons[: len(layouts)]) or "give its width as --arg dim=64",
        )
    return likeliest(scores)


def likeliest(scores: list[tuple[int, ForeignModule]]) -> ForeignModule:
    """The first of the best; not single vectors where it takes axes but then mixes them up."""
    best = max(scores, key=lambda pair: pair[0])  # the first of equals
    if best[1].layout == "ND":
        axes = [pair for pair in scores if pair[1].layout != "ND" and pair[1].dim == best[1].dim and pair[0] >= 1]
        if axes:
            chosen = min(axes, key=lambda pair: pair[1].layout != "BDHW")[1]
            chosen.warnings.append(
                f"it takes [{chosen.layout}], but its codes fit its output as [ND] only; --layout ND if that is meant"
            )
            return chosen
    return best[1]


def like(found: ForeignModule, example: Tensor) -> None:
    """Take mean and deviation of inputs from an example."""
    flat = example.detach().float().movedim(found.layout.index("D"), -1).reshape(-1, found.dim)
    found.centre = flat.mean(0)
    found.spread = flat.std(0) if len(flat) > 1 else flat.abs().mean(0)


def score(found: ForeignModule) -> int:
    """How well a width and a layout fit: it gives codes, of a table, whose rows are what flows on."""
    module = found.new()
    found.step(module, found.tokens())
    module.eval()
    before = copies(module)
    with torch.no_grad():
        seen = tried(partial(found.see, module, found.tokens()))
    if isinstance(seen, BaseException) or seen.found_codes is None:
        return 0
    if not tables(module, 2):
        return 1
    levels = find_levels(module, {**copies(module), **before}, seen)
    if levels and all(level.shift == 0 for level in levels):
        return BEST
    return 2 if any(t.shape[-1] == found.dim for t in everything(module).values() if t.ndim >= 2) else 1


def widths(module: nn.Module, options: Mapping[str, Any]) -> list[int]:
    """Latent widths to try: what was asked for, then what its tensors say, then its other numbers and common ones."""
    asked = [options[n] for n in WIDTHS if isinstance(options.get(n), int)]
    numbers = {n: v for n, v in vars(module).items() if isinstance(v, int) and not isinstance(v, bool)}
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    first = [layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels for layer in layers]
    state = list(state_of(module).values())
    last = [t.shape[-1] for t in state if t.ndim in (2, 3, 4)]
    named = [numbers[n] for n in WIDTHS if n in numbers]
    lists = [t.shape[0] for t in state if t.ndim == 1]  # the levels of a scalar quantizer, the weights of a norm
    summed = [sum(t.shape[-1] for t in state if t.ndim == 2 and t.shape[-1] == width) for width in last[:1]]
    others = [*numbers.values(), *(n for t in state if t.ndim >= 2 for n in t.shape[:2]), *summed]
    others += [width * count for width in last[:1] for count in (2, 3, 4, 8)]  # groups side by side
    found = dict.fromkeys([*asked, *named[:1], *first[:1], *last, *named, *lists, *first, *others, 64, 32, 16, 8])
    return [n for n in found if 1 < n <= 4096][:20]


def as_call(given: str | Callable[..., Any] | None, option: str, names: tuple[str, ...]) -> Callable[..., Any] | None:
    """A function of the module `m` (and of `x` or `codes`), from one, from a method's name, or from an expression."""
    if given is None or callable(given):
        return given
    if all(part.isidentifier() for part in given.split(".")):
        return lambda m, *rest: operator.attrgetter(given)(m)(*rest)
    try:
        code = compile(given, f"<--{option}>", "eval")
    except SyntaxError as error:
        hint = {"forward": "--forward 'm(x, mask=None)'", "decode": "--decode 'm.decode(codes)'"}
        raise VqtoolError(
            f"`{given}` is not an expression: {error.msg}", hint=hint.get(option, "--update 'm.update()'")
        ) from error
    return lambda *values: eval(code, {"torch": torch, **dict(zip(names, values, strict=True))})


def signature_gaps(target: Callable[..., Any], options: Mapping[str, Any]) -> list[str]:
    """Required constructor arguments that `options` do not give."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in fixed]
    return [n for n in needed if n not in options]


def with_configs(target: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options`, with objects for the arguments that take a configuration.

    A required argument whose class can be built without arguments gets one: with the fields that `options` give it, as
    a table (`config = {hidden_size = 16}`), else with its defaults.
    """
    given = dict(options)
    for name in (*signature_gaps(target, {}), *options):
        cls = config_class(target, name)
        value = given.get(name, {})
        if cls is not None and isinstance(value, Mapping):
            built = tried(partial(cls, **value))
            if isinstance(built, BaseException) and name in given:
                raise VqtoolError(f"`{name}` cannot be built: {in_a_line(built)}", hint=f"a {cls.__name__}")
            if not isinstance(built, BaseException):
                given[name] = built
    return given


def config_class(target: Callable[..., Any], name: str) -> type | None:
    """The class of an argument that is no plain value: by its annotation, or the one ...Config of its module."""
    function = vars(target).get("__init__", target) if isinstance(target, type) else target
    hints = tried(partial(typing.get_type_hints, function))
    hint = hints.get(name) if isinstance(hints, dict) else None
    if isinstance(hint, type):
        plain = hint.__module__ in ("builtins", "torch") or issubclass(hint, nn.Module)
        return None if plain else hint
    if name not in ("config", "cfg") or hint is not None:
        return None
    home = vars(sys.modules[target.__module__])
    found = {v for n, v in home.items() if n.endswith("Config") and isinstance(v, type) and n != "PreTrainedConfig"}
    return found.pop() if len(found) == 1 else None

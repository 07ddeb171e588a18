"""Laws of what a foreign module's state, its random numbers, its neighbours, masks and settings do to it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vqtool.api import Quantizer
from vqtool.conformance.codebooks import copies
from vqtool.conformance.foreign_laws import needs_forward
from vqtool.conformance.foreign_module import TOKENS, WINDOWS, ForeignModule, Seen, token_axes
from vqtool.conformance.gradient_laws import gradient_of
from vqtool.conformance.law import (
    Laws,
    NoSuchFeature,
    Verdict,
    broken,
    in_a_line,
    kept,
    not_applicable,
    tried,
    within,
)
from vqtool.conformance.own_quantizers import refuses
from vqtool.conformance.subject import changed, same, snapshot, state_of
from vqtool.conformance.words import Grade

LAWS: Laws[ForeignModule] = Laws()

MASKS = ("mask", "padding_mask", "attention_mask", "key_padding_mask", "x_mask", "token_mask")
MIXING = re.compile(r"attention|transformer|lstm|gru|rnn|groupnorm|instancenorm|pool|upsample", re.IGNORECASE)


@LAWS
def nan_contained(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up()
    x = foreign.tokens()
    x[5, 0] = torch.nan
    try:
        foreign.step(module, x)
    except Exception as error:  # a refusal is a report
        return kept(0, f"it refuses: {type(error).__name__}")
    rows = 0
    for name, t in state_of(module).items():
        if t.is_floating_point() and not bool(t.isfinite().all()):
            rows = max(rows, int((~t.isfinite()).reshape(-1, t.shape[-1] if t.ndim > 1 else 1).any(1).sum()))
            worst = name
    return kept(0) if rows == 0 else broken(rows, f"rows of `{worst}` that one NaN token made not finite")


@LAWS
def eval_changes_nothing(foreign: ForeignModule) -> Verdict:
    trials: list[tuple[nn.Module, str, Grade | None]] = [
        (foreign.warmed_up(train=False), "trained", None),
        (foreign.new(train=False), "fresh", "cosmetic"),
    ]
    for module, when, grade in trials:
        before, flags = snapshot(module), plain_flags(module)
        for salt, offset in ((0, 0.0), (1, 0.0), (2, 30.0), (3, 30.0), (4, 30.0)):  # far off, most codes look dead
            seen = tried(partial(foreign.see, module, foreign.tokens(salt, offset=offset)))
            if isinstance(seen, BaseException) and not (when == "fresh" and refuses(module, seen)):
                raise seen
        names = changed(module, before) + [n for n, v in plain_flags(module).items() if flags.get(n) != v]
        if names:
            note = f"tensors that evaluating a {when} module changed: {', '.join(names[:3])}"
            return broken(len(names), note, grade)
    return kept(0, "tensors that evaluation changed")


def plain_flags(module: nn.Module) -> dict[str, object]:
    """Booleans and numbers kept as plain attributes."""
    return {
        f"{name}.{key}": value
        for name, sub in module.named_modules()
        for key, value in vars(sub).items()
        if isinstance(value, bool | int | float) and key != "training"
    }


@LAWS
def state_round_trip(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up(train=False, steps=3)
    fresh = foreign.new(train=False, seed=1 if foreign.rebuilt else 0)
    fresh.load_state_dict({n: t.clone() for n, t in module.state_dict().items()}, strict=True)
    with torch.no_grad():
        a, b = (foreign.see(m, foreign.tokens()) for m in (module, fresh))
    if wrong := int((a.value != b.value).any(1).sum()):
        return broken(wrong, "tokens quantized otherwise after loading a state_dict", "fatal")
    for m in (module, fresh):
        foreign.step(m.train(), foreign.tokens(5))
    one, other = copies(module), snapshot(fresh)
    moved = [n for n, t in other.items() if n in one and unlike(t, one[n])]
    note = "tensors that a training step after loading moves otherwise than one without"
    return broken(len(moved), f"{note}: {', '.join(moved[:3])}") if moved else kept(0, note)


def unlike(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors differ by more than rounding."""
    if not a.is_floating_point() or a.shape != b.shape:
        return not same(a, b)
    return not torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)


@LAWS
def deterministic(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up(train=False)
    with torch.no_grad():
        a, b = (foreign.see(module, foreign.tokens(), seed=i) for i in (0, 1))
    return within(float((a.value != b.value).any(1).sum()), 0, "tokens quantized otherwise the second time")


@LAWS
def token_permutation(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up(train=False)
    if name := reads_neighbours(module):
        return not_applicable(f"its layer `{name}` reads neighbouring tokens")
    if deterministic(foreign).status == "broken":
        return not_applicable("it is not deterministic")
    x = foreign.tokens()
    order = torch.randperm(x.shape[0], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = foreign.see(module, x), foreign.see(module, x[order])
    if a.found_codes is None and b.found_codes is None and not is_flat(a):
        return not_applicable("its codes are not one or more for each token")
    off = (a.value[order] - b.value).abs().amax(1) > 1e-4 * a.value.abs().max()
    note = "tokens quantized otherwise among other neighbours"
    if foreign.warnings and bool(off.any()):
        note += f"; {foreign.warnings[0]}"
    return within(float(off.sum()), 0, note)


def is_flat(seen: Seen) -> bool:
    """Whether it returns no integers at all, so that nothing says that it works on more than one token at a time."""
    return all(t.is_floating_point() for t in seen.outputs)


def reads_neighbours(module: nn.Module) -> str | None:
    """The name of a layer that mixes tokens on purpose."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    for name, sub in module.named_modules():
        if isinstance(sub, Quantizer) and sub.topology == "routed":  # a window's tokens choose their codebook together
            return name or type(sub).__name__
        if isinstance(sub, kinds) and max(sub.kernel_size) > 1:
            return name
        if MIXING.search(type(sub).__name__) and sub is not module:
            return name
    return None


@LAWS
def precision(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up(train=False)
    with torch.no_grad():
        plain = foreign.see(module, foreign.tokens()).codes
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = foreign.see(module, foreign.tokens()).codes
    note = f"of {plain.numel()} codes differ under bfloat16 autocast"
    return within(int((plain != mixed).sum()), 0, note, "cosmetic")


@LAWS
def checkpointing(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    states, gradients = [], []
    for through in (False, True):
        module = foreign.warmed_up()
        x = foreign.tokens().requires_grad_()

        def run(x: Tensor, module: nn.Module = module) -> Tensor:
            seen = foreign.see(module, x)
            upstream = torch.randn(seen.value.shape, generator=torch.Generator().manual_seed(3))
            return (seen.value * upstream).sum() + (0 if seen.loss is None else seen.loss)

        loss = checkpoint(run, x, use_reentrant=False) if through else run(x)
        if not loss.requires_grad:
            return not_applicable("no gradient flows through it")
        loss.backward()
        states.append(snapshot(module))
        gradients.append(x.grad)
    moved = [n for n in states[0] if not same(states[0][n], states[1][n])]
    if moved:
        return broken(len(moved), f"tensors that the second pass changed again: {', '.join(moved[:3])}", "cosmetic")
    if gradients[0] is None or gradients[1] is None:
        return not_applicable("no gradient reaches the input")
    off = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    return within(off, 1e-4, "relative difference of the gradient with checkpointing", "cosmetic")


@LAWS
def no_graph_kept(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    module = foreign.warmed_up()
    weights = [p for p in module.parameters() if p.requires_grad]
    for salt in (1, 2, 3):
        x = foreign.tokens(salt).requires_grad_()
        seen = foreign.see(module, x)
        held = [n for n, t in module.named_buffers() if t.grad_fn is not None]
        if held:
            return broken(len(held), f"buffers that hold the graph of a forward pass: {', '.join(held[:3])}")
        total = seen.value.sum() + (0 if seen.loss is None else seen.loss)
        if total.requires_grad:
            found = torch.autograd.grad(total, [x, *weights], allow_unused=True)
            del found
        foreign.after(module)
    return kept(0, "buffers that hold the graph of a forward pass, over 3 steps")


@LAWS
def padding_irrelevant(foreign: ForeignModule) -> Verdict:
    name = mask_parameter(foreign)
    outcomes = []
    mask = torch.ones(WINDOWS, *token_axes(foreign.layout), dtype=torch.bool)
    mask.view(WINDOWS, -1)[0, TOKENS // 2 :] = False
    flat = mask.view(-1)
    for filling in (0.0, 5.0):
        module = foreign.warmed_up()
        x = foreign.tokens()
        x[~flat] = filling
        masked = dataclasses.replace(foreign, call=partial(with_mask, name, mask))
        seen = tried(partial(masked.see, module, x))
        if isinstance(seen, BaseException):
            return not_applicable(f"it does not take a mask of this shape: {in_a_line(seen)[:80]}")
        outcomes.append((seen.value[flat].detach(), [t.detach() for t in seen.losses], snapshot(module)))
    first, second = outcomes
    if unlike(first[0], second[0]):
        return broken(None, "what masked tokens hold changes other tokens")
    if any(unlike(a, b) for a, b in zip(first[1], second[1], strict=True)):
        return broken(None, "what masked tokens hold changes the loss")
    names = [n for n in first[2] if unlike(first[2][n], second[2][n])]
    return broken(len(names), f"tensors that masked tokens move: {', '.join(names[:3])}") if names else kept(0)


def with_mask(name: str, mask: Tensor, module: nn.Module, x: Tensor) -> Any:
    """A call with a mask, true where tokens count."""
    return module(x, **{name: mask})


def mask_parameter(foreign: ForeignModule) -> str:
    """The name of forward's argument for a mask."""
    if foreign.call is not None or foreign.layout == "ND":
        raise NoSuchFeature("it takes no mask")
    parameters = inspect.signature(foreign.new().forward).parameters
    found = next((name for name in MASKS if name in parameters), None)
    if found is None:
        raise NoSuchFeature("it takes no mask")
    return found


@LAWS
def temperature_matters(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up()
    names = [
        (sub, key)
        for sub in module.modules()
        for key, value in vars(sub).items()
        if re.fullmatch(r"_?(temperature|tau|temp)", key) and isinstance(value, int | float) and value
    ]
    if not names or same(foreign.see(module, foreign.tokens(), seed=1).value.detach(),
                         foreign.see(module, foreign.tokens(), seed=2).value.detach()):  # fmt: skip
        raise NoSuchFeature("it draws no codes by a temperature")
    found = []
    for factor in (1.0, 5.0):
        module = foreign.warmed_up()
        for sub in module.modules():
            for _, key in names:
                if isinstance(vars(sub).get(key), int | float):
                    setattr(sub, key, vars(sub)[key] * factor)
        x = foreign.tokens().requires_grad_()
        seen = foreign.see(module, x)
        gradient = gradient_of(seen.value.square().sum() + (0 if seen.loss is None else seen.loss), x)
        found.append((seen.value.detach(), torch.zeros_like(x) if gradient is None else gradient))
    matters = any(not same(a, b) for a, b in zip(*found, strict=True))
    note = f"`{names[0][1]}` is kept, but changes neither what it draws nor its gradient"
    return kept(None, f"`{names[0][1]}` changes what it draws or its gradient") if matters else broken(0.0, note)

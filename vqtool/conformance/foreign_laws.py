"""Laws checked on a foreign module from outside: codes and values, gradients, and what odd inputs do to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.conformance.codebooks import Level, attached, columns, found_levels, levels_of, rows_now
from vqtool.conformance.foreign_module import (
    CODES_ALONE,
    TOKENS,
    ForeignModule,
    Seen,
    flattened,
    has_forward,
    leaves,
    seeded,
    token_axes,
)
from vqtool.conformance.gradient_laws import gains_bounded, gradient_of
from vqtool.conformance.law import Laws, NotApplicable, Verdict, broken, kept, not_applicable, within

LAWS: Laws[ForeignModule] = Laws()

DECODERS = ("decode", "get_output_from_indices", "get_codes_from_indices", "get_codebook_entry", "indices_to_codes",
            "embed_code", "decode_code", "decode_codes", "from_codes", "lookup", "dequantize",
            "get_quantized", "embed_id", "embed_ids", "codes_to_features", "indices_to_values")  # fmt: skip
ROUNDING = 1e-5  # of the largest value: what adding and subtracting the input does to it


def needs_forward(foreign: ForeignModule) -> None:
    """For laws of training."""
    if foreign.call is None and not has_forward(foreign.new()):
        raise NotApplicable("it has no forward: it cannot be trained")
    if foreign.notes.get("value") == CODES_ALONE:
        raise NotApplicable("it returns its codes alone: nothing flows on")


@LAWS
def codes_are_codes(foreign: ForeignModule) -> Verdict:
    levels = found_levels(foreign)
    if levels and levels[0].shift:
        return broken(abs(levels[0].shift), "its codes are off by this much from the rows of its codebook")
    total, ragged = 0, 0
    for train in (False, True):
        for salt in range(6 if train else 1):  # a pass in training may drop levels
            module = foreign.warmed_up(train=train)
            sizes = [level.book.rows(module).shape[0] for level in levels]
            seen = foreign.see(module, foreign.tokens(salt), seed=salt)
            if name := code_like_floats(seen, foreign):
                return broken(None, f"its codes come as {name}")
            mixed = ({tuple(t.shape) for t in group} for group in lists_of_codes(seen.raw))
            shapes = max(mixed, key=len, default=set())
            if train and len(shapes) > max(ragged, 1):  # in evaluation they may differ on purpose: scales of an image
                return broken(len(shapes), f"shapes among one list of codes in training: {sorted(shapes)}")
            ragged = max(ragged, len(shapes))
            if not seen.returned:
                continue
            total += seen.codes.shape[1]
            outside = seen.codes < (-1 if train else 0)
            for i, size in enumerate(sizes[: seen.codes.shape[1]]):
                outside[:, i] |= seen.codes[:, i] >= size
            if bool(outside.any()):
                return broken(int(outside.sum()), "codes outside [0, K)")
    return (
        kept(0, "codes outside [0, K), over passes in training and evaluation")
        if total
        else not_applicable("it returns no codes")
    )


def code_like_floats(seen: Seen, foreign: ForeignModule) -> str | None:
    """The kind of a float output that holds whole numbers for each token, as codes do; None if there is none."""
    count = len(seen.value)
    if seen.returned:
        return None
    for t in seen.outputs:
        if t.is_floating_point() and t.ndim and t.numel() % count == 0 and t.numel() <= 64 * count:
            values = t.detach().reshape(-1).double()
            whole = bool(values.isfinite().all()) and bool((values == values.round()).all())
            if whole and t.numel() != seen.value.numel() and len(values.unique()) > 2:
                return str(t.dtype).removeprefix("torch.")
    return None


def lists_of_codes(raw: Any, depth: int = 0) -> Iterator[list[Tensor]]:
    """Each list or tuple in an output that holds integer tensors alone."""
    if isinstance(raw, list | tuple) and depth < 5:
        tensors = [t for t in raw if isinstance(t, Tensor) and not t.is_floating_point() and t.dtype != torch.bool]
        if len(tensors) == len(raw) > 1:
            yield tensors
        for part in raw:
            yield from lists_of_codes(part, depth + 1)
    elif isinstance(raw, dict) and depth < 5:
        for part in raw.values():
            yield from lists_of_codes(part, depth + 1)
    elif hasattr(raw, "__dataclass_fields__"):
        yield from lists_of_codes(vars(raw), depth + 1)


@LAWS
def forward_exact(foreign: ForeignModule) -> Verdict:
    x = foreign.tokens()
    with torch.no_grad():
        plain = foreign.see(foreign.warmed_up(train=False), x)
    if plain.value.shape == x.shape and float((plain.value - x).norm() / x.norm()) < 1e-4:
        return broken(0.0, "what flows on in evaluation is the input itself, not a code vector", "fatal")
    levels, module = levels_of(foreign), foreign.warmed_up()
    before = rows_now(foreign, module)
    seen = foreign.see(module, foreign.tokens())
    off = distance(foreign, levels, before, seen)
    largest = float(seen.value.detach().abs().max())
    if not bool(off.median() <= 1e-3 * largest):
        if float(distance(foreign, levels, rows_now(foreign, module), seen).median()) <= 1e-3 * largest:
            return kept(None, "of the codebook after its update: gathered-before-update judges that")
        return not_applicable("in training something else than its codes flows on")
    figure, note = float(off.max()), "largest difference between what flows on and the code vectors"
    if all(torch.equal(level.map, levels[0].map) and level.plain for level in levels):
        limit = 0.0
    else:
        limit = ROUNDING * largest  # the maps are known up to rounding
    return within(figure, limit, note, "cosmetic" if figure <= ROUNDING * max(largest, float(x.abs().max())) else None)


def distance(foreign: ForeignModule, levels: list[Level], rows: list[Tensor], seen: Seen) -> Tensor:
    """How far the value of each token [N] is from what its codes stand for."""
    plain = all(level.plain for level in levels) and all(level.map.shape[0] == level.map.shape[1] for level in levels)
    picked = columns(foreign, seen)
    if plain and bool((levels[0].map.diagonal() == 1).all()):  # in its own precision
        parts = [torch.where((c >= 0)[:, None], r[c.clamp_min(0)], 0) for c, r in zip(picked, rows, strict=False)]
        return (seen.value - sum(parts)).detach().abs().amax(1)
    total = sum(level.values(r, c) for level, r, c in zip(levels, rows, picked, strict=False))
    away = seen.value.detach().double() - total
    return (away - away.median(0).values).abs().amax(1)  # a bias of the projection is not looked for


@LAWS
def gathered_before_update(foreign: ForeignModule) -> Verdict:
    levels, module = levels_of(foreign), foreign.warmed_up()
    before = rows_now(foreign, module)
    seen = foreign.see(module, foreign.tokens(7, scale=1.5, offset=0.3))
    after = rows_now(foreign, module)
    if all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        return kept(0.0, "motion of its codebook in forward")
    off, late = (float(distance(foreign, levels, rows, seen).median()) for rows in (before, after))
    largest = float(seen.value.detach().abs().max())
    if min(off, late) > 1e-3 * largest:
        return not_applicable("in training something else than its codes flows on")
    share = off / float(max((a - b).abs().max() for a, b in zip(before, after, strict=True)))
    note = "share of the update that its own batch's values already hold"
    return broken(share, note) if late < off and off > 1e-4 * largest else kept(share, note)


@LAWS
def straight_through_gain(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    module = foreign.warmed_up()
    x, upstream = foreign.tokens().requires_grad_(), None
    value = foreign.see(module, x).value
    upstream = torch.randn(value.shape, generator=torch.Generator().manual_seed(3))
    gradient = gradient_of(value, x, upstream)
    if gradient is None or float(gradient.abs().max()) == 0:
        return broken(0.0, "no gradient reaches the input", "fatal")
    if gradient.shape != upstream.shape:
        return behind_projection(foreign)
    gain = float((gradient * upstream).sum() / upstream.square().sum())
    error = float((gradient - gain * upstream).norm() / gradient.norm())
    if error > 1e-3:
        return behind_projection(foreign, f"its gradient is no multiple of the identity (differs by {error:.2g})")
    return within(abs(gain - 1), 1e-4, f"distance of the gain {gain:.4g} from 1")


def behind_projection(foreign: ForeignModule, otherwise: str = "its output has another width") -> Verdict:
    """The gain from the last level's input, where a layer gives it, to what flows on."""
    level, module = levels_of(foreign)[-1], foreign.warmed_up()
    if level.plain:
        return not_applicable(otherwise)
    seen, source = attached(foreign, module, len(levels_of(foreign)) - 1, foreign.tokens().requires_grad_())
    if source is None:
        return not_applicable(otherwise)
    upstream = torch.randn(seen.value.shape, generator=torch.Generator().manual_seed(3))
    gradient = gradient_of(seen.value, source.tensor, upstream)
    if gradient is None:
        return broken(0.0, "no gradient passes its codes", "fatal")
    got, wanted = source.as_points(gradient), upstream.double() @ level.map.t()
    through = got.abs().amax(1) > 0  # a pass in training may leave tokens out
    got, wanted = got[through], wanted[through]
    if not len(got):
        return broken(0.0, "no gradient passes its codes", "fatal")
    gain = float((got * wanted).sum() / wanted.square().sum())
    if float((got - gain * wanted).norm()) > 1e-3 * float(got.norm()):
        return not_applicable(otherwise)
    return within(abs(gain - 1), 1e-3, f"distance of the gain {gain:.4g} at its codes from 1")


@LAWS
def gradient_bounded(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    module = foreign.warmed_up()
    with torch.no_grad():
        exact = foreign.see(module.eval(), foreign.tokens()).value.detach()
    upstream = torch.randn(exact.shape, generator=torch.Generator().manual_seed(3))
    usual = foreign.tokens()

    def value(x: Tensor) -> Tensor:
        return foreign.see(module.train(), x).value

    if exact.shape == usual.shape:
        found = gains_bounded(value, usual, [exact], upstream)
        if found.status != "kept":
            return found
    found = gains_bounded(value, usual, [torch.zeros_like(usual), usual * 1e-20], upstream, "cosmetic")
    return replace(found, grade=None) if found.figure == float("inf") else found


@LAWS
def decode_round_trip(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up(train=False)
    with torch.no_grad():
        seen = foreign.see(module, foreign.tokens())
    best: tuple[float, str] | None = None
    for name, method in decoders(foreign, module):
        for codes in arrangements(seen, foreign):
            try:
                with torch.no_grad(), seeded(0):
                    found = list(leaves(method(codes.clone())))
            except Exception:  # another arrangement may be the right one
                continue
            for _, value in found:
                if value.is_floating_point() and value.numel() == seen.value.numel():
                    off = closest(value, seen.value, foreign.layout)
                    best = min(best or (off, name), (off, name))
    if best is None:
        return not_applicable("no method was found that decodes its codes")
    note = f"relative difference between `{best[1]}` of the codes and what flowed on"
    if best[0] > 1e-4 and best[1] in ("get_codes_from_indices", "indices_to_codes", "lookup", "embed_code"):
        return not_applicable(f"`{best[1]}` gives vectors other than what flows on")
    return within(best[0], 1e-4, note)


def decoders(foreign: ForeignModule, module: nn.Module) -> list[tuple[str, Callable[[Any], Any]]]:
    """What may decode its codes: what was named, else every method of a usual name."""
    if foreign.decode is not None:
        return [("--decode", partial(foreign.decode, module))]
    methods = [(name, getattr(module, name, None)) for name in DECODERS]
    return [(name, method) for name, method in methods if callable(method)]


def arrangements(seen: Seen, foreign: ForeignModule) -> Iterator[Tensor]:
    """Codes as they were returned, then in other usual orders."""
    levels = seen.codes.shape[1]
    for _, t in leaves(seen.raw):
        if not t.is_floating_point() and t.dtype != torch.bool and t.numel() == seen.codes.numel():
            yield t
            if t.ndim > 1:
                yield t.transpose(0, 1)
    by_window = seen.codes.reshape(len(seen.codes) // TOKENS, -1, levels)
    yield by_window
    if levels == 1:
        yield by_window[..., 0]
        yield seen.codes[:, 0]
    yield by_window.transpose(1, 2)
    yield by_window.permute(2, 0, 1)
    if len(foreign.layout) > 3:
        grid = seen.codes.reshape(len(seen.codes) // TOKENS, *token_axes(foreign.layout), levels)
        yield from (grid, grid[..., 0], grid.movedim(-1, 1))
    yield seen.codes


def closest(value: Tensor, wanted: Tensor, layout: str) -> float:
    """The relative difference in the better of channel-last and channel-first order."""
    options = [value.reshape(wanted.shape)]
    if value.ndim >= 3:
        options.append(value.movedim(1, -1).reshape(wanted.shape))
    if value.ndim == len(layout):
        options.append(flattened(value, layout).reshape(wanted.shape))
    return min(float((o - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12)) for o in options)

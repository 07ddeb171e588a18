"""Laws checked on a foreign module from outside: gradients, and what evaluation and odd inputs do to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vqtool.conformance.codebook_motion import books_of, found_books
from vqtool.conformance.foreign_module import WINDOWS, ForeignModule
from vqtool.conformance.gradient_laws import gains_bounded, gradient_of
from vqtool.conformance.law import Laws, Verdict, broken, kept, not_applicable, within
from vqtool.conformance.subject import changed, same, snapshot, state_of

LAWS: Laws[ForeignModule] = Laws()

DECODERS = ("decode", "get_output_from_indices", "get_codes_from_indices", "get_codebook_entry", "indices_to_codes",
            "embed_code", "decode_code", "decode_codes", "from_codes", "lookup", "dequantize")  # fmt: skip


@LAWS
def codes_are_codes(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up(train=False)
    seen = foreign.see(module, foreign.tokens())
    books = found_books(foreign)
    size = books[0].rows(module).shape[0] if books else None
    outside = int((seen.codes < 0).sum()) + (0 if size is None else int((seen.codes >= size).sum()))
    return within(outside, 0, "codes outside [0, K)")


@LAWS
def forward_exact(foreign: ForeignModule) -> Verdict:
    books = books_of(foreign)
    module = foreign.warmed_up()
    before = snapshot(module)
    x = foreign.tokens().requires_grad_()
    seen = foreign.see(module, x)
    total = sum(book.rows(before)[seen.codes[:, i]] for i, book in enumerate(books))
    off = (seen.value - total).detach().abs().amax(1)
    settled = off.median() <= 1e-3 * seen.value.detach().abs().max()
    if not bool(settled):
        return not_applicable("in training something else than its codes flows on")
    return within(float(off.max()), 0.0, "largest difference between what flows on and the code vectors")


@LAWS
def straight_through_gain(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up()
    x = foreign.tokens().requires_grad_()
    upstream = foreign.tokens(3)
    gradient = gradient_of(foreign.see(module, x).value, x, upstream)
    if gradient is None or float(gradient.abs().max()) == 0:
        return broken(0.0, "no gradient reaches the input")
    gain = float((gradient * upstream).sum() / upstream.square().sum())
    error = float((gradient - gain * upstream).norm() / gradient.norm())
    if error > 1e-3:
        return not_applicable(f"its gradient is no multiple of the identity (differs by {error:.2g})")
    return within(abs(gain - 1), 1e-4, f"distance of the gain {gain:.4g} from 1")


@LAWS
def gradient_bounded(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up()
    with torch.no_grad():
        exact = foreign.see(module.eval(), foreign.tokens()).value.detach()
    upstream = foreign.tokens(3)
    odd = (exact, torch.zeros_like(exact), foreign.tokens() * 1e-20)
    return gains_bounded(lambda x: foreign.see(module.train(), x).value, foreign.tokens(), odd, upstream)


@LAWS
def nan_contained(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up()
    x = foreign.tokens()
    x[5, 0] = torch.nan
    try:
        foreign.see(module, x)
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
    for module, when in ((foreign.warmed_up(train=False), "trained"), (foreign.new(train=False), "fresh")):
        before = snapshot(module)
        flags = plain_flags(module)
        for salt in (0, 1):
            foreign.see(module, foreign.tokens(salt))
        names = changed(module, before) + [n for n, v in plain_flags(module).items() if flags.get(n) != v]
        if names:
            return broken(len(names), f"tensors that evaluating a {when} module changed: {', '.join(names[:3])}")
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
    module = foreign.warmed_up(train=False)
    fresh = foreign.new(train=False)
    fresh.load_state_dict({n: t.clone() for n, t in module.state_dict().items()}, strict=True)
    with torch.no_grad():
        a, b = (foreign.see(m, foreign.tokens()) for m in (module, fresh))
    wrong = float((a.value != b.value).any(1).sum())
    return within(wrong, 0, "tokens quantized otherwise after loading a state_dict")


@LAWS
def deterministic(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up(train=False)
    with torch.no_grad():
        a, b = (foreign.see(module, foreign.tokens(), seed=i) for i in (0, 1))
    return within(float((a.value != b.value).any(1).sum()), 0, "tokens quantized otherwise the second time")


@LAWS
def token_permutation(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up(train=False)
    x = foreign.tokens()
    order = torch.randperm(x.shape[0], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = foreign.see(module, x), foreign.see(module, x[order])
    off = (a.value[order] - b.value).abs().amax(1) > 1e-5 * a.value.abs().max()
    return within(float(off.sum()), 0, "tokens quantized otherwise among other neighbours")


@LAWS
def precision(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up(train=False)
    with torch.no_grad():
        plain = foreign.see(module, foreign.tokens()).codes
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = foreign.see(module, foreign.tokens()).codes
    return within(int((plain != mixed).sum()), 0, f"of {plain.numel()} codes differ under bfloat16 autocast")


@LAWS
def checkpointing(foreign: ForeignModule) -> Verdict:
    upstream = foreign.tokens(3)
    states, gradients = [], []
    for through in (False, True):
        module = foreign.warmed_up()
        x = foreign.tokens().requires_grad_()

        def run(x: Tensor, module: nn.Module = module) -> Tensor:
            seen = foreign.see(module, x)
            losses = [t.sum() for t in seen.losses if t.requires_grad]
            return (seen.value * upstream).sum() + (torch.stack(losses).sum() if losses else 0)

        loss = checkpoint(run, x, use_reentrant=False) if through else run(x)
        if not loss.requires_grad:
            return not_applicable("no gradient flows through it")
        loss.backward()
        states.append(snapshot(module))
        gradients.append(x.grad)
    moved = [n for n in states[0] if not same(states[0][n], states[1][n])]
    if moved:
        return broken(len(moved), f"tensors that the second pass changed again: {', '.join(moved[:3])}")
    if gradients[0] is None or gradients[1] is None:
        return not_applicable("no gradient reaches the input")
    off = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    return within(off, 1e-4, "relative difference of the gradient with checkpointing")


@LAWS
def decode_round_trip(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up(train=False)
    with torch.no_grad():
        seen = foreign.see(module, foreign.tokens())
    for name in DECODERS:
        method = getattr(module, name, None)
        if not callable(method):
            continue
        by_window = seen.codes.reshape(WINDOWS, -1, seen.codes.shape[1])
        for codes in (by_window, seen.codes.reshape(WINDOWS, -1), seen.codes.t()[:, None]):
            try:
                with torch.no_grad():
                    value = method(codes)
            except Exception:  # another arrangement may be the right one
                continue
            if isinstance(value, Tensor) and value.numel() == seen.value.numel():
                off = closest(value, seen.value)
                return within(off, 1e-4, f"relative difference between `{name}` of the codes and what flowed on")
    return not_applicable("no method was found that decodes its codes")


def closest(value: Tensor, wanted: Tensor) -> float:
    """The relative difference in the better of channel-last and channel-first order."""
    options = [value.reshape(wanted.shape)]
    if value.ndim >= 3:
        options.append(value.movedim(1, -1).reshape(wanted.shape))
    return min(float((o - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12)) for o in options)

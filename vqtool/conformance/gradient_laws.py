"""Laws of where gradients go: to the encoder in full, to the codebook by its own loss only."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vqtool.api import Quantizer
from vqtool.conformance.law import Laws, Verdict, broken, kept, not_applicable, within
from vqtool.conformance.subject import Subject, changed, flat_vectors, inputs_by_level, rows_for, same, snapshot, total
from vqtool.conformance.words import Grade

LAWS: Laws[Subject] = Laws()


@LAWS
def straight_through_gain(subject: Subject) -> Verdict:
    quantizer = subject.started()
    if not quantizer.straight_through:
        return not_applicable("it does not promise the identity as its gradient")
    z = subject.tokens().requires_grad_()
    upstream = subject.tokens(salt=3)
    for train in (True, False):
        (gradient,) = torch.autograd.grad(quantizer.train(train)(z).z, z, upstream)
        if not same(gradient, upstream):
            gain = float((gradient * upstream).sum() / upstream.square().sum())
            return broken(gain, "gain of the gradient")
    return kept(1.0, "gain of the gradient")


@LAWS
def gradient_reaches_encoder(subject: Subject) -> Verdict:
    quantizer = subject.started()
    z = subject.tokens().requires_grad_()
    upstream = subject.tokens(salt=3)
    gradient = gradient_of(quantizer(z).z, z, upstream)
    gain = 0.0 if gradient is None else float(gradient.norm() / upstream.norm())
    good = 0 < gain < float("inf")
    return kept(gain, "size of the gradient to that of z") if good else broken(gain, "size of the gradient")


@LAWS
def gradient_bounded(subject: Subject) -> Verdict:
    quantizer = subject.started()
    z = subject.tokens()
    with torch.no_grad():
        exact = quantizer.eval()(z).hard
    quantizer.train()
    upstream = subject.tokens(salt=3)
    odd = (exact, exact * (1 + 1e-7), torch.zeros_like(z), z * 1e-20)
    return gains_bounded(lambda x: quantizer(x).z, z, odd, upstream)


def gains_bounded(
    value: Callable[[Tensor], Tensor],
    usual: Tensor,
    odd: Iterable[Tensor],
    upstream: Tensor,
    grade: Grade | None = None,
) -> Verdict:
    """Whether the largest |gradient by a token| / |gradient by its output| at `odd` inputs is like the usual one's.

    Or like 1: a quantizer of directions has a usual gain of one over the length of its tokens.
    """
    gains = []
    for x in (usual, *odd):
        x = x.clone().requires_grad_()
        gradient = gradient_of(value(x), x, upstream)
        if gradient is None:
            return not_applicable("no gradient reaches the input")
        gain = float((gradient.norm(dim=-1) / upstream.norm(dim=-1)).max())
        gains.append(gain if bool(gradient.isfinite().all()) else float("inf"))
    figure = max(gains[1:]) / max(gains[0], 1.0)
    note = "largest gain of a token at zero, tiny or exact inputs, to the usual largest or 1"
    return within(figure, 100.0, note, grade)


def gradient_of(value: Tensor, x: Tensor, upstream: Tensor | None = None) -> Tensor | None:
    """The gradient of `value` by `x`; None where none reaches it."""
    if not value.requires_grad:
        return None
    return torch.autograd.grad(value, x, upstream, allow_unused=True)[0]


@LAWS
def commitment_reaches_encoder(subject: Subject) -> Verdict:
    if "commitment" not in subject.new().terms:
        return not_applicable("it has no commitment term")
    quantizer = subject.started()
    z = subject.tokens().requires_grad_()
    q = quantizer(z)
    if not q.terms["commitment"].requires_grad:
        return broken(0.0, "the commitment carries no gradient at all")
    gradient = gradient_of(q.terms["commitment"], z)
    if gradient is None or float(gradient.abs().max()) == 0:
        return broken(0.0, "size of the commitment's gradient by the encoder's output")
    vectors = flat_vectors(quantizer)
    if vectors is None or not quantizer.nearest:
        return kept(float(gradient.norm()), "size of the commitment's gradient")
    return within(*commitment_error(z, q.codes, vectors, gradient))


def commitment_error(z: Tensor, codes: Tensor, vectors: list[Tensor], gradient: Tensor) -> tuple[float, float, str]:
    """How far `gradient` is from that of the mean squared residual, up to a common factor, by level in float64."""
    flat = codes.reshape(-1, codes.shape[-1])
    residual = inputs_by_level(z, codes, vectors)
    wanted = torch.zeros_like(residual[0])
    for i, (given, table) in enumerate(zip(residual, vectors, strict=True)):
        own = (table != 0).any(0)  # a group's features; those of the others are zero in its vectors
        wanted += (given - rows_for(table, flat[:, i])) * own * (flat[:, i, None] >= 0)
    found = gradient.reshape(wanted.shape).double()
    factor = (found * wanted).sum() / wanted.square().sum()
    error = float((found - factor * wanted).norm() / found.norm())
    return error if factor > 0 else float("inf"), 1e-4, "distance from the gradient that all levels together give"


@LAWS
def commitment_spares_codebook(subject: Subject) -> Verdict:
    if "commitment" not in subject.new().terms:
        return not_applicable("it has no commitment term")
    quantizer = subject.started()
    commitment = quantizer(subject.tokens().requires_grad_()).terms["commitment"]
    if commitment.requires_grad:
        commitment.backward()
    reached = [p for p in quantizer.parameters() if p.grad is not None and float(p.grad.abs().max()) > 0]
    moved = [p for p in reached if moves_codes(quantizer, p)]
    return within(len(moved), 0, "parameters of the codebook that the commitment reaches")


def moves_codes(quantizer: Quantizer, parameter: Tensor) -> bool:
    """Whether the code vectors depend on this parameter."""
    codes = torch.zeros(1, 1, len(quantizer.codebook_sizes), dtype=torch.long)
    codes = codes + torch.arange(min(quantizer.codebook_sizes))[:, None, None]
    with torch.no_grad():
        before, kept_value = quantizer.decode(codes), parameter.clone()
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        after = quantizer.decode(codes)
        parameter.copy_(kept_value)
    return not same(before, after)


@LAWS
def codebook_loss_spares_encoder(subject: Subject) -> Verdict:
    if "codebook" not in subject.new().terms:
        return not_applicable("it has no codebook term")
    quantizer = subject.started()
    z = subject.tokens().requires_grad_()
    codebook = quantizer(z).terms["codebook"]
    if codebook.requires_grad:
        codebook.backward()
    reached = any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in quantizer.parameters())
    if not reached:
        return broken(0.0, "the codebook term reaches no parameter")
    return within(0.0 if z.grad is None else float(z.grad.norm()), 0.0, "its gradient by the encoder's output")


@LAWS
def one_owner(subject: Subject) -> Verdict:
    quantizer = subject.started()
    z = subject.tokens().requires_grad_()
    q = quantizer(z)
    if not q.stats:
        return not_applicable("nothing follows by moving average")
    (q.z.sum() + total(q, quantizer.terms)).backward()
    before = snapshot(quantizer)
    quantizer.update(q.stats)
    moved = {name.rpartition(".")[0] for name in changed(quantizer, before)}  # the modules that follow their inputs
    owned = [
        name
        for name, p in quantizer.named_parameters()
        if p.grad is not None and name.rpartition(".")[0] in moved and moves_codes(quantizer, p)
    ]
    return within(len(owned), 0, f"codebook parameters with a gradient besides the average {owned or ''}".rstrip())


@LAWS
def checkpointing(subject: Subject) -> Verdict:
    upstream = subject.tokens(salt=3)
    seen = []
    for through in (False, True):
        quantizer = subject.started()
        z = subject.tokens().requires_grad_()
        before = snapshot(quantizer)

        def run(x: Tensor, quantizer: Quantizer = quantizer) -> tuple[Tensor, Tensor]:
            q = quantizer(x)
            return q.z, total(q, quantizer.terms)

        value, terms = checkpoint(run, z, use_reentrant=False) if through else run(z)
        ((value * upstream).sum() + terms).backward()
        if changed(quantizer, before):
            return broken(None, f"the passes changed {changed(quantizer, before)[0]}")
        seen.append([z.grad, *(p.grad for p in quantizer.parameters())])
    pairs = [(a, b) for a, b in zip(*seen, strict=True) if a is not None and b is not None]
    worst = max(float((a - b).abs().max()) for a, b in pairs)
    return within(worst, 1e-6 * float(pairs[0][0].abs().max()), "difference of the gradients with checkpointing")

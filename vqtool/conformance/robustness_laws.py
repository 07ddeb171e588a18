"""Laws of purity, odd inputs, precision and persistence."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from vqtool.api import Quantized, Quantizer
from vqtool.conformance.law import Laws, Verdict, broken, kept, not_applicable, within
from vqtool.conformance.subject import Subject, changed, same, snapshot
from vqtool.errors import VqtoolError

LAWS: Laws[Subject] = Laws()


@LAWS
def forward_pure(subject: Subject) -> Verdict:
    quantizer, z = subject.started(), subject.tokens()
    for train in (True, False):
        quantizer.train(train)
        before = snapshot(quantizer)
        quantizer(z.requires_grad_())
        quantizer(z)
        if names := changed(quantizer, before):
            return broken(len(names), f"changed by forward: {', '.join(names[:3])}")
    return kept(0)


@LAWS
def eval_changes_nothing(subject: Subject) -> Verdict:
    quantizer, z = subject.started(train=False), subject.tokens()
    before = snapshot(quantizer)
    with torch.no_grad():
        q = quantizer(z)
    if names := changed(quantizer, before):
        return broken(len(names), f"changed in evaluation: {', '.join(names[:3])}")
    commitment = q.terms.get("commitment")
    if commitment is not None and not float(commitment) > 0:
        return broken(float(commitment), "the commitment in evaluation")
    return kept(0)


@LAWS
def never_silent_start(subject: Subject) -> Verdict:
    quantizer = subject.new()
    if quantizer.initialised:
        return not_applicable("it needs no start")
    z = subject.tokens()
    codes = torch.zeros(1, 1, len(quantizer.codebook_sizes), dtype=torch.long)
    before = snapshot(quantizer)
    for train, calls in ((False, ("forward", "decode")), (True, ("decode",))):
        quantizer.train(train)
        for name in calls:
            try:
                quantizer(z) if name == "forward" else quantizer.decode(codes)
            except VqtoolError:
                continue
            return broken(None, f"{name} worked though the codebook was never started")
    if names := changed(quantizer, before):
        return broken(len(names), "a refused forward changed the state")
    try:
        quantizer.train()(z)  # may start from its first training batch
    except VqtoolError:
        return kept(0)
    return kept(0) if quantizer.initialised else broken(None, "a training pass quantized with an empty codebook")


@LAWS
@torch.no_grad()
def refuses_foreign_codes(subject: Subject) -> Verdict:
    quantizer = subject.started(train=False)
    codes = quantizer(subject.tokens()).codes
    for q, size in enumerate(quantizer.codebook_sizes):
        for value in (size, -2, 2**40):
            foreign = codes.clone()
            foreign[0, 0, q] = value
            try:
                quantizer.decode(foreign)
            except VqtoolError:
                continue
            return broken(value, f"a code of codebook {q}, whose codes are 0 to {size - 1}, was decoded")
    return kept(0)


@LAWS
def deterministic(subject: Subject) -> Verdict:
    z = subject.tokens()
    pair = [subject.start(subject.new()) for _ in range(2)]
    for train in (True, False):
        first, *others = [quantizer.train(train)(z) for quantizer in pair for _ in range(2)]
        for other in others:
            if difference := unlike(first, other):
                return broken(None, f"{difference} differ between two passes")
    return kept(0)


def unlike(a: Quantized, b: Quantized) -> str | None:
    """The name of the first part in which two results differ."""
    for name in ("codes", "z", "hard"):
        if not same(getattr(a, name).detach(), getattr(b, name).detach()):
            return name
    return next((n for n in a.terms if not same(a.terms[n].detach(), b.terms[n].detach())), None)


@LAWS
def own_random_state(subject: Subject) -> Verdict:
    quantizer = subject.new()
    before = torch.get_rng_state()
    if not quantizer.initialised:
        quantizer.initialise(subject.tokens())
    quantizer.train()(subject.tokens())
    moved = not torch.equal(before, torch.get_rng_state())
    torch.set_rng_state(before)
    return broken(None, "the global random state moved") if moved else kept(0)


@LAWS
def nan_contained(subject: Subject) -> Verdict:
    z = subject.tokens()
    bad = z.clone()
    bad[0, 1, 0], bad[1, 2, -1], bad[2, 0] = torch.nan, torch.inf, -torch.inf
    where = torch.zeros(z.shape[:2], dtype=torch.bool)
    where[0, 1] = where[1, 2] = where[2, 0] = True
    quantizer = subject.started()
    # Tokens of a window that choose their expert together do so without those that do not count.
    before = quantizer.eval()(z, ~where if quantizer.topology == "routed" else None)
    after = quantizer(bad)
    if not same(after.codes[~where], before.codes[~where]):
        return broken(int((after.codes[~where] != before.codes[~where]).sum()), "codes of other tokens changed")
    if not bool((after.codes[where] == -1).all()) or float(after.z[where].detach().abs().sum()) > 0:
        return broken(None, "a token that is not finite has code -1 and flows on as zeros")
    if after.not_finite is None or int(after.not_finite) != 3:
        return broken(None, "`not_finite` does not report the 3 tokens")
    return poison_spreads(quantizer, bad, where)


def poison_spreads(quantizer: Quantizer, bad: Tensor, where: Tensor) -> Verdict:
    """Train on inputs with tokens that are not finite; count what else they reach."""
    bad = bad.clone().requires_grad_()
    q = quantizer.train()(bad)
    loss = q.z.sum() + sum(q.terms.values(), torch.zeros(()))
    loss.backward()
    tensors = [t.detach() for t in q.terms.values()] + [p.grad for p in quantizer.parameters() if p.grad is not None]
    tensors += [bad.grad[~where]] if bad.grad is not None else []
    tensors += [t for s in q.stats for t in (s.counts, s.sums)]
    quantizer.update(q.stats)
    tensors += [t for t in snapshot(quantizer).values() if t.is_floating_point()]
    reached = sum(int((~t.isfinite()).sum()) for t in tensors)
    return within(reached, 0, "numbers that a token which is not finite reached")


@LAWS
def padding_irrelevant(subject: Subject) -> Verdict:
    z = subject.tokens()
    mask = torch.ones(z.shape[:2], dtype=torch.bool)
    mask[0, 5:], mask[1] = False, False
    quantizer = subject.started()
    for train in (True, False):
        quantizer.train(train)
        results = []
        for filling in (0.0, 1e3, torch.nan):
            results.append(quantizer(z.masked_fill(~mask[..., None], filling), mask))
        if any(unlike(results[0], other) for other in results[1:]):
            return broken(None, "what padded tokens hold changes the result")
        if not bool((results[0].codes[~mask] == -1).all()) or int(results[2].not_finite or 0) != 0:
            return broken(None, "padded tokens get code -1 and are not reported as broken")
        if difference := unlike(quantizer(z), quantizer(z, torch.ones_like(mask))):
            return broken(None, f"a mask that is true everywhere changes {difference}")
        nothing = quantizer(z, torch.zeros_like(mask))
        if not all(bool(t.isfinite()) for t in nothing.terms.values()) or float(nothing.z.detach().abs().sum()) > 0:
            return broken(None, "a fully masked batch gives terms that are not finite")
    return kept(0)


@LAWS
def empty_batch(subject: Subject) -> Verdict:
    quantizer = subject.started()
    before = snapshot(quantizer)
    for shape in ((0, 4, subject.dim), (3, 0, subject.dim)):
        z = torch.zeros(shape, requires_grad=True)
        q = quantizer.train()(z)
        if q.z.shape != z.shape or q.codes.shape != (*shape[:2], len(quantizer.codebook_sizes)):
            return broken(None, "the shapes of an empty batch are wrong")
        if not all(bool(t.isfinite()) for t in q.terms.values()):
            return broken(None, "the terms of an empty batch are not finite")
        if q.z.requires_grad:
            (q.z.sum() + sum(q.terms.values(), torch.zeros(()))).backward()
        if q.stats:
            quantizer.update(q.stats)
    names = changed(quantizer, before)
    return broken(len(names), f"an empty batch changed {names[0]}") if names else kept(0)


@LAWS
def precision(subject: Subject) -> Verdict:
    quantizer, z = subject.started(), subject.tokens()
    plain = quantizer(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = quantizer(z)
    wrong = int((plain.codes != mixed.codes).sum())
    if wrong:
        return broken(wrong, "codes that differ under bfloat16 autocast")
    narrow = copy.deepcopy(quantizer).bfloat16()
    half = [n for n, t in snapshot(narrow).items() if t.is_floating_point() and t.dtype != torch.float32]
    if half:
        return broken(len(half), f"not float32 after .bfloat16(): {half[0]}")
    if any(t.dtype != torch.float32 for s in mixed.stats for t in (s.counts, s.sums)):
        return broken(None, "statistics are not float32 under autocast")
    low = z.bfloat16().requires_grad_()
    narrow(low).z.sum().backward()
    fine = low.grad is not None and low.grad.dtype == torch.bfloat16
    return kept(0) if fine else broken(None, "a bfloat16 input gets no bfloat16 gradient")


@LAWS
def state_round_trip(subject: Subject) -> Verdict:
    quantizer, z = subject.started(), subject.tokens()
    q = quantizer(z.requires_grad_())
    if q.stats:
        quantizer.update(q.stats)
    fresh = subject.new()
    fresh.load_state_dict({n: t.clone() for n, t in quantizer.state_dict().items()}, strict=True)
    if not fresh.initialised:
        return broken(None, "a loaded quantizer does not know that it was started")
    for other in (fresh, copy.deepcopy(quantizer)):
        if difference := unlike(quantizer.eval()(z), other.eval()(z)):
            return broken(None, f"{difference} differ after loading or copying")
    return kept(0)


class CodesOf(nn.Module):
    """What is compiled and exported: values and codes."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        q = self.quantizer(z)
        return q.z, q.codes


@LAWS
@torch.no_grad()
def compiles(subject: Subject) -> Verdict:
    model, z = CodesOf(subject.started(train=False)), subject.tokens()
    torch.compiler.reset()
    value, codes = torch.compile(model, fullgraph=True, backend="eager")(z)
    plain = model(z)
    wrong = int((codes != plain[1]).sum())
    off = float((value - plain[0]).abs().max())
    return broken(wrong, "codes that differ in the compiled graph") if wrong else within(off, 1e-5, "difference of z")


@LAWS
@torch.no_grad()
def exports(subject: Subject) -> Verdict:
    model, z = CodesOf(subject.started(train=False)), subject.tokens()
    dims = {0: torch.export.Dim("batch", min=2, max=1024), 1: torch.export.Dim("tokens", min=2, max=65536)}
    program = torch.export.export(model, (z,), dynamic_shapes=(dims,))
    other = subject.tokens(salt=3, windows=subject.batch + 1)[:, :-1]
    wrong = int((program.module()(other)[1] != model(other)[1]).sum())
    return within(wrong, 0, "codes that differ in the exported program")

"""Laws of what a quantizer computes: codes, values, and the way back from codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vqtool.conformance.law import Laws, Verdict, broken, kept, not_applicable, within
from vqtool.conformance.subject import (
    Subject,
    codebook_tensors,
    flat_vectors,
    inputs_by_level,
    rows_for,
    same,
)

LAWS: Laws[Subject] = Laws()


@LAWS
def codes_are_codes(subject: Subject) -> Verdict:
    quantizer, z = subject.started(), subject.tokens()
    for train in (True, False):
        q = quantizer.train(train)(z)
        levels = len(quantizer.codebook_sizes)
        if q.codes.dtype != torch.long or q.codes.shape != (*z.shape[:2], levels):
            return broken(None, f"codes are {tuple(q.codes.shape)} {q.codes.dtype}, not {(*z.shape[:2], levels)} long")
        sizes = torch.tensor(quantizer.codebook_sizes)
        expert = quantizer.topology == "routed"  # one of them codes a token, and a training pass may drop levels
        dropped = q.codes == -1 if train or expert else torch.zeros((), dtype=torch.bool)
        if expert and bool(((q.codes >= 0).sum(-1) != 1).any()):
            return broken(None, "each token has a code of exactly one expert")
        outside = int((((q.codes < 0) & ~dropped) | (q.codes >= sizes)).sum())
        if outside:
            return broken(outside, "codes outside [0, K)")
        if q.z.shape != z.shape or q.hard.shape != z.shape or q.hard.requires_grad:
            return broken(None, "`z` and `hard` have the input's shape, `hard` carries no gradient")
        if set(q.terms) != set(quantizer.terms) or any(t.ndim for t in q.terms.values()):
            return broken(None, f"the terms are {sorted(q.terms)}, announced are {sorted(quantizer.terms)}")
    return kept(0)


@LAWS
def forward_exact(subject: Subject) -> Verdict:
    worst = 0.0
    for scale in (1.0, 100.0, 1e-3):
        z = subject.tokens(scale=scale).requires_grad_()
        quantizer = subject.started(subject.tokens(salt=7, windows=16, scale=scale), **at_random(subject))
        for train in (True, False):
            q = quantizer.train(train)(z)
            value = q.hard if train and q.soft is not None else q.z
            for other in (q.hard, quantizer.decode(q.codes)):
                worst = max(worst, float((value - other).detach().abs().max()))
    return within(worst, 0.0, "largest difference between what flows on and the code vectors")


def at_random(subject: Subject) -> dict[str, Any]:
    """The quickest start, for laws that hold of any codebook."""
    return {"start": "random"} if subject.accepts("start") else {}


@LAWS
def decode_round_trip(subject: Subject) -> Verdict:
    quantizer, z = subject.started(train=False), subject.tokens()
    with torch.no_grad():
        q = quantizer(z)
        if not same(quantizer.decode(q.codes.int()), q.hard):
            return broken(None, "decoding int32 codes differs")
        vectors = flat_vectors(quantizer)
        if vectors is not None:
            codes = q.codes.reshape(-1, len(vectors))
            total = sum(rows_for(table, codes[:, i]) for i, table in enumerate(vectors))
            off = float((total - q.hard.reshape(-1, subject.dim).double()).abs().max())
            if off > 1e-5 * float(q.hard.abs().max()):
                return broken(off, "the sum of `vectors()` is not what decode gives")
        off = float((quantizer.decode(q.codes[:1, 3:4]) - q.hard[:1, 3:4]).abs().max())
    return within(off, 1e-5 * float(q.hard.abs().max()), "one token decoded alone differs by this much")


@LAWS
def partial_decode(subject: Subject) -> Verdict:
    quantizer, z = subject.started(train=False), subject.tokens()
    levels = len(quantizer.codebook_sizes)
    with torch.no_grad():
        codes = quantizer(z).codes
        worst = float(quantizer.decode(torch.full_like(codes, -1)).abs().max())
        for level in range(1, levels):
            rest = torch.cat([codes[..., :level], torch.full_like(codes[..., level:], -1)], -1)
            less = quantizer.decode(codes[..., :level])
            worst = max(worst, float((less - quantizer.decode(rest)).abs().max()))
            vectors = flat_vectors(quantizer)
            if vectors is not None:
                flat = codes.reshape(-1, levels)
                total = sum(rows_for(vectors[i], flat[:, i]) for i in range(level))
                off = float((total - less.reshape(-1, subject.dim).double()).abs().max())
                worst = max(worst, 0.0 if off < 1e-5 * max(1e-9, float(less.abs().max())) else off)
    return within(worst, 0.0, "difference between the first codebooks alone and the others left out")


@LAWS
def nearest_code(subject: Subject) -> Verdict:
    quantizer = subject.started(train=False)
    if not quantizer.nearest or quantizer.vectors() is None:
        return not_applicable("its codes are not chosen by distance to its vectors")
    wrong = 0
    for scale, offset in ((1.0, 0.0), (1.0, 1e4), (1e-18, 0.0), (1e4, 0.0)):
        start = subject.tokens(salt=5, windows=16, scale=scale, offset=offset)
        quantizer = subject.started(start, train=False, **at_random(subject))
        z = subject.tokens(salt=6, scale=scale, offset=offset)
        wrong += sum(wrong_codes(z, quantizer(z).codes, flat_vectors(quantizer) or []))
    if wrong:
        return broken(wrong, "tokens whose code is not the nearest in float64")
    return within(tie_breaks(subject), 0, "tokens that did not get the lowest of equal codes")


def wrong_codes(z: Tensor, codes: Tensor, vectors: list[Tensor]) -> list[int]:
    """Per codebook, tokens with a nearer code, by more than float32 inputs can tell: brute force in float64."""
    counts = []
    flat = codes.reshape(-1, codes.shape[-1])
    for level, (given, table) in enumerate(zip(inputs_by_level(z, codes, vectors), vectors, strict=True)):
        coded = flat[:, level] >= 0
        if not bool(coded.any()):
            counts.append(0)
            continue
        distance = torch.cdist(given[coded], table, compute_mode="donot_use_mm_for_euclid_dist").square()
        best, taken = distance.min(1).values, distance.gather(1, flat[coded, level, None]).squeeze(1)
        spread = (table - table.mean(0)).square().sum(1).mean() + best.mean()
        rounding = 8 * 2.0**-24 * float(z.abs().max()) * distance.mean().sqrt()  # of residuals at an offset
        counts.append(int((taken > best * (1 + 1e-5) + 1e-6 * spread + (rounding if level else 0)).sum()))
    return counts


def tie_breaks(subject: Subject) -> int:
    """With every second code a copy of another one, how many tokens did not get the lower index."""
    quantizer, z = subject.started(train=False), subject.tokens()
    books = codebook_tensors(quantizer)
    if books is None:
        return 0
    wrong = 0
    with torch.no_grad():
        for book in books:
            size = book.shape[0] // 2 * 2
            book[1:size:2] = book[:size:2].clone()  # 0 0 2 2 4 4 ...: the odd ones are never the lowest
    codes = quantizer(z).codes
    for book, column in zip(books, codes.reshape(-1, len(books)).unbind(1), strict=True):
        wrong += int(((column % 2 == 1) & (column >= 0) & (column < book.shape[0] // 2 * 2)).sum())
    return wrong


@LAWS
def token_permutation(subject: Subject) -> Verdict:
    quantizer, z = subject.started(train=False), subject.tokens()
    with torch.no_grad():
        codes = quantizer(z).codes
        order = torch.randperm(z.shape[0] * z.shape[1], generator=torch.Generator().manual_seed(1))
        if quantizer.topology == "routed":  # a window's tokens choose their codebook together: they stay together
            order = order.argsort().view(z.shape[:2]).argsort(1) + torch.arange(z.shape[0])[:, None] * z.shape[1]
            order = order.flip(0).flatten()
        mixed = z.reshape(-1, subject.dim)[order].view(z.shape)
        again = torch.empty_like(codes.reshape(-1, codes.shape[-1]))
        again[order] = quantizer(mixed).codes.reshape(-1, codes.shape[-1])
        wrong = int((again.view(codes.shape) != codes).sum())
        cut = torch.cat([quantizer(part).codes for part in z.split(1)])
        wrong += int((cut != codes).sum())
    return within(wrong, 0, "codes that changed when the batch was permuted or cut")


@LAWS
def row_permutation(subject: Subject) -> Verdict:
    quantizer, z = subject.started(train=False), subject.tokens()
    books = codebook_tensors(quantizer)
    if books is None:
        return not_applicable("its codebook rows are not stored as they are")
    if not quantizer.nearest:
        return not_applicable("its codes are not chosen by distance to its vectors")
    with torch.no_grad():
        before = quantizer(z)
        order = [torch.randperm(b.shape[0], generator=torch.Generator().manual_seed(i)) for i, b in enumerate(books)]
        for book, rows in zip(books, order, strict=True):
            book.copy_(book[rows].clone())
        after = quantizer(z)
    columns = zip(order, after.codes.unbind(-1), strict=True)
    named = torch.stack([torch.where(column >= 0, rows[column], -1) for rows, column in columns], -1)
    wrong = int((named != before.codes).sum())
    return within(wrong, 0, "tokens whose vector changed with the numbering")

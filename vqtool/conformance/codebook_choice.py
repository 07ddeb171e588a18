"""The law of nearest codes on a foreign module: whether its table chooses the codes, by which rule, how exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.conformance.codebook_motion import books_of
from vqtool.conformance.foreign_module import TOKENS, Book, ForeignModule
from vqtool.conformance.law import Laws, Verdict, not_applicable, within
from vqtool.conformance.subject import state_of

LAWS: Laws[ForeignModule] = Laws()

COUNTED = "tokens have a nearer code in float64"


@LAWS
def nearest_code(foreign: ForeignModule) -> Verdict:
    book = books_of(foreign)[0]
    module, x = foreign.warmed_up(train=False), foreign.tokens()
    own, codes = book.rows(module).detach().clone(), first_codes(foreign, module, x)
    count = wrong_tokens(foreign, module, x)
    with holding(module, book, own.flip(0)):
        turned = first_codes(foreign, module, x)
    if torch.equal(turned, codes) and count:  # logits, or a table beside codes that come of rounding
        return not_applicable("its codes do not depend on what its table holds")
    if torch.equal(turned, codes) or missed(x, own.flip(0), turned) > count + 0.1 * x.shape[0]:
        return within(count, 0, f"of {x.shape[0]} {COUNTED}; it does not take a table that is set")
    if count and (rule := other_rule(foreign, module, x)):
        return not_applicable(rule)
    trials = {"scale 1e-5": (own * 1e-5, x * 1e-5)}
    norms = own.norm(dim=1)
    if bool((norms - norms.mean()).abs().max() > 1e-3 * norms.mean()):  # on a sphere, it may be cosine just as well
        like = foreign.tokens(40, windows=own.shape[0] // TOKENS + 1)[: own.shape[0]].to(own)
        with holding(module, book, like):
            if wrong_tokens(foreign, module, x) and (rule := other_rule(foreign, module, x)):
                return not_applicable(rule)
        trials = {"codes like inputs": (like, x), "offset 1e3": (own + 1e3, x + 1e3)} | trials
    for rows, inputs in trials.values():
        with holding(module, book, rows):
            count += wrong_tokens(foreign, module, inputs)
    return within(count, 0, f"of {(1 + len(trials)) * x.shape[0]} {COUNTED} (its own, {', '.join(trials)})")


@contextmanager
def holding(module: nn.Module, book: Book, rows: Tensor) -> Iterator[None]:
    """The module with other rows in one of its codebooks; afterwards its own are back, bit for bit."""
    own = book.rows(module).detach().clone()
    with torch.no_grad():
        book.rows(module).copy_(rows)
        try:
            yield
        finally:
            book.rows(module).copy_(own)


def first_codes(foreign: ForeignModule, module: nn.Module, x: Tensor, *, seed: int = 0) -> Tensor:
    """The codes [N] of the first level."""
    with torch.no_grad():
        return foreign.see(module, x, seed=seed).codes[:, 0]


def missed(points: Tensor, rows: Tensor, codes: Tensor) -> int:
    """How many of `points` have a nearer row than that of their code, beyond what float32 inputs can tell."""
    points, rows = points.double(), rows.double()
    distance = torch.cdist(points, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    best, taken = distance.min(1).values, distance.gather(1, codes[:, None]).squeeze(1)
    spread = (rows - rows.mean(0)).square().sum(1).mean()
    return int((taken > best * (1 + 1e-4) + 1e-6 * spread).sum())


def wrong_tokens(foreign: ForeignModule, module: nn.Module, x: Tensor) -> int:
    """How many tokens have a first code that is not the nearest."""
    rows = books_of(foreign)[0].rows(module).detach().clone()  # before: a faulty module moves them in evaluation too
    return missed(x, rows, first_codes(foreign, module, x))


def other_rule(foreign: ForeignModule, module: nn.Module, x: Tensor) -> str | None:
    """A rule other than the distance to the input that explains the codes, in words; None if there is none."""
    codes = first_codes(foreign, module, x)
    if not torch.equal(first_codes(foreign, module, x, seed=1), codes):
        return "its codes are drawn by chance"
    rows = books_of(foreign)[0].rows(module).detach()
    known = {
        "by cosine": (F.normalize(x, dim=1), F.normalize(rows, dim=1)),
        "to the normalised input": (F.normalize(x, dim=1), rows),
        "to the standardised input": (F.layer_norm(x, x.shape[1:]), rows),
    }
    for name, (points, table) in known.items():
        if missed(points, table, codes) <= 0.01 * x.shape[0]:
            return f"its codes are the nearest {name}"
    return "a learned map stands before its codes" if mapped(foreign, module, x) else None


def mapped(foreign: ForeignModule, module: nn.Module, x: Tensor) -> bool:
    """Whether the choice depends on another tensor than the codebooks: a projection, the weights of a norm."""
    codes = first_codes(foreign, module, x)
    books = {book.name for book in books_of(foreign)}
    generator = torch.Generator().manual_seed(0)
    for name, t in state_of(module).items():
        if name in books or not t.is_floating_point() or t.numel() < 2:
            continue
        noise = torch.randn(t.shape, generator=generator).to(t)
        with holding(module, Book(name), t.detach() + noise * (t.detach().std() + 1e-3)):
            if not torch.equal(first_codes(foreign, module, x), codes):
                return True
    return False

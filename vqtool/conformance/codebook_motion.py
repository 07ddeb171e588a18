"""Laws of how a foreign module's codebook moves, watched from outside between forward passes."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from vqtool.conformance.foreign_module import TOKENS, Book, ForeignModule, matching
from vqtool.conformance.law import Laws, NotApplicable, Verdict, broken, kept, not_applicable, within
from vqtool.conformance.subject import changed, inputs_by_level, snapshot

LAWS: Laws[ForeignModule] = Laws()

CLAIMS = re.compile(r"expir|reviv|restart|dead|reset_code|re_?init_?code|replace|refresh", re.IGNORECASE)
PATIENCE = 400  # training steps in which revival has to show


def found_books(foreign: ForeignModule) -> list[Book]:
    """The module's codebooks, one per level; empty if its outputs are no sum of rows of its tensors."""
    if "books" not in foreign.notes:
        module = foreign.warmed_up(train=False)
        before = snapshot(module)
        with torch.no_grad():
            seen = foreign.see(module, foreign.tokens())
        foreign.notes["books"] = matching(module, before, seen, foreign.dim)
    return foreign.notes["books"]


def books_of(foreign: ForeignModule) -> list[Book]:
    """The same, for laws that need them."""
    if not found_books(foreign):
        raise NotApplicable("its codebook was not found among its tensors")
    return found_books(foreign)


def rows_now(foreign: ForeignModule, module: nn.Module) -> list[Tensor]:
    """Copies of all codebooks."""
    return [book.rows(module).detach().clone() for book in books_of(foreign)]


def needs_updates_in_forward(foreign: ForeignModule) -> None:
    """For laws of moving averages: a training pass must update state."""
    books_of(foreign)
    module = foreign.warmed_up()
    before = snapshot(module)
    foreign.see(module, foreign.tokens(7))
    if not any(before[n].is_floating_point() for n in changed(module, before) if n in before):
        raise NotApplicable("nothing is updated in its forward")


@LAWS
def ema_follows_inputs(foreign: ForeignModule) -> Verdict:
    needs_updates_in_forward(foreign)
    module = foreign.warmed_up()
    shares = []
    for salt in range(4):
        before = rows_now(foreign, module)
        x = foreign.tokens(20 + salt, scale=1.5, offset=0.3)  # the encoder has moved on
        codes = foreign.see(module, x).codes
        after = rows_now(foreign, module)
        for level, given in enumerate(inputs_by_level(x, codes, before)):
            counts = torch.bincount(codes[:, level], minlength=before[level].shape[0])
            sums = torch.zeros(before[level].shape, dtype=torch.float64).index_add_(0, codes[:, level], given)
            often = counts >= counts.max().clamp_max(2)
            way = (sums / counts.clamp_min(1)[:, None] - before[level].double())[often]
            gone = (after[level].double() - before[level].double())[often]
            shares.append((gone * way).sum(1) / way.square().sum(1).clamp_min(1e-20))
    share = min(float(s.median()) for s in shares)
    return kept(share, SHARE) if share > 1e-4 else broken(share, SHARE)


SHARE = "median share of the way to the mean of its inputs that a chosen code goes in a step"


@LAWS
def ema_start(foreign: ForeignModule) -> Verdict:
    needs_updates_in_forward(foreign)
    module, worst = foreign.new(), 1.0
    for salt in range(4):
        before = rows_now(foreign, module)
        x = foreign.tokens(30 + salt, windows=3)  # few: a start shows on the codes that nobody chose
        foreign.see(module, x)
        inputs = x.norm(dim=1)
        for level, (a, b) in enumerate(zip(before, rows_now(foreign, module), strict=True)):
            largest = float(b.norm(dim=1).max() / torch.maximum(a.norm(dim=1).max(), inputs.max()))
            floor = a.norm(dim=1).median()
            if salt == 0:  # a start from data may legitimately shrink a random codebook to the size of the data
                floor = torch.minimum(floor, inputs.median()) if level == 0 else floor * 0
            shrunk = float(floor / b.norm(dim=1).median().clamp_min(1e-12 * float(inputs.median())))
            worst = max(worst, largest, shrunk)
    return within(worst, 4.0, "factor by which one of the first steps blew up or shrank the codebook")


@LAWS
def one_owner(foreign: ForeignModule) -> Verdict:
    books = books_of(foreign)
    module = foreign.warmed_up()
    before = rows_now(foreign, module)
    seen = foreign.see(module, foreign.tokens(8).requires_grad_())
    moved = any(not torch.equal(a, b) for a, b in zip(before, rows_now(foreign, module), strict=True))
    parts = [t.sum() for t in (seen.value, *seen.losses) if t.requires_grad]
    if not moved:
        return not_applicable("only the optimizer moves its codebook")
    if parts:
        torch.stack(parts).sum().backward()
    named = dict(module.named_parameters())
    grads = [named[b.name].grad for b in books if b.name in named]
    size = sum(float(g.norm()) for g in grads if g is not None)
    return within(size, 0.0, "size of a loss's gradient by a codebook that its own update moves too")


@LAWS
def unused_code_rests(foreign: ForeignModule) -> Verdict:
    needs_updates_in_forward(foreign)
    module = foreign.warmed_up()
    few = foreign.tokens(9)[:4]
    x = few.repeat(TOKENS // 4 + 1, 1)[:TOKENS]
    book = books_of(foreign)[0]
    start = book.rows(module).detach().clone()
    used = torch.zeros(start.shape[0], dtype=torch.bool)
    for _ in range(150):
        codes = foreign.see(module, x).codes
        used[codes[:, 0]] = True
    now = book.rows(module).detach()
    revived = torch.cdist(now, few).amin(1) < 0.05 * few.norm(dim=1).median()
    resting = ~used & ~revived
    if not bool(resting.any()):
        return not_applicable("every code was chosen or revived")
    drift = float(((now - start).norm(dim=1) / start.norm(dim=1).clamp_min(1e-12))[resting].max())
    return within(drift, 1e-4, "largest relative motion of a code in 150 steps in which nobody chose it")


@LAWS
def revival_holds(foreign: ForeignModule) -> Verdict:
    needs_updates_in_forward(foreign)
    module = foreign.warmed_up()
    if not claims_revival(module):
        return not_applicable("it does not claim to revive codes")
    offset = 30.0

    def used() -> int:
        with torch.no_grad():
            codes = foreign.see(module.eval(), foreign.tokens(3, offset=offset)).codes
        module.train()
        return int(codes[:, 0].unique().numel())

    first = now = used()
    reachable = min(books_of(foreign)[0].rows(module).shape[0], foreign.tokens().shape[0])
    wanted = max(2 * first, reachable // 4)
    for step in range(PATIENCE):  # the inputs went elsewhere: all codes but a few are dead
        foreign.see(module, foreign.tokens(200 + step, offset=offset), seed=step)
        if step % 20 == 19 and (now := used()) >= wanted:
            break
    note = f"of {reachable} reachable codes in use after revival ({first} before)"
    return kept(now, note) if now >= wanted else broken(now, note)


def claims_revival(module: nn.Module) -> bool:
    """Whether names of methods or settings say that dead codes are replaced, and no setting of 0 turns it off."""
    settings, methods = [], []
    for sub in module.modules():
        settings += [v for k, v in vars(sub).items() if CLAIMS.search(k) and isinstance(v, bool | int | float)]
        methods += [k for k in dir(type(sub)) if CLAIMS.search(k) and not hasattr(nn.Module, k)]
    return bool(settings or methods) and all(settings)

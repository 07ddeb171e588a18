"""Laws of how a stranger's codebook moves, watched from outside between forward passes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vqtool.conformance.law import Law, Verdict, broken, kept, not_applicable, within
from vqtool.conformance.stranger import TOKENS, Book, Stranger, matching
from vqtool.conformance.subject import changed, snapshot

NO_BOOK = "its codebook was not found among its tensors"
CLAIMS = re.compile(r"expir|reviv|restart|dead|reset_code|re_?init_?code|replace|refresh", re.IGNORECASE)
PATIENCE = 400  # training steps in which revival has to show


def books_of(stranger: Stranger) -> list[Book]:
    """The stranger's codebooks, one per level; empty if its outputs are no sum of rows of its tensors."""
    if "books" not in stranger.notes:
        module = stranger.warm(train=False)
        before = snapshot(module)
        with torch.no_grad():
            seen = stranger.see(module, stranger.tokens())
        stranger.notes["books"] = matching(module, before, seen, stranger.dim)
    return stranger.notes["books"]


def given_by_level(x: Tensor, codes: Tensor, tables: Sequence[Tensor]) -> list[Tensor]:
    """What each level was given [N, D] in float64: the input less the codes of the levels before."""
    rest, given = x.double(), []
    for level, table in enumerate(tables):
        given.append(rest)
        rest = rest - table.detach().double()[codes[:, level]]
    return given


def rows_now(stranger: Stranger, module: nn.Module) -> list[Tensor]:
    """Copies of all codebooks."""
    return [book.rows(module).detach().clone() for book in books_of(stranger)]


def follows(stranger: Stranger) -> Verdict | None:
    """None if a training pass updates state, so that laws of moving averages apply; else why not."""
    if not books_of(stranger):
        return not_applicable(NO_BOOK)
    module = stranger.warm()
    before = snapshot(module)
    stranger.see(module, stranger.tokens(7))
    if not any(before[n].is_floating_point() for n in changed(module, before) if n in before):
        return not_applicable("nothing is updated in its forward")
    return None


def ema_follows_inputs(stranger: Stranger) -> Verdict:
    if (reason := follows(stranger)) is not None:
        return reason
    module = stranger.warm()
    shares = []
    for salt in range(4):
        before = rows_now(stranger, module)
        x = stranger.tokens(20 + salt, scale=1.5, offset=0.3)  # the encoder has moved on
        codes = stranger.see(module, x).codes
        assert codes is not None
        after = rows_now(stranger, module)
        for level, given in enumerate(given_by_level(x, codes, before)):
            counts = torch.bincount(codes[:, level], minlength=before[level].shape[0])
            sums = torch.zeros(before[level].shape, dtype=torch.float64).index_add_(0, codes[:, level], given)
            often = counts >= counts.max().clamp_max(2)
            way = (sums / counts.clamp_min(1)[:, None] - before[level].double())[often]
            gone = (after[level].double() - before[level].double())[often]
            shares.append((gone * way).sum(1) / way.square().sum(1).clamp_min(1e-20))
    share = min(float(s.median()) for s in shares)
    return kept(share, SHARE) if share > 1e-4 else broken(share, SHARE)


SHARE = "median share of the way to the mean of its inputs that a chosen code goes in a step"


def ema_start(stranger: Stranger) -> Verdict:
    if (reason := follows(stranger)) is not None:
        return reason
    module, worst = stranger.new(), 1.0
    for salt in range(4):
        before = rows_now(stranger, module)
        x = stranger.tokens(30 + salt, windows=3)  # few: a start shows on the codes that nobody chose
        stranger.see(module, x)
        inputs = x.norm(dim=1)
        for level, (a, b) in enumerate(zip(before, rows_now(stranger, module), strict=True)):
            largest = float(b.norm(dim=1).max() / torch.maximum(a.norm(dim=1).max(), inputs.max()))
            floor = a.norm(dim=1).median()
            if salt == 0:  # a start from data may legitimately shrink a random codebook to the size of the data
                floor = torch.minimum(floor, inputs.median()) if level == 0 else floor * 0
            shrunk = float(floor / b.norm(dim=1).median().clamp_min(1e-12 * float(inputs.median())))
            worst = max(worst, largest, shrunk)
    return within(worst, 4.0, "factor by which one of the first steps blew up or shrank the codebook")


def one_owner(stranger: Stranger) -> Verdict:
    books = books_of(stranger)
    if not books:
        return not_applicable(NO_BOOK)
    module = stranger.warm()
    before = rows_now(stranger, module)
    seen = stranger.see(module, stranger.tokens(8).requires_grad_())
    moved = any(not torch.equal(a, b) for a, b in zip(before, rows_now(stranger, module), strict=True))
    parts = [t.sum() for t in (seen.value, *seen.losses) if t.requires_grad]
    if not moved:
        return not_applicable("only the optimizer moves its codebook")
    if parts:
        torch.stack(parts).sum().backward()
    named = dict(module.named_parameters())
    grads = [named[b.name].grad for b in books if b.name in named]
    size = sum(float(g.norm()) for g in grads if g is not None)
    return within(size, 0.0, "size of a loss's gradient by a codebook that its own update moves too")


def unused_code_rests(stranger: Stranger) -> Verdict:
    if (reason := follows(stranger)) is not None:
        return reason
    module = stranger.warm()
    few = stranger.tokens(9)[:4]
    x = few.repeat(TOKENS // 4 + 1, 1)[:TOKENS]
    book = books_of(stranger)[0]
    start = book.rows(module).detach().clone()
    used = torch.zeros(start.shape[0], dtype=torch.bool)
    for _ in range(150):
        codes = stranger.see(module, x).codes
        assert codes is not None
        used[codes[:, 0]] = True
    now = book.rows(module).detach()
    revived = torch.cdist(now, few).amin(1) < 0.05 * few.norm(dim=1).median()
    resting = ~used & ~revived
    if not bool(resting.any()):
        return not_applicable("every code was chosen or revived")
    drift = float(((now - start).norm(dim=1) / start.norm(dim=1).clamp_min(1e-12))[resting].max())
    return within(drift, 1e-4, "largest relative motion of a code in 150 steps in which nobody chose it")


def revival_holds(stranger: Stranger) -> Verdict:
    if (reason := follows(stranger)) is not None:
        return reason
    module = stranger.warm()
    if not claims_revival(module):
        return not_applicable("it does not claim to revive codes")
    offset = 30.0

    def used() -> int:
        with torch.no_grad():
            codes = stranger.see(module.eval(), stranger.tokens(3, offset=offset)).codes
        module.train()
        assert codes is not None
        return int(codes[:, 0].unique().numel())

    first = now = used()
    reachable = min(books_of(stranger)[0].rows(module).shape[0], stranger.tokens().shape[0])
    wanted = max(2 * first, reachable // 4)
    for step in range(PATIENCE):  # the inputs went elsewhere: all codes but a few are dead
        stranger.see(module, stranger.tokens(200 + step, offset=offset), seed=step)
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


LAWS: tuple[Law[Stranger], ...] = (
    Law("ema-follows-inputs", ema_follows_inputs),
    Law("ema-start", ema_start),
    Law("one-owner", one_owner),
    Law("unused-code-rests", unused_code_rests),
    Law("revival-holds", revival_holds),
)

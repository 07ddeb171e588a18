"""Laws of how a foreign module's codebook moves, watched from outside between training passes."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from vqtool.conformance.codebooks import everything, given, levels_of, rows_now, widths_of
from vqtool.conformance.foreign_laws import needs_forward
from vqtool.conformance.foreign_module import TOKENS, ForeignModule
from vqtool.conformance.law import Laws, NoSuchFeature, NotApplicable, Verdict, broken, kept, not_applicable, within
from vqtool.conformance.subject import clustered

LAWS: Laws[ForeignModule] = Laws()

CLAIMS = re.compile(r"expir|reviv|restart|dead|reset_code|re_?init_?code|replace|refresh", re.IGNORECASE)
PATIENCE = 400  # training steps in which revival has to show
SETTLED = 0.75  # share of the way to its batch's mean that a code of a settled average may go in a step
PASSES = 20  # in which every level must be trained


def moves_itself(foreign: ForeignModule) -> bool:
    """Whether a training pass moves the codebook, without an optimizer."""
    if "moves" not in foreign.notes:
        module = foreign.warmed_up()
        before = rows_now(foreign, module)
        foreign.step(module, foreign.tokens(7))
        after = rows_now(foreign, module)
        foreign.notes["moves"] = any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    return bool(foreign.notes["moves"])


def needs_own_updates(foreign: ForeignModule) -> None:
    """For laws of moving averages."""
    needs_forward(foreign)
    if not moves_itself(foreign):
        raise NotApplicable("only the optimizer moves its codebook")


def trained(foreign: ForeignModule, module: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer | None) -> Tensor:
    """One training step, by an optimizer of its losses too where there is one; the codes [N, Q]."""
    seen = foreign.see(module, x)
    if optimizer is not None and seen.loss is not None:
        optimizer.zero_grad()
        seen.loss.backward()
        optimizer.step()
    foreign.after(module)
    return seen.codes


def optimizer_of(module: nn.Module) -> torch.optim.Optimizer | None:
    """Plain gradient descent on its weights, which moves nothing that has no gradient."""
    weights = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.SGD(weights, lr=1e-2) if weights else None


@LAWS
def ema_follows_inputs(foreign: ForeignModule) -> Verdict:
    needs_own_updates(foreign)
    module = foreign.warmed_up()
    first = share_of_way(foreign, module, 4)
    if first is None:
        return not_applicable("what its codes are chosen for was not found")
    if not first > 1e-4:
        return broken(first, SHARE, "fatal")
    for salt in range(30):
        foreign.step(module, foreign.tokens(50 + salt, scale=1.5, offset=0.3))
    settled = share_of_way(foreign, module, 4)
    if settled is not None and settled > SETTLED:
        return broken(settled, f"{SHARE}, of averages that have settled: it forgets all but the last batch")
    return kept(first, SHARE)


SHARE = "median share of the way to the mean of its inputs that a chosen code goes in a step"


def share_of_way(foreign: ForeignModule, module: nn.Module, steps: int) -> float | None:
    """The median share, of the level with the least."""
    found: list[Tensor] = []
    names = [level.book for level in levels_of(foreign)]
    for salt in range(steps):
        before = rows_now(foreign, module)
        x = foreign.tokens(20 + salt, scale=1.5, offset=0.3)  # the encoder has moved on
        with torch.no_grad():
            seen = foreign.see(module, x, widths=widths_of(foreign))
        foreign.after(module)
        after = rows_now(foreign, module)
        inputs = given(foreign, x, seen, before)
        for i in [names.index(book) for book in dict.fromkeys(names)]:  # levels that share a book move it together
            own = [one for one, book in zip(inputs, names, strict=False) if book == names[i]]
            if any(one is None for one in own):
                continue
            codes = torch.cat([one.codes for one in own if one is not None])
            points = torch.cat([one.points for one in own if one is not None])[codes >= 0]
            codes = codes[codes >= 0]
            if not len(codes):
                continue
            counts = torch.bincount(codes, minlength=len(before[i]))
            sums = torch.zeros(before[i].shape, dtype=torch.float64).index_add_(0, codes, points)
            often = counts >= counts.max().clamp_max(2)
            way = (sums / counts.clamp_min(1)[:, None] - before[i].double())[often]
            gone = (after[i].double() - before[i].double())[often]
            found.append((gone * way).sum(1) / way.square().sum(1).clamp_min(1e-20))
    return min(float(s.median()) for s in found) if found else None


@LAWS
def ema_start(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    levels_of(foreign)
    module, worst = foreign.new(), 1.0
    optimizer = None if moves_itself(foreign) else optimizer_of(module)
    for salt in range(4):
        before = rows_now(foreign, module)
        x = foreign.tokens(30 + salt, windows=3)  # few: a start shows on the codes that nobody chose
        trained(foreign, module, x, optimizer)
        inputs = x.norm(dim=1)
        for level, (a, b) in enumerate(zip(before, rows_now(foreign, module), strict=True)):
            largest = float(b.norm(dim=1).max() / torch.maximum(a.norm(dim=1).max(), inputs.max()))
            floor = a.norm(dim=1).median()
            if salt == 0:  # a start from data may legitimately shrink a random codebook to the size of the data
                floor = torch.minimum(floor, inputs.median()) if level == 0 else floor * 0
            shrunk = float(floor / b.norm(dim=1).median().clamp_min(1e-12 * float(inputs.median())))
            if not (largest < float("inf") and bool(b.isfinite().all())):
                return broken(None, "one of the first steps made codes that are not finite", "fatal")
            worst = max(worst, largest, shrunk)
    return within(worst, 4.0, "factor by which one of the first steps blew up or shrank the codebook")


@LAWS
def one_owner(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    levels = levels_of(foreign)
    if not moves_itself(foreign):
        return kept(0.0, "motion of its codebook but by the optimizer")
    module = foreign.warmed_up()
    seen = foreign.see(module, foreign.tokens(8).requires_grad_())
    parts = [t.sum() for t in (seen.value, *seen.losses) if t.requires_grad]
    if parts:
        torch.stack(parts).sum().backward()
    named = dict(module.named_parameters())
    grads = [named[level.book.name].grad for level in levels if level.book.name in named]
    size = sum(float(g.norm()) for g in grads if g is not None)
    return within(size, 0.0, "size of a loss's gradient by a codebook that its own update moves too")


@LAWS
def unused_code_rests(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    module = foreign.warmed_up()
    optimizer = None if moves_itself(foreign) else optimizer_of(module)
    few = foreign.tokens(9)[:4]
    x = few.repeat(TOKENS // 4 + 1, 1)[:TOKENS]
    book = levels_of(foreign)[0].book
    start = book.rows(module).detach().clone()
    used = torch.zeros(start.shape[0], dtype=torch.bool)
    for _ in range(150):
        used[trained(foreign, module, x, optimizer)[:, 0].clamp_min(0)] = True
    now = book.rows(module).detach().clone()
    near = few if few.shape[1] == now.shape[1] else start[used]
    revived = torch.cdist(now, near).amin(1) < 0.05 * near.norm(dim=1).median()
    resting = ~used & ~revived
    if not bool(resting.any()):
        return not_applicable("every code was chosen or reinitialised")
    if after_a_long_rest(foreign, module, resting, x):
        return broken(None, "codes are not finite after a rest so long that their counts are 0", "fatal")
    drift = float(((now - start).norm(dim=1) / start.norm(dim=1).clamp_min(1e-12))[resting].max())
    if optimizer is not None and drift > 1e-4:
        return not_applicable("a term of its loss moves codes that nobody chose")
    return within(drift, 1e-4, "largest relative motion of a code in 150 steps in which nobody chose it")


@torch.no_grad()
def after_a_long_rest(foreign: ForeignModule, module: nn.Module, resting: Tensor, x: Tensor) -> bool:
    """Whether a step makes codes not finite whose counts and sums have decayed to 0."""
    books = {level.book.name for level in levels_of(foreign)}
    if not moves_itself(foreign):
        return False
    for name, t in everything(module).items():
        if name in books or not t.is_floating_point() or (t.requires_grad and t.grad_fn is not None):
            continue
        if t.ndim and t.shape[0] == len(resting):
            t[resting] = 0
        elif t.ndim and t.shape[-1] == len(resting):
            t[..., resting] = 0
    foreign.step(module, x)
    return any(not bool(rows.isfinite().all()) for rows in rows_now(foreign, module))


@LAWS
def every_level_trained(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    levels, module = levels_of(foreign), foreign.warmed_up()
    reached = [False] * len(levels)
    for salt in range(PASSES):
        before = rows_now(foreign, module)
        seen = foreign.see(module, foreign.tokens(60 + salt).requires_grad_(), seed=salt)
        module.zero_grad()
        parts = [t.sum() for t in (seen.loss, *seen.outputs) if t is not None and t.requires_grad]
        if parts:
            torch.stack(parts).sum().backward()
        foreign.after(module)
        named = dict(module.named_parameters())
        for i, (level, old, new) in enumerate(zip(levels, before, rows_now(foreign, module), strict=True)):
            grad = named[level.book.name].grad if level.book.name in named else None
            part = None if grad is None else level.book.rows({level.book.name: grad})
            reached[i] |= not torch.equal(old, new) or (part is not None and bool(part.any()))
    if not any(reached):
        return not_applicable("nothing trains its codebook")
    note = f"of {len(levels)} levels are never trained in {PASSES} passes"
    return within(len(levels) - sum(reached), 0, note)


@LAWS
def revival_holds(foreign: ForeignModule) -> Verdict:
    if not claims_revival(foreign.new()):
        raise NoSuchFeature("it does not claim to reinitialise dead codes")
    needs_own_updates(foreign)
    module = foreign.warmed_up()

    def tokens(salt: int) -> Tensor:
        return clustered(foreign.tokens(salt, offset=30.0), salt, foreign.spread)

    def used() -> int:
        with torch.no_grad():
            codes = foreign.see(module.eval(), tokens(3)).codes
        module.train()
        return int(codes[:, 0].unique().numel())

    first = now = used()
    reachable = min(rows_now(foreign, module)[0].shape[0], foreign.tokens().shape[0])
    wanted = max(2 * first, reachable // 4)
    for step in range(PATIENCE):  # the inputs went elsewhere: all codes but a few are dead
        foreign.step(module, tokens(200 + step), seed=step)
        if step % 20 == 19 and (now := used()) >= wanted:
            break
    note = f"of {reachable} reachable codes in use after reinitialising ({first} before)"
    return kept(now, note) if now >= wanted else broken(now, note)


def claims_revival(module: nn.Module) -> bool:
    """Whether names of methods or settings say that dead codes are replaced, and no setting of 0 turns it off."""
    settings, methods = [], []
    for sub in module.modules():
        settings += [v for k, v in vars(sub).items() if CLAIMS.search(k) and isinstance(v, bool | int | float)]
        methods += [k for k in dir(type(sub)) if CLAIMS.search(k) and not hasattr(nn.Module, k)]
    return bool(settings or methods) and all(settings)

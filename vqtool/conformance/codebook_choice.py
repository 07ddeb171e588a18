"""The laws of nearest codes on a foreign module: on its own scale, by any of the usual rules, and under stress."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.conformance.codebooks import (
    EXPLAINED,
    Book,
    Given,
    columns,
    given,
    holding,
    levels_of,
    misses,
    rows_now,
    widths_of,
)
from vqtool.conformance.foreign_module import TOKENS, ForeignModule, Seen
from vqtool.conformance.law import Laws, NotApplicable, Verdict, broken, not_applicable, within
from vqtool.conformance.subject import state_of
from vqtool.conformance.words import Grade

LAWS: Laws[ForeignModule] = Laws()

COUNTED = "tokens have a nearer code in float64"
PLENTY = 28  # windows: about a thousand tokens, or what the budget of differences allows
BUDGET = 10**9


@LAWS
def nearest_code(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up(train=False)
    work = sum(rows.numel() for rows in rows_now(foreign, module)) * TOKENS
    x = foreign.tokens(windows=min(max(BUDGET // work, 4), PLENTY))
    seen, found = choices(foreign, module, x)
    levels = levels_of(foreign)
    count, total, rules = 0, 0, []
    for i, one in enumerate(found):
        if one is None:
            continue
        wrong, total = misses(one), total + len(x)
        if wrong > EXPLAINED * len(x) and levels[i].plain:
            excuse = other_rule(foreign, module, x, one, seen)
            if excuse:
                return not_applicable(excuse)
        count += wrong
        rules += [one.rule] if one.rule else []
    if not total:
        raise NotApplicable(other_rule(foreign, module, x, None, seen) or "what its codes are chosen for was not found")
    first = found[0]
    if first is not None and levels[0].plain and count <= EXPLAINED * total and not first.rule:
        wrong = set_table(foreign, module, x)
        if wrong:
            grade: Grade | None = "fatal" if wrong > EXPLAINED * len(x) else None
            note = f"of {len(x)} {COUNTED} where its codebook is like its inputs"
            return broken(wrong, note, grade)
    said = f" ({rules[0]})" if rules else ""
    return within(count, 0, f"of {total} {COUNTED}{said}", "fatal" if count > EXPLAINED * total else None)


@LAWS
def nearest_code_stress(foreign: ForeignModule) -> Verdict:
    level = levels_of(foreign)[0]
    module, x = foreign.warmed_up(train=False), foreign.tokens()
    _, found = choices(foreign, module, x)
    first = found[0]
    if first is None or misses(first) > EXPLAINED * len(x):
        return not_applicable("on its own scale its codes are not the nearest: see nearest-code")
    with holding(module, level.book, level.book.rows(module).detach().flip(0)):
        _, turned = choices(foreign, module, x)
    unread = not takes(foreign, module, level.book)
    if unread or turned[0] is None or misses(turned[0]) > 0.1 * len(x):
        return not_applicable("it does not take a table that is set")
    own = level.book.rows(module).detach().clone()
    norms = own.norm(dim=1)
    sphere = bool((norms - norms.mean()).abs().max() <= 1e-3 * norms.mean())
    trials = {"scale 1e-5": (own * 1e-5, x * 1e-5)}
    if level.plain and not sphere and not first.rule:
        trials = {"offset 1e3": (own + 1e3, x + 1e3)} | trials
    count = 0
    for rows, inputs in trials.values():
        with holding(module, level.book, rows):
            seen, now = choices(foreign, module, inputs)
            one = now[0]
            if level.plain and level.map.shape[1] == inputs.shape[1] and not first.rule:
                one = Given(inputs.double() @ level.map.t(), rows.double(), columns(foreign, seen)[0])
            count += misses(one) if one is not None else 0
    return within(count, 0, f"of {len(trials) * x.shape[0]} {COUNTED} ({', '.join(trials)})")


def choices(foreign: ForeignModule, module: nn.Module, x: Tensor, *, seed: int = 0) -> tuple[Seen, list[Given | None]]:
    """What each level was given, and its codes."""
    rows = rows_now(foreign, module)  # before: a faulty module moves them in evaluation too
    with torch.no_grad():
        seen = foreign.see(module, x, seed=seed, widths=widths_of(foreign))
    return seen, given(foreign, x, seen, rows)


def takes(foreign: ForeignModule, module: nn.Module, book: Book) -> bool:
    """Whether the rows that its tensor holds are what its codes are chosen by."""
    x = foreign.tokens()
    with torch.no_grad():
        codes = foreign.see(module, x).codes[:, 0]
        with holding(module, book, book.rows(module).detach().flip(0)):
            turned = foreign.see(module, x).codes[:, 0]
    return not torch.equal(codes, turned)


def set_table(foreign: ForeignModule, module: nn.Module, x: Tensor) -> int:
    """Tokens without their nearest code where the first codebook holds rows like its inputs; 0 if that cannot be set.

    A codebook of small rows hides a wrong distance: their squares hardly matter.
    """
    level = levels_of(foreign)[0]
    own = level.book.rows(module).detach().clone()
    norms = own.norm(dim=1)
    if level.book.unit or bool((norms - norms.mean()).abs().max() <= 1e-3 * norms.mean()):
        return 0  # on a sphere, it may be cosine just as well
    turned = own.flip(0)
    with holding(module, level.book, turned):
        _, found = choices(foreign, module, x)
        if found[0] is None or misses(found[0]) > 0.1 * len(x):
            return 0  # it does not take a table that is set
    like = foreign.tokens(40, windows=own.shape[0] // TOKENS + 1)[: own.shape[0], : own.shape[1]].to(own)
    with holding(module, level.book, like):
        seen, found = choices(foreign, module, x)
        one = found[0]
        if one is None or one.rule or other_rule(foreign, module, x, one, seen):
            return 0
        return misses(one)


def other_rule(foreign: ForeignModule, module: nn.Module, x: Tensor, one: Given | None, seen: Seen) -> str | None:
    """A rule other than the distance to the input that explains the codes, in words; None if there is none."""
    with torch.no_grad():
        again = foreign.see(module, x, seed=1).codes
    if not torch.equal(again, seen.codes):
        return "its codes are drawn by chance"
    if not takes(foreign, module, levels_of(foreign)[0].book):  # logits, or a table beside codes that come of rounding
        return "its codes do not depend on what its table holds"
    if one is not None:
        known = {
            "by cosine": (F.normalize(one.points, dim=1), F.normalize(one.rows, dim=1)),
            "to the normalised input": (F.normalize(one.points, dim=1), one.rows),
            "to the standardised input": (F.layer_norm(one.points, one.points.shape[1:]), one.rows),
        }
        for name, (points, rows) in known.items():
            if misses(Given(points, rows, one.codes)) <= EXPLAINED * len(x):
                return f"its codes are the nearest {name}"
    if joint(foreign, module, x, seen):
        return "its levels are chosen together"
    return "a learned map stands before its codes" if mapped(foreign, module, x) else None


def joint(foreign: ForeignModule, module: nn.Module, x: Tensor, seen: Seen) -> bool:
    """Whether its levels together come closer to the input than those that are nearest one by one, as a search does."""
    levels, rows = levels_of(foreign), rows_now(foreign, module)
    if len(levels) < 2 or any(level.map.shape[0] != x.shape[1] or not level.plain for level in levels):
        return False
    greedy = own = x.double()
    for level, table, codes in zip(levels, rows, columns(foreign, seen), strict=False):
        nearest = torch.cdist(greedy @ level.map.t(), table.double()).argmin(1)
        greedy, own = greedy - level.values(table, nearest), own - level.values(table, codes)
    return bool(own.square().sum() <= greedy.square().sum())


def mapped(foreign: ForeignModule, module: nn.Module, x: Tensor) -> bool:
    """Whether the choice depends on another tensor than the codebooks: a projection, the weights of a norm."""
    with torch.no_grad():
        codes = foreign.see(module, x).codes[:, 0]
    books = {level.book.name for level in levels_of(foreign)}
    generator = torch.Generator().manual_seed(0)
    for name, t in state_of(module).items():
        if name in books or not t.is_floating_point() or t.numel() < 2:
            continue
        noise = torch.randn(t.shape, generator=generator).to(t)
        with holding(module, Book(name), t.detach() + noise * (t.detach().std() + 1e-3)), torch.no_grad():
            if not torch.equal(foreign.see(module, x).codes[:, 0], codes):
                return True
    return False

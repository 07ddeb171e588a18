"""Laws of what a foreign module's losses do: they bring the encoder to the codes, and the codes to the encoder."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from vqtool.conformance.codebooks import (
    Book,
    attached,
    columns,
    found_levels,
    given,
    levels_of,
    rows_now,
    widths_of,
)
from vqtool.conformance.foreign_laws import needs_forward
from vqtool.conformance.foreign_module import ForeignModule, Seen, perplexity
from vqtool.conformance.gradient_laws import gradient_of
from vqtool.conformance.law import Laws, NotApplicable, Verdict, broken, kept, not_applicable, within
from vqtool.conformance.own_quantizers import holds_own
from vqtool.conformance.subject import changed, rows_for, snapshot

LAWS: Laws[ForeignModule] = Laws()

AWAY = -0.5  # of a cosine: further terms of a loss may turn its gradient, but not round
UPSIDE_DOWN = 1.5  # commitment to codebook weight; the first papers have 0.25 to 2 with 1 as the largest in use since
STEPS, RATE = 60, 0.05  # of the descent that must not concentrate codes


@LAWS
def commitment_reaches_encoder(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    module = foreign.warmed_up()
    x = foreign.tokens().requires_grad_()
    before = rows_now(foreign, module) if found_levels(foreign) else []
    seen = foreign.see(module, x)
    if not seen.losses:
        return not_applicable("it returns no loss")
    if seen.loss is None:
        like = distance_like(foreign)
        return broken(0.0, "its loss carries no gradient at all") if like else not_applicable("it returns no loss")
    gradient = torch.autograd.grad(seen.loss, x, retain_graph=True, allow_unused=True)[0]
    size = "size of the loss's gradient by the encoder's output"
    if gradient is None or float(gradient.abs().max()) == 0:
        cut = found_levels(foreign) and cut_before_codes(foreign)
        return (
            broken(0.0, size, "fatal") if cut or distance_like(foreign) else not_applicable("its loss has another aim")
        )
    levels = found_levels(foreign)
    if len(levels) > 1 and all(level.plain and level.map.shape[1] == x.shape[1] for level in levels):
        with torch.no_grad():
            again = foreign.see(foreign.warmed_up(), x.detach(), widths=widths_of(foreign))
        spheres = [bool(rows.norm(dim=1).std() < 1e-3 * rows.norm(dim=1).mean()) for rows in before]
        if not any(spheres) and all(one is not None and not one.rule for one in given(foreign, x, again, before)):
            return every_level(foreign, before, x, seen, gradient)
        return kept(float(gradient.norm()), size)
    if not levels and seen.value.shape != x.shape:
        return kept(float(gradient.norm()), size)
    if levels and (levels[0].map.shape[1] != x.shape[1] or not levels[0].plain):
        return kept(float(gradient.norm()), size)
    aim = levels[0].values(before[0], columns(foreign, seen)[0]) if levels else seen.value.detach()
    if not levels and float((x.detach() - aim).norm()) > float(x.detach().norm()):
        return kept(float(gradient.norm()), size)  # behind maps that have yet to learn: its value is near no input
    away = cosine(gradient, x.detach() - aim)
    turned = cosine(gradient, angle_gradient(x, aim))
    if away < AWAY or (turned < AWAY and away < -AWAY):
        note = "cosine of the loss's gradient with input less code: its descent parts the two"
        return broken(away, note, "fatal")
    return kept(float(gradient.norm()), size)


def cut_before_codes(foreign: ForeignModule) -> bool:
    """Whether the loss pulls what the first codes are chosen for, and its gradient stops before the input."""
    seen, source = attached(foreign, foreign.warmed_up(), 0, foreign.tokens().requires_grad_())
    if source is None or seen.loss is None:
        return False
    found = gradient_of(seen.loss, source.tensor)
    return found is not None and bool(found.any())


def angle_gradient(x: Tensor, aim: Tensor) -> Tensor:
    """The gradient by `x` of its angle to `aim`, as far as a loss of normalised vectors goes."""
    free = x.detach().clone().requires_grad_()
    distance = (1 - torch.cosine_similarity(free, aim.to(free), dim=1)).sum()
    return torch.autograd.grad(distance, free)[0]


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two tensors taken as one vector each."""
    a, b = a.double(), b.double()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-300))


def shares(foreign: ForeignModule, before: list[Tensor], x: Tensor, seen: Seen, gradient: Tensor) -> Tensor:
    """The factor of each level's residual [Q] in the gradient of the loss by x (least squares over levels)."""
    rest, parts = x.detach().double(), []
    for level, table, codes in zip(levels_of(foreign), before, columns(foreign, seen), strict=False):
        own = (level.map.abs().sum(0) > 1e-6).double()  # a group's features
        rest = rest - level.values(table, codes)
        parts.append((rest * own * (codes >= 0)[:, None]).reshape(-1))
    design = torch.stack(parts, 1)
    design = design[:, design.abs().amax(0) > 0]  # a level that no token took has no share to find
    return torch.linalg.lstsq(design, gradient.reshape(-1, 1).double(), driver="gelsd").solution.squeeze(1)


def every_level(foreign: ForeignModule, before: list[Tensor], x: Tensor, seen: Seen, gradient: Tensor) -> Verdict:
    """Whether each level's residual has its share in the gradient of the losses, or of one that has no other aim."""
    losses = [t.sum() for t in seen.losses if t.requires_grad]
    each = [torch.autograd.grad(loss, x, retain_graph=True, allow_unused=True)[0] for loss in losses]
    found = [shares(foreign, before, x, seen, some) for some in (gradient, *each) if some is not None]
    least = max((float((level / level.abs().max()).min()) for level in found if bool(level.any())), default=0.0)
    note = "smallest share of a level in the loss's gradient, to the largest"
    return broken(least, note) if least < 1e-2 else kept(least, note)


def distance_like(foreign: ForeignModule) -> bool:
    """Whether some loss is in a fixed ratio to the mean squared distance of input and output."""
    ratios = []
    for salt, scale in ((1, 1.0), (2, 1.7)):
        x = foreign.tokens(salt, scale=scale)
        seen = foreign.see(foreign.warmed_up(), x)
        if seen.value.shape != x.shape:
            return False
        distance = (x - seen.value.detach()).square().mean()
        ratios.append(torch.stack([t.detach().float().sum() for t in seen.losses]) / distance)
    close = ((ratios[0] / ratios[1] - 1).abs() < 0.05) & (ratios[0] > 0)
    return bool(close.any())


@LAWS
def codebook_learns(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    books = [level.book for level in levels_of(foreign)]
    module = foreign.warmed_up()
    start, named, snapshot_before = rows_now(foreign, module), dict(module.named_parameters()), snapshot(module)
    x = foreign.tokens(8)
    seen = foreign.step(module, x.clone().requires_grad_())
    moves = [not torch.equal(a, b) for a, b in zip(start, rows_now(foreign, module), strict=True)]
    if any(moves):
        by = ", updated as by vqtool.attach" if foreign.update is None and holds_own(module) else ""
        note = f"of its codebooks moved in a training pass{by}; where to, ema-follows-inputs judges"
        return kept(sum(moves), f"{sum(moves)} of {len(moves)} {note}")
    if not all(b.name in named and named[b.name].requires_grad for b in books):
        return rests(foreign, module, seen, snapshot_before)
    if seen.loss is None and not (seen.losses and distance_like(foreign)):
        return not_applicable("it returns no loss")
    gradients = by_table([] if seen.loss is None else [seen.loss], named, books)
    chosen = [bool((c >= 0).any()) for c in columns(foreign, seen)]
    if not all(bool(g.any()) for g, used in zip(gradients, chosen, strict=False) if used):
        through = by_table([t.sum() for t in seen.outputs if t.requires_grad], named, books)
        if not all(bool(g.any()) for g, used in zip(through, chosen, strict=False) if used):
            return broken(0.0, "size of the gradient of a codebook that nothing else moves")
        return kept(None, "trained by what is done with its outputs")
    with torch.no_grad():
        again = foreign.see(module, x, widths=widths_of(foreign))
    ways = []
    for one, gradient, codes in zip(given(foreign, x, again, start), gradients, columns(foreign, again), strict=False):
        if one is None or one.rule or not bool(gradient.any()):
            continue
        gone = (one.points - rows_for(one.rows, codes)) * (codes >= 0)[:, None]
        way = torch.zeros(one.rows.shape, dtype=torch.float64).index_add_(0, codes.clamp_min(0), gone)
        ways.append(cosine(-gradient, way))
    if not ways:
        return kept(None, "a gradient of its losses reaches it")
    worst = min(ways)
    note = "cosine of a codebook's step down the loss with its way to the inputs that chose it"
    return broken(worst, note, "fatal") if worst < AWAY else kept(worst, note)


def rests(foreign: ForeignModule, module: nn.Module, seen: Seen, before: dict[str, Tensor]) -> Verdict:
    """What a codebook means that neither a pass nor a gradient moves."""
    trained = trained_map(foreign, module, seen)
    if trained:
        return kept(None, f"its codes are trained by way of `{trained}`")
    books = [level.book for level in levels_of(foreign)]
    beside = averages(module, books)
    frozen = any(v is True and re.search("freez|frozen", k) for sub in module.modules() for k, v in vars(sub).items())
    if not beside or frozen:
        return not_applicable("its codebook is fixed")
    methods = [n for sub in module.modules() for n in dir(type(sub)) if "update" in n and not hasattr(nn.Module, n)]
    if set(beside) & set(changed(module, before)) and methods and foreign.update is None:
        return not_applicable(
            f"its averages move, its codebook does not: name what applies them, --update {methods[0]}"
        )
    return broken(0.0, "motion of its codebook in training, which has averages beside it", "fatal")


def trained_map(foreign: ForeignModule, module: nn.Module, seen: Seen) -> str | None:
    """The name of a weight that a gradient reaches and that its code vectors depend on, as the map of SimVQ."""
    if all(level.plain for level in levels_of(foreign)) or seen.loss is None:
        return None
    named = {n: p for n, p in module.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(seen.loss, list(named.values()), retain_graph=True, allow_unused=True)
    return next((n for n, g in zip(named, found, strict=True) if g is not None and bool(g.any())), None)


def averages(module: nn.Module, books: list[Book]) -> list[str]:
    """The names of statistics of codes beside the codebook: other tensors with as many rows."""
    names, size = {b.name for b in books}, books[0].rows(module).shape[0]
    others = {n: t for n, t in module.named_buffers() if n not in names and t.is_floating_point()}
    return [n for n, t in others.items() if t.ndim >= 1 and size in t.shape and t.numel() > 1]


def by_table(parts: list[Tensor], named: dict[str, nn.Parameter], books: list[Book]) -> list[Tensor]:
    """The gradient of the sum of `parts` by each codebook [K, d]."""
    wanted = {b.name: named[b.name] for b in books}
    if not parts:
        return [torch.zeros_like(b.rows(wanted)) for b in books]
    found = torch.autograd.grad(torch.stack(parts).sum(), list(wanted.values()), retain_graph=True, allow_unused=True)
    full = {n: torch.zeros_like(wanted[n]) if g is None else g for n, g in zip(wanted, found, strict=True)}
    plain = [Book(b.name, b.index, b.transposed) for b in books]
    return [b.rows(full).detach() for b in plain]


@LAWS
def commitment_ratio(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    levels, module = levels_of(foreign), foreign.warmed_up()
    named, book = dict(module.named_parameters()), levels[0].book
    if book.name not in named or not named[book.name].requires_grad:
        return not_applicable("its codebook is not trained by a loss, which would have a weight")
    x, before = foreign.tokens().requires_grad_(), rows_now(foreign, module)
    seen, source = attached(foreign, module, 0, x)
    if seen.loss is None:
        return not_applicable("it returns no loss")
    if source is None:
        return not_applicable("what its codes are chosen for was not found")
    by_rows = by_table([seen.loss], named, [book])[0].double()
    gradient, by_input = torch.autograd.grad(seen.loss, [source.tensor, x], allow_unused=True)
    if gradient is None or not bool(gradient.any()) or not bool(by_rows.any()):
        return not_applicable("its loss trains one of the two only")
    codes = columns(foreign, seen)[0]
    gone = source.points - rows_for(before[0].double(), codes)
    way = torch.zeros(before[0].shape, dtype=torch.float64).index_add_(0, codes.clamp_min(0), gone)
    codebook = float(-(by_rows * way).sum() / way.square().sum())
    if len(levels) > 1 and levels[0].plain:
        commitment = float(shares(foreign, before, x, seen, by_input)[0])
    else:
        pull = source.as_points(gradient)
        commitment = float((pull * gone).sum() / gone.square().sum())
        if min(cosine(pull, gone), cosine(-by_rows, way)) < 0.8:
            return not_applicable("its loss is not the distance of inputs and codes")
    if not (codebook > 0 and commitment > 0):
        return not_applicable("its loss trains one of the two only")
    return within(commitment / codebook, UPSIDE_DOWN, "weight of the commitment to that of the codebook loss")


@LAWS
def loss_spreads_codes(foreign: ForeignModule) -> Verdict:
    needs_forward(foreign)
    if token_by_token(foreign):
        return kept(None, "its loss is a mean over tokens: no term depends on how they share the codes")
    module = foreign.warmed_up()
    trials = [foreign.tokens(windows=14, scale=scale) for scale in (1.0, 3.0, 0.3)]
    before = [used(foreign, module, x) for x in trials]
    if not before[0]:
        return not_applicable("it returns no codes")
    first = [max(u) for u in before]
    scale = 0 if first[0] > 0.5 * max(first) else first.index(max(first))  # such that its codes are in use
    if first[scale] < 3:
        return not_applicable("its inputs use hardly any codes from the start")
    shift = torch.zeros(foreign.dim, requires_grad=True)  # of all inputs alike, as the bias of an encoder's last layer
    adam = torch.optim.Adam([shift], lr=RATE)
    for i in range(STEPS):
        loss = foreign.see(module.train(), trials[scale] + shift, seed=i).loss
        if loss is None or not loss.requires_grad:
            return not_applicable("it returns no loss")
        shift.grad = torch.autograd.grad(loss, shift, allow_unused=True)[0]
        if shift.grad is None:
            return not_applicable("its loss does not reach the encoder")
        adam.step()
        foreign.after(module)
    after = used(foreign, module, trials[scale] + shift.detach())
    ratio, start = max((b / a, a) for a, b in zip(before[scale], after, strict=False))
    note = f"perplexity of its codes after {STEPS} steps down its loss alone, to that before ({start:.3g})"
    return kept(ratio, note) if ratio > 0.5 else broken(ratio, note, "fatal")


@torch.no_grad()
def token_by_token(foreign: ForeignModule) -> bool:
    """Whether the loss of a batch is the mean (or sum) of those of its halves, as no term of diversity is."""
    x = foreign.tokens(windows=14)
    losses = []
    for part in (x, *x.chunk(2)):
        losses.append(
            torch.stack([t.double().sum() for t in foreign.see(foreign.warmed_up(), part).losses] or [x.sum() * 0])
        )
    whole, first, second = losses
    if not bool(whole.any()):
        raise NotApplicable("it returns no loss")
    sums = first + second
    return torch.allclose(whole, sums / 2, rtol=1e-4) or torch.allclose(whole, sums, rtol=1e-4)


def used(foreign: ForeignModule, module: nn.Module, x: Tensor) -> list[float]:
    """The perplexity of each level's codes in evaluation."""
    with torch.no_grad():
        codes = foreign.see(module.eval(), x.detach()).found_codes
    module.train()
    return [] if codes is None else [perplexity(column) for column in codes.unbind(1)]

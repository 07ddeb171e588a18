"""Laws of what a foreign module's losses do: they bring the encoder to the codes, and the codes to the encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqtool.conformance.codebook_motion import books_of, found_books, rows_now
from vqtool.conformance.foreign_module import Book, ForeignModule, Seen
from vqtool.conformance.gradient_laws import gradient_of
from vqtool.conformance.law import Laws, Verdict, broken, kept, not_applicable
from vqtool.conformance.subject import inputs_by_level, snapshot

LAWS: Laws[ForeignModule] = Laws()

AWAY = -0.5  # of a cosine: further terms of a loss may turn its gradient, but not round


@LAWS
def commitment_reaches_encoder(foreign: ForeignModule) -> Verdict:
    module = foreign.warmed_up()
    x = foreign.tokens().requires_grad_()
    before = snapshot(module)
    seen = foreign.see(module, x)
    if not seen.losses:
        return not_applicable("it returns no loss")
    trained = [t.sum() for t in seen.losses if t.requires_grad]
    if not trained:
        like = distance_like(foreign)
        return broken(0.0, "its loss carries no gradient at all") if like else not_applicable("it returns no loss")
    gradient = gradient_of(torch.stack(trained).sum(), x)
    if gradient is None or float(gradient.abs().max()) == 0:
        return broken(0.0, "size of the loss's gradient by the encoder's output")
    if len(found_books(foreign)) > 1:
        return every_level(foreign, before, x, seen, gradient)
    away = cosine(gradient, x.detach() - aim(foreign, before, seen))
    if away < AWAY:
        return broken(away, "cosine of the loss's gradient with input less code: its descent parts the two")
    return kept(float(gradient.norm()), "size of the loss's gradient by the encoder's output")


def aim(foreign: ForeignModule, before: dict[str, Tensor], seen: Seen) -> Tensor:
    """Where the input should go [N, D]: to the row of its code, or what flowed on where no codebook was found."""
    books = found_books(foreign)
    if not books:
        return seen.value.detach()
    return books[0].rows(before).detach()[seen.codes[:, 0]]


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two tensors taken as one vector each."""
    a, b = a.double(), b.double()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-300))


def every_level(foreign: ForeignModule, before: dict[str, Tensor], x: Tensor, seen: Seen, gradient: Tensor) -> Verdict:
    """Whether each level's residual has its share in the gradient of the loss (least squares over levels)."""
    books = books_of(foreign)
    tables = [book.rows(before) for book in books]
    given = inputs_by_level(x.detach(), seen.codes, tables)
    after = [g - t[seen.codes[:, i]].double() for i, (g, t) in enumerate(zip(given, tables, strict=True))]
    design = torch.stack([a.reshape(-1) for a in after], 1)
    shares = torch.linalg.lstsq(design, gradient.reshape(-1, 1).double()).solution.squeeze(1)
    least = float((shares / shares.abs().max()).min())
    if least < 1e-2:
        return broken(least, "smallest share of a level in the loss's gradient, to the largest")
    return kept(least, "smallest share of a level in the loss's gradient, to the largest")


def distance_like(foreign: ForeignModule) -> bool:
    """Whether some loss is in a fixed ratio to the mean squared distance of input and output."""
    ratios = []
    for salt, scale in ((1, 1.0), (2, 1.7)):
        x = foreign.tokens(salt, scale=scale)
        seen = foreign.see(foreign.warmed_up(), x)
        distance = (x - seen.value.detach()).square().mean()
        ratios.append(torch.stack([t.detach().float().sum() for t in seen.losses]) / distance)
    close = ((ratios[0] / ratios[1] - 1).abs() < 0.05) & (ratios[0] > 0)
    return bool(close.any())


@LAWS
def codebook_learns(foreign: ForeignModule) -> Verdict:
    books = books_of(foreign)
    module = foreign.warmed_up()
    start, named = rows_now(foreign, module), dict(module.named_parameters())
    x = foreign.tokens(8)
    seen = foreign.see(module, x.clone().requires_grad_())
    if any(not torch.equal(a, b) for a, b in zip(start, rows_now(foreign, module), strict=True)):
        return not_applicable("its forward moves its codebook; what becomes of it, ema-follows-inputs says")
    if not all(b.name in named and named[b.name].requires_grad for b in books):
        return broken(0.0, RESTS) if averages(module, books) else not_applicable("its codebook is fixed")
    losses = [t.sum() for t in seen.losses if t.requires_grad]
    if not losses and not (seen.losses and distance_like(foreign)):
        return not_applicable("it returns no loss")
    gradients = by_table(losses, named, books)
    if not all(bool(g.any()) for g in gradients):
        through = by_table([t.sum() for t in seen.outputs if t.requires_grad], named, books)
        if not all(bool(g.any()) for g in through):
            return broken(0.0, "size of the gradient of a codebook that nothing else moves")
        return kept(None, "trained by what is done with its outputs")
    ways = []
    for level, given in enumerate(inputs_by_level(x, seen.codes, start)):
        gone = given - start[level].double()[seen.codes[:, level]]
        way = torch.zeros(start[level].shape, dtype=torch.float64).index_add_(0, seen.codes[:, level], gone)
        ways.append(cosine(-gradients[level], way))
    worst = min(ways)
    note = "cosine of a codebook's step down the loss with its way to the inputs that chose it"
    return broken(worst, note) if worst < AWAY else kept(worst, note)


RESTS = "motion of its codebook in training: a buffer with averages beside it, and none of them is updated"


def averages(module: nn.Module, books: list[Book]) -> bool:
    """Whether there are statistics of codes beside the codebook: other tensors with as many rows."""
    names, size = {b.name for b in books}, books[0].rows(module).shape[0]
    others = [t for n, t in module.named_buffers() if n not in names and t.is_floating_point()]
    return any(t.ndim >= 1 and size in t.shape and t.numel() > 1 for t in others)


def by_table(parts: list[Tensor], named: dict[str, nn.Parameter], books: list[Book]) -> list[Tensor]:
    """The gradient of the sum of `parts` by each codebook [K, D]."""
    wanted = {b.name: named[b.name] for b in books}
    if not parts:
        return [torch.zeros_like(b.rows(wanted)) for b in books]
    found = torch.autograd.grad(torch.stack(parts).sum(), list(wanted.values()), retain_graph=True, allow_unused=True)
    full = {n: torch.zeros_like(wanted[n]) if g is None else g for n, g in zip(wanted, found, strict=True)}
    return [b.rows(full).detach() for b in books]

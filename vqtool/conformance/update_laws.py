"""Laws of how codebooks that follow by moving average move, start, rest and revive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vqtool.api import CodebookStats, Quantizer
from vqtool.conformance.law import Laws, NotApplicable, Verdict, broken, kept, not_applicable, within
from vqtool.conformance.subject import Subject, clustered, codebook_tensors, flat_vectors, inputs_by_level, same

LAWS: Laws[Subject] = Laws()


def step(quantizer: Quantizer, z: Tensor) -> tuple[Tensor, tuple[CodebookStats, ...]]:
    """One training pass and update, without an optimizer: (codes, stats)."""
    with torch.no_grad():
        q = quantizer.train()(z)
    quantizer.update(q.stats)
    return q.codes, q.stats


def rows(quantizer: Quantizer) -> list[Tensor]:
    """Copies of the code vectors; `vectors()` may be views that move."""
    return [v.detach().clone() for v in quantizer.vectors() or ()]


def moving(subject: Subject) -> bool:
    """Whether any codebook of this subject follows by moving average."""
    return bool(subject.started()(subject.tokens()).stats)


def needs_moving_average(subject: Subject) -> None:
    """For laws of such codebooks alone."""
    if not moving(subject):
        raise NotApplicable("nothing follows by moving average")


@LAWS
def ema_follows_inputs(subject: Subject) -> Verdict:
    needs_moving_average(subject)
    quantizer = subject.started()
    z = subject.tokens(salt=8) * 1.5 + 0.3  # the encoder has moved on
    before = flat_vectors(quantizer)
    if before is None or not quantizer.nearest:
        return not_applicable("its codes are not the nearest of vectors that add up")
    codes, stats = step(quantizer, z)
    after, worst, pulled = flat_vectors(quantizer) or [], 0.0, 1.0
    flat = codes.reshape(-1, codes.shape[-1])
    given = inputs_by_level(z, codes, before)
    for own, columns in codebooks_that_follow(stats, flat, before):
        table, inputs = before[columns[0]], torch.cat([given[i] for i in columns])
        span = None if own.sums.shape[1] == table.shape[1] else directions(table)
        counts, means = means_of(inputs, torch.cat([flat[:, i] for i in columns]), table.shape[0])
        if float((own.counts.double() - counts).abs().max()) > 0:
            return broken(None, "the counts are not those of the codes")
        used = counts > 0
        if not bool(used.any()):  # an expert that no window took
            continue
        way, gone = (means - table)[used], (after[columns[0]] - table)[used]
        if span is not None:  # codes of fewer features than the latent go the way as far as they can
            way, gone = way @ span.T, gone @ span.T
        share = (gone * way).sum(1) / way.square().sum(1).clamp_min(1e-30)
        worst = max(worst, float((gone - share[:, None] * way).norm() / way.norm()))
        pulled = min(pulled, float(share.mean()))
        if float(share.min()) < 0 or float(share.max()) > 1 + 1e-4:
            return broken(float(share.min()), "share of the way to the mean of its inputs that a code went")
    if not pulled > 1e-4:
        return broken(pulled, "mean share of the way to the mean of their inputs that codes went")
    return within(worst, 1e-4, "how far codes left the way to the mean of their inputs")


def codebooks_that_follow(
    stats: Sequence[CodebookStats], codes: Tensor, tables: list[Tensor]
) -> Iterator[tuple[CodebookStats, list[int]]]:
    """The statistics of each codebook that follows, and its columns of `codes` [N, Q]: several where they share it."""
    columns = [i for i, column in enumerate(codes.unbind(1))]
    if len(stats) < len(columns):  # the others are trained: theirs are the columns whose counts nobody has
        each = [torch.bincount(c[c >= 0], minlength=len(t)) for c, t in zip(codes.unbind(1), tables, strict=True)]
        columns = [i for i in columns if any(s.counts.long().equal(each[i]) for s in stats)]
    left = dict(zip(columns, stats, strict=False))
    while left:
        first, own = next(iter(left.items()))
        alike = [i for i in left if tables[i].shape == tables[first].shape and bool((tables[i] == tables[first]).all())]
        del left[first]
        for i in alike[1:]:
            own = own + left.pop(i)
        yield own, alike


def directions(table: Tensor) -> Tensor:
    """An orthonormal basis [r, D] of what the rows of `table` [K, D] differ in."""
    _, size, rows = torch.linalg.svd(table - table.mean(0), full_matrices=False)
    return rows[size > 1e-4 * size[0]]


def means_of(given: Tensor, codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Counts [K] and means [K, D] of `given` [N, D] by code, in float64."""
    given, codes = given[codes >= 0], codes[codes >= 0]
    counts = torch.bincount(codes, minlength=size).double()
    sums = torch.zeros(size, given.shape[1], dtype=torch.float64).index_add_(0, codes, given)
    return counts, sums / counts.clamp_min(1)[:, None]


@LAWS
def ema_start(subject: Subject) -> Verdict:
    needs_moving_average(subject)
    starts: tuple[dict[str, Any], ...] = (
        ({"start": "kmeans"}, {"start": "random"}) if subject.accepts("start") else ({},)
    )
    worst = 1.0
    for start in starts:
        quantizer = subject.started(**start)
        z = subject.tokens(salt=4)
        used_before = used(quantizer, z)
        lengths = [v.norm() for v in flat_vectors(quantizer) or []]
        step(quantizer, z)
        for a, b in zip(lengths, flat_vectors(quantizer) or [], strict=True):
            ratio = float(b.norm() / a)
            worst = max(worst, ratio, 1 / max(ratio, 1e-12))
        if used(quantizer, z) < used_before / 2:
            return broken(used(quantizer, z) / used_before, "share of the used codes left after step 1")
    return within(worst, 2.0, "factor by which the first step changed the codebook's size")


def used(quantizer: Quantizer, z: Tensor) -> int:
    """How many different codes `z` uses, of the first codebook or of all experts."""
    return sum(len(column[column >= 0].unique()) for column in watched(quantizer, z))


def watched(quantizer: Quantizer, z: Tensor) -> tuple[Tensor, ...]:
    """The codes that `z` gets from the first codebook or from each expert."""
    with torch.no_grad():
        codes = quantizer.eval()(z).codes
    return codes.unbind(-1) if quantizer.topology == "routed" else (codes[..., 0],)


@LAWS
def unused_code_rests(subject: Subject) -> Verdict:
    needs_moving_average(subject)
    still: dict[str, Any] = {"revive_below": 0.0} if subject.accepts("revive_below") else {}
    quantizer = subject.started(**still)
    step(quantizer, subject.tokens(salt=6))  # what the first step does to a start is another law
    z = subject.tokens()[:1, :8]  # few tokens: most codes are unused
    with torch.no_grad():
        q = quantizer.train()(z)
    before = rows(quantizer)
    if not before:
        return not_applicable("its codes are not additive")
    each = codebooks_that_follow(q.stats, q.codes.reshape(-1, q.codes.shape[-1]), before)
    resting = [(own.counts == 0, columns[0]) for own, columns in each]
    if not all(bool(r.any()) for r, _ in resting):
        return not_applicable("every code was used by eight tokens")
    for _ in range(200 if subject.accepts("revive_below") else 1):
        quantizer.update(q.stats)
    after = rows(quantizer)
    moved = sum(int((before[i][r] != after[i][r]).any(1).sum()) for r, i in resting)
    return within(moved, 0, "codes that moved though nobody chose them")


@LAWS
def revival_holds(subject: Subject) -> Verdict:
    needs_moving_average(subject)
    if subject.accepts("revive_below") and subject.options.get("revive_below", 1) == 0:
        return not_applicable("revival is turned off")
    far = clustered(subject.tokens(salt=11, windows=16, offset=50.0), 11)
    far[:1] -= 50.0  # a few codes are where the inputs are, the rest far off: dead
    quick: dict[str, Any] = {"decay": 0.9} if subject.accepts("decay") else {}
    quantizer = subject.started(far, **quick)
    size = sum(quantizer.codebook_sizes) if quantizer.topology == "routed" else quantizer.codebook_sizes[0]
    probe = clustered(subject.tokens(salt=5000, windows=-(-4 * size // subject.length)), 5000)
    if quantizer.topology == "routed":  # codes of an expert that no window takes have nothing to start again from
        reached = zip(quantizer.codebook_sizes, watched(quantizer, probe), strict=True)
        size = sum(n for n, column in reached if bool((column >= 0).any()))
    before = used(quantizer, probe)
    for i in range(200 if quick else 1200):
        step(quantizer, clustered(subject.tokens(salt=i), i))
        if i % 20 == 19 and used(quantizer, probe) >= 0.8 * size:
            break
    now = used(quantizer, probe)
    note = f"of {size} codes in use after revival ({before} before)"
    return kept(now, note) if now >= 0.6 * size else broken(now, note)


@LAWS
def revival_relative(subject: Subject) -> Verdict:
    needs_moving_average(subject)
    jumped = 0
    for windows, length in ((1, 12), (8, 64)):  # far fewer tokens than codes, and far more
        quantizer = subject.started(subject.tokens(salt=12, windows=32))
        centres = rows(quantizer)
        if not centres:
            return not_applicable("its codes are not additive")
        for i in range(60):
            inputs = on_their_way if quantizer.topology == "routed" else even_inputs
            z = inputs(quantizer, centres, windows, length, seed=i)
            before = rows(quantizer)
            codes, stats = step(quantizer, z)
            after = rows(quantizer)
            each = codebooks_that_follow(stats, codes.reshape(-1, codes.shape[-1]), before)
            for own, columns in each if i else ():  # the first step: another law
                moved = (before[columns[0]] != after[columns[0]]).any(1)
                jumped += int((moved & (own.counts == 0)).sum())
    return within(jumped, 0, "replacements of codes that are used as often as the others")


def even_inputs(_: Quantizer, centres: list[Tensor], windows: int, length: int, seed: int) -> Tensor:
    """Inputs [B, T, D] that are sums of evenly drawn codes."""
    generator = torch.Generator().manual_seed(seed)
    rows = [c[torch.randint(c.shape[0], (windows, length), generator=generator)] for c in centres]
    return torch.stack(rows).sum(0)


def on_their_way(quantizer: Quantizer, centres: list[Tensor], windows: int, length: int, seed: int) -> Tensor:
    """Inputs [B', T, D] of windows that each take the expert whose evenly drawn codes they are."""
    kept = []
    for expert, table in enumerate(centres):
        z = even_inputs(quantizer, [table], windows, length, seed=seed + 1000 * expert)
        kept.append(z[watched(quantizer, z)[expert][:, 0] >= 0])
    return torch.cat(kept)


@LAWS
def set_codebook_survives(subject: Subject) -> Verdict:
    needs_moving_average(subject)
    quantizer = subject.started()
    for i in range(3):
        step(quantizer, subject.tokens(salt=i))
    books = codebook_tensors(quantizer)
    if books is None:
        return not_applicable("its codebook rows are not stored as they are")
    with torch.no_grad():
        for i, book in enumerate(books):
            book.copy_(torch.randn(book.shape, generator=torch.Generator().manual_seed(i)) * 3)
    wanted = [b.detach().clone() for b in books]
    step(quantizer, subject.tokens(salt=20)[:1, :16])
    worst = max(float((b.detach() - w).norm() / w.norm()) for b, w in zip(books, wanted, strict=True))
    return within(worst, 0.3, "relative change of a codebook that was set, after one small step")


@LAWS
def accumulation(subject: Subject) -> Verdict:
    z = subject.tokens(windows=6)
    if not moving(subject):
        return gradients_add_up(subject, z)
    whole, parts = subject.started(), subject.started()
    for i in range(2):
        z = subject.tokens(salt=i, windows=6)
        step(whole, z)
        with torch.no_grad():
            stats = [parts.train()(part).stats for part in z.split([1, 3, 2])]
        parts.update([a + b + c for a, b, c in zip(*stats, strict=True)])
    return within(*distance(whole, parts, "codebooks after micro-batches and after full batches"))


def distance(first: Quantizer, second: Quantizer, note: str) -> tuple[float, float, str]:
    """The largest relative difference of two quantizers' vectors, for `within`; of their buffers without vectors."""
    pairs = list(zip(first.vectors() or (), second.vectors() or (), strict=True))
    pairs = pairs or [(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True) if a.is_floating_point()]
    worst = max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in pairs)
    return worst, 1e-5, f"relative difference between {note}"


def gradients_add_up(subject: Subject, z: Tensor) -> Verdict:
    """Without statistics: the gradients of two halves average to that of the whole (terms over a batch left out)."""
    upstream = subject.tokens(salt=3, windows=6)
    names = {"commitment", "codebook"}
    skipped: list[bool] = []

    def gradients(part: Tensor, up: Tensor) -> list[Tensor]:
        quantizer = subject.started()
        q = quantizer(part.clone().requires_grad_())
        skipped.append(bool((q.codes < 0).any()) and quantizer.topology != "routed")
        loss = (q.z * up).mean() + sum(t for n, t in q.terms.items() if n in names)
        if not loss.requires_grad:
            return []
        loss.backward()
        return [p.grad for p in quantizer.parameters() if p.grad is not None]

    whole = gradients(z, upstream)
    halves = [gradients(a, b) for a, b in zip(z.chunk(2), upstream.chunk(2), strict=True)]
    if not whole:
        return not_applicable("it has no parameter that is trained")
    if any(skipped):
        return not_applicable("tokens skip codebooks: a mean over those in use weighs micro-batches unevenly")
    worst = max(
        float((a - (b + c) / 2).norm() / a.norm().clamp_min(1e-12)) for a, b, c in zip(whole, *halves, strict=True)
    )
    return within(worst, 1e-4, "relative difference between gradients of micro-batches and of the full batch")


@LAWS
def ranks_add_up(subject: Subject) -> Verdict:
    needs_moving_average(subject)
    z = subject.tokens(windows=6)
    mask = torch.ones(z.shape[:2], dtype=torch.bool)
    mask[3] = False
    whole, forth, back = (subject.started() for _ in range(3))
    with torch.no_grad():
        whole.update(whole(z, mask).stats)
        shards = [(0, 1), (1, 3), (3, 4), (4, 4), (4, 6)]  # uneven; one all masked, one empty
        stats = [forth(z[a:b], mask[a:b]).stats for a, b in shards]
    for quantizer, order in ((forth, stats), (back, stats[::-1])):
        summed = order[0]
        for more in order[1:]:
            summed = tuple(a + b for a, b in zip(summed, more, strict=True))
        quantizer.update(summed)
    figure, limit, note = distance(whole, forth, "the codebooks of shards and of the whole")
    if (
        figure <= limit
        and not all(same(a.samples, b.samples) for a, b in zip(whole(z, mask).stats, forth(z, mask).stats, strict=True))
        and not bool(distance(whole, forth, "")[0])
    ):
        return broken(None, "the samples for revival depend on the shards")
    figure = max(figure, distance(whole, back, "")[0])
    return within(figure, limit, note)

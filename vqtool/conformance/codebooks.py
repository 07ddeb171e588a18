"""The codebooks of a foreign module: the tensors whose rows add up to its output, and what each level is given."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.conformance.foreign_module import ForeignModule, Seen, leaves
from vqtool.conformance.law import NotApplicable, tried
from vqtool.conformance.own_quantizers import refuses
from vqtool.conformance.subject import rows_for, state_of

EXPLAINED, CANDIDATE = 0.01, 0.2  # share of tokens without their nearest code: it is the rule; it may be, with faults
WIDEST = 512  # of a codebook's vectors, times its levels


@dataclass(frozen=True)
class Book:
    """One codebook of a foreign module: the tensor that holds it, or a part of that."""

    name: str
    index: tuple[int, ...] = ()
    transposed: bool = False
    unit: bool = False  # its rows flow on normalised

    def rows(self, state: nn.Module | Mapping[str, Tensor]) -> Tensor:
        """The code vectors [K, d] in a module now, or in a copy of its state; by reference unless they are `unit`."""
        held = (everything(state) if isinstance(state, nn.Module) else state)[self.name][self.index]
        held = held.t() if self.transposed else held
        return F.normalize(held, dim=1) if self.unit else held

    @property
    def kind(self) -> tuple[str, bool, bool]:
        """The same for the levels of one quantizer: the name without its digits."""
        return "".join(c for c in self.name if not c.isdigit()), self.transposed, self.unit


@dataclass(frozen=True)
class Level:
    """A codebook's part in the output: its rows times `map` [d, E]; of a group, the map places it among zeros."""

    book: Book
    map: Tensor
    shift: int = 0  # what its codes are off by from the rows

    @property
    def plain(self) -> bool:
        """Whether the map only places the rows: what the level is given is then seen from outside."""
        eye = torch.eye(self.map.shape[0], dtype=self.map.dtype)
        return bool((self.map @ self.map.t() - eye).abs().max() < 1e-3)

    def values(self, rows: Tensor, codes: Tensor) -> Tensor:
        """What codes [N] add to the output [N, E], float64."""
        return rows_for(rows.detach().double(), codes) @ self.map


def everything(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, buffers, and tensors kept as plain attributes, by name and by reference."""
    found = state_of(module)
    for prefix, sub in module.named_modules():
        for name, value in vars(sub).items():
            if not name.startswith(("_parameters", "_buffers", "_modules")):
                for inner, t in leaves(value, name, 3) if isinstance(value, Tensor | list | tuple) else ():
                    found.setdefault(f"{prefix}.{inner}" if prefix else inner, t)
    return found


def copies(module: nn.Module) -> dict[str, Tensor]:
    """A copy of `everything`."""
    return {name: t.detach().clone() for name, t in everything(module).items()}


def tables(module: nn.Module, least: int) -> list[Book]:
    """Everything that could be a table of at least `least` codes."""
    found: list[Book] = []
    for name, t in everything(module).items():
        if not t.is_floating_point() or not 2 <= t.ndim <= 4 or t.numel() > 2**26:
            continue
        rows, width = t.shape[-2:]
        for at in itertools.islice(itertools.product(*map(range, t.shape[:-2])), 64):
            found += [Book(name, at)] if rows >= least and 1 < width <= WIDEST else []
            found += [Book(name, at, transposed=True)] if width >= least and 1 < rows <= WIDEST else []
    return found + [replace(book, unit=True) for book in found]


def groups_of(candidates: list[Book], count: int) -> Iterator[list[Book]]:
    """Lists of `count` books, one for each column of codes: a kind's own, or shared by several columns."""
    kinds: dict[object, list[Book]] = {}
    for book in candidates:
        kinds.setdefault(book.kind, []).append(book)
    last: dict[object, list[Book]] = {}
    for book in candidates:
        last.setdefault((book.name.rpartition(".")[2], *book.kind[1:]), []).append(book)
    for group in [*kinds.values(), *(g for g in last.values() if len(g) == count)]:
        if len(group) == count:
            yield group
        elif len(group) > count > 1:
            yield group[:count]
        elif count % len(group) == 0:
            yield [book for book in group for _ in range(count // len(group))]
            if len(group) > 1:
                yield group * (count // len(group))
        elif len(group) > count:
            yield from ([book] for book in group)


def find_levels(module: nn.Module, before: Mapping[str, Tensor], seen: Seen) -> list[Level]:
    """The codebooks, one per column of codes, by `before` (the state when `seen` was made); empty if none add up."""
    if seen.found_codes is None:
        return []
    codes, value = seen.codes, seen.value.detach().double()
    spread = (value - value.mean(0)).abs().max()
    if not bool(spread > 1e-9):
        return []
    groups = list(groups_of(tables(module, 2), codes.shape[1]))
    for shift in (0, -1, 1) if seen.returned else (0,):
        shifted = codes + shift
        for linear in (False, True):
            for books in groups:
                rows = [book.rows(before).detach() for book in books]
                most = [int(column.max()) for column in shifted.unbind(1)]
                least = [int(column.min()) for column in shifted.unbind(1)]
                if min(least) < (0 if shift else -1) or any(m >= len(r) for m, r in zip(most, rows, strict=True)):
                    continue
                maps = fitted(rows, shifted, value, linear=linear)
                if maps is not None:
                    return [Level(b, m, shift) for b, m in zip(books, maps, strict=True)]
    return []


def fitted(rows: list[Tensor], codes: Tensor, value: Tensor, *, linear: bool) -> list[Tensor] | None:
    """The maps [d, E] by which the rows of the codes add up to `value` [N, E]; None if they do not."""
    parts = [rows_for(r.double(), codes[:, i]) for i, r in enumerate(rows)]
    limit = 1e-3 * (value - value.mean(0)).abs().max()
    if not linear:
        if any(p.shape != value.shape for p in parts):
            return None
        total = torch.stack(parts).sum(0)
        eye = torch.eye(value.shape[1], dtype=torch.float64)
        for factor in (1.0, 1 / len(parts)):  # a sum, or a mean
            if bool((factor * total - value).abs().max() <= limit):
                return [eye * factor] * len(parts)
        return None
    trials = [[torch.stack(parts).sum(0)]] if len(parts) > 1 and len({p.shape for p in parts}) == 1 else []
    for side_by_side in (*trials, parts):  # one projection of their sum, or one for each
        design = torch.cat([*side_by_side, torch.ones(len(value), 1, dtype=torch.float64)], 1)
        if design.shape[1] > 0.7 * len(value) or not bool(design.isfinite().all()):
            continue
        if int(codes.unique(dim=0).shape[0]) < min(design.shape[1] + 4, 0.7 * len(value)):
            continue  # so few different tokens are a linear map of anything
        solution = torch.linalg.lstsq(design, value, driver="gelsd").solution
        if bool((design @ solution - value).abs().max() <= limit):
            maps = list(solution[:-1].split([p.shape[1] for p in side_by_side]))
            return maps * (len(parts) // len(maps))
    return None


def found_levels(foreign: ForeignModule) -> list[Level]:
    """The module's codebooks, one per level; empty if its outputs are no sum of rows of its tensors."""
    if "levels" not in foreign.notes:
        levels: list[Level] = []
        for windows, steps in ((7, 2), (28, 2), (28, 0)):  # many features need many tokens; a start may ruin its codes
            if not levels:
                module = foreign.warmed_up(steps, train=False)
                before = copies(module)
                with torch.no_grad():
                    seen = tried(partial(foreign.see, module, foreign.tokens(windows=windows)))
                if isinstance(seen, BaseException):
                    if not steps and refuses(module, seen):
                        continue
                    raise seen
                levels = find_levels(module, {**copies(module), **before}, seen)
        foreign.notes["levels"] = levels
    return list(foreign.notes["levels"])


def levels_of(foreign: ForeignModule) -> list[Level]:
    """The same, for laws that need them."""
    if not found_levels(foreign):
        raise NotApplicable("its codebook was not found among its tensors")
    return found_levels(foreign)


def rows_now(foreign: ForeignModule, module: nn.Module) -> list[Tensor]:
    """Copies of all codebooks."""
    return [level.book.rows(module).detach().clone() for level in levels_of(foreign)]


def columns(foreign: ForeignModule, seen: Seen) -> list[Tensor]:
    """The codes [N] of each level as rows of its codebook; a training pass may use fewer levels than there are."""
    return [c + level.shift for c, level in zip(seen.codes.unbind(1), levels_of(foreign), strict=False)]


@dataclass(frozen=True)
class Given:
    """What a level chose among: its input [N, d], the rows [K, d], its codes [N]; in a space where nearest counts."""

    points: Tensor
    rows: Tensor
    codes: Tensor
    rule: str = ""


def widths_of(foreign: ForeignModule) -> set[int]:
    """The widths that inputs of its levels may have."""
    levels = levels_of(foreign)
    alone = {level.map.shape[0] for level in levels}
    return alone | {width * len(levels) for width in alone}


def given(foreign: ForeignModule, x: Tensor, seen: Seen, rows: list[Tensor]) -> list[Given | None]:
    """What each level was given in `seen`, by the rows it had then; None where nothing explains its codes."""
    found: list[Given | None] = []
    rest = x.detach().double()
    for i, (level, codes) in enumerate(zip(levels_of(foreign), columns(foreign, seen), strict=False)):
        table = rows[i].double()
        outside = None
        if level.plain and level.map.shape[1] == rest.shape[1]:
            outside = Given(rest @ level.map.t(), table, codes)
            rest = rest - level.values(rows[i], codes)
        if outside is not None and misses(outside) <= EXPLAINED * len(x):
            found.append(outside)
        else:
            found.append(traced(foreign, seen, i, table, x) or outside)
    return found


def traced(foreign: ForeignModule, seen: Seen, index: int, table: Tensor, x: Tensor) -> Given | None:
    """The input of a level among what its forward computed before the choice: that whose nearest rows its codes are.

    Where none is near, one whose farthest rows they are. Of a level that is seen from outside, multiples of `x` and
    the input of the first level do not count.
    """
    if seen.trace is None:
        return None
    level, codes = levels_of(foreign)[index], columns(foreign, seen)[index]
    raw, count = codes - level.shift, len(codes)
    after = next((i for i, t in enumerate(seen.trace.choices) if among(t, raw)), len(seen.trace.choices))
    wrong = x.detach().double() if level.plain and level.map.shape[1] == x.shape[1] else None
    near: list[tuple[float, Given]] = []
    far: list[Given] = []
    for t in (t for position, t in seen.trace.floats if position <= after):
        for points in as_points(t.double(), count, table.shape[1]):
            if any(torch.equal(points, one.points) for _, one in near):
                continue
            for one in rules(points, table, codes):
                if misses(one, 24) > 12:  # far from it: there are many
                    continue
                scaled = wrong is not None and points.shape == wrong.shape and multiple(points, wrong)
                share = misses(one) / count
                if share <= CANDIDATE and not rests_on(one) and not (scaled and (index or one.rule != "by cosine")):
                    near.append((share, one))
            few = torch.cdist(points[:24], table).argmax(1) == codes[:24]
            if not near and bool(few.all()) and bool((torch.cdist(points, table).argmax(1) == codes).all()):
                far.append(Given(points, table, codes))
    return min(near, key=lambda pair: (pair[0], bool(pair[1].rule)))[1] if near else far[0] if far else None


def rules(points: Tensor, table: Tensor, codes: Tensor) -> Iterator[Given]:
    """The ways in which a code may be the nearest."""
    unit = F.normalize(points, dim=1)
    yield Given(points, table, codes)
    yield Given(unit, F.normalize(table, dim=1), codes, "by cosine")
    yield Given(unit, table, codes, "to the normalised input")


def multiple(points: Tensor, x: Tensor) -> bool:
    """Whether all points are the same multiple of x, but for rounding, however coarse."""
    factor = (points * x).sum() / x.square().sum().clamp_min(1e-300)
    return bool((points - factor * x).norm() <= 1e-2 * points.norm())


def among(choice: Tensor, codes: Tensor) -> bool:
    """Whether these choices hold the codes [N] of a level."""
    if choice.numel() % codes.numel():
        return False
    if choice.numel() == codes.numel():
        return torch.equal(choice.flatten(), codes)
    flat = choice.flatten()
    return any(torch.equal(part, codes) for part in (*flat.view(-1, len(codes)), *flat.view(len(codes), -1).t()))


def as_points(t: Tensor, count: int, width: int) -> Iterator[Tensor]:
    """A tensor as points [N, d]: of its axes one is the width, others may number the heads."""
    if t.numel() == count * width:
        if t.shape[-1] == width:
            yield t.reshape(count, width)
        if t.ndim > 2 and t.shape[1] == width:
            yield t.movedim(1, -1).reshape(count, width)
    elif t.shape[-1] == width:
        flat = t.reshape(-1, width)
        heads = flat.shape[0] // count
        yield from flat.view(count, heads, width).unbind(1)
        yield from flat.view(heads, count, width)


def rests_on(one: Given) -> bool:
    """Whether the points are the chosen rows themselves, which prove nothing."""
    chosen = one.rows[one.codes.clamp_min(0)]
    for a, b in ((one.points, chosen), (F.normalize(one.points, dim=1), F.normalize(chosen, dim=1))):
        if bool(((a - b).abs().amax(1) <= 1e-5 * b.abs().max().clamp_min(1e-30)).double().mean() > 0.5):
            return True
    return False


def misses(one: Given, most: int | None = None) -> int:
    """How many (of the first `most`) points have a nearer row than their code's, beyond what float32 can tell."""
    used = (one.codes >= 0).nonzero()[:most, 0]
    points, rows, codes = one.points.double()[used], one.rows.double(), one.codes[used]
    if not len(codes):
        return 0
    distance = torch.cdist(points, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    best, taken = distance.min(1).values, distance.gather(1, codes[:, None]).squeeze(1)
    spread = (rows - rows.mean(0)).square().sum(1).mean()
    return int((taken > best * (1 + 1e-4) + 1e-6 * spread).sum())


@dataclass(frozen=True)
class Source:
    """Where a level's input stands in the graph: a tensor with one axis of its features, and its points [N, d]."""

    tensor: Tensor
    axis: int
    points: Tensor

    def as_points(self, gradient: Tensor) -> Tensor:
        """A gradient by the tensor as [N, d]."""
        return gradient.movedim(self.axis, -1).reshape(self.points.shape).double()


def attached(foreign: ForeignModule, module: nn.Module, index: int, x: Tensor) -> tuple[Seen, Source | None]:
    """A pass with gradient, and the input of a level in it: `x` itself, or the output of the layer that gives it."""
    level, outputs = levels_of(foreign)[index], [x]
    rows = rows_now(foreign, module)
    hooks = [
        sub.register_forward_hook(lambda _, __, out: outputs.extend(t for _, t in leaves(out)))
        for sub in module.modules()
    ]
    seen = foreign.see(module, x, widths=widths_of(foreign))
    for hook in hooks:
        hook.remove()
    if level.plain and level.map.shape == (x.shape[1], x.shape[1]):
        return seen, Source(x, 1, x.detach().double())
    one = given(foreign, x, seen, rows)[index]
    if one is None:
        return seen, None
    for t in outputs:
        for axis in range(1, t.ndim) if t.requires_grad and t.numel() == one.points.numel() else ():
            if t.shape[axis] != level.map.shape[0]:
                continue
            points = t.detach().movedim(axis, -1).reshape(one.points.shape).double()
            as_chosen = F.normalize(points, dim=1) if one.rule else points
            if float((as_chosen - one.points).abs().max()) <= 1e-5 * float(one.points.abs().max()):
                return seen, Source(t, axis, points)
    return seen, None


@contextmanager
def holding(module: nn.Module, book: Book, rows: Tensor) -> Iterator[None]:
    """The module with other rows in one of its codebooks; afterwards its own are back, bit for bit."""
    book = replace(book, unit=False)
    own = book.rows(module).detach().clone()
    with torch.no_grad():
        book.rows(module).copy_(rows)
        try:
            yield
        finally:
            book.rows(module).copy_(own)

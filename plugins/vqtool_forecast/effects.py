"""What columns beside a series add to its linear forecast: ridge regression of what that leaves, step by step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vqtool.api import Batch
from vqtool_forecast.ridge import BLOCKS, TINY
from vqtool_forecast.windows import SeriesRows

PENALTIES = (1e-3, 1e-1, 10.0)  # of the weights that all steps share, added to the mean Gram matrix
STEP_PENALTIES = (1e-2, 1.0, 100.0, 1e6)  # of what a step's weights differ by; the last: they do not
OWN_PENALTIES, OWN_STEP_PENALTIES = (1e-2, 0.3), (1.0, 1e6)  # of what a series' weights differ by
MOST_OWN = 32768  # series x steps; where there are more, all series have the same weights
WORTH = 0.01  # of the squared error: what saves less is left out
MOST = 8192  # training windows, evenly spread
CHUNK = 512
SPLITS = {"train": BLOCKS, "valid": 1}  # and the blocks of time that each is cut into
Look = Callable[[Batch, Tensor], tuple[Tensor, Tensor]]  # a batch and its futures -> features, what is left to explain


class Sums(NamedTuple):
    """Over windows, at each of N places (steps or series): what a fit of F features and its error need; in float64."""

    gram: Tensor  # [N, F, F]
    cross: Tensor  # [N, F]
    power: Tensor  # [N]

    @classmethod
    def empty(cls, places: int, features: int) -> Sums:
        """Of no window."""
        gram, cross, power = (torch.zeros(places, *size).double() for size in ((features, features), (features,), ()))
        return cls(gram, cross, power)

    @classmethod
    def total(cls, parts: Sequence[Sums]) -> Sums:
        """The windows of all parts."""
        return cls(*(torch.stack(each).sum(0) for each in zip(*parts, strict=True)))

    def without(self, other: Sums) -> Sums:
        """These windows but for those of `other`, which are among them."""
        return Sums(*(mine - its for mine, its in zip(self, other, strict=True)))

    def steps(self, begin: int, end: int) -> Sums:
        """Some of the places."""
        return Sums(*(value[begin:end] for value in self))

    def only(self, some: list[int]) -> Sums:
        """Some of the features."""
        return Sums(self.gram[:, some][:, :, some], self.cross[:, some], self.power)

    def solve(self, penalty: float) -> Tensor:
        """Least squares [N, F] with a penalty in units of the features' mean square over all places."""
        scale = self.gram.mean(0).diagonal().clamp_min(TINY)
        return torch.linalg.solve(self.gram + penalty * scale.diag(), self.cross)

    def error(self, weight: Tensor) -> Tensor:
        """[N] the squared error of weights [N, F]."""
        square = torch.einsum("nf,nfg,ng->n", weight, self.gram, weight)
        return self.power - 2 * (weight * self.cross).sum(-1) + square


Fold = list[tuple[Sums, Sums]]  # what is fitted on, and the windows that judge it
How = tuple[list[int], float, float]  # features, the penalty of shared weights and that of a step's own


def features(batch: Batch, fields: Collection[str], steps: int, ahead_of: Callable[[Tensor], Tensor]) -> Tensor:
    """[B, C, F, steps] what the columns in the `fields` say of each step.

    Of each known column how far it will be from its own linear forecast (`ahead_of` [B, C, K, L] -> [B, C, K, steps]):
    where a series is a linear function of a column and of something else, what is left of its linear forecast is the
    same function of that. Then of each column how far its last value is from its mean in the history, and of each
    observed one this mean.
    """
    found = []
    if "known" in fields:
        length = batch["x"].shape[-1]
        past, ahead = batch["known"][..., :length], batch["known"][..., length : length + steps]
        if ahead.shape[-1] < steps:  # of a last block of steps that is cut afterwards
            ahead = torch.cat([ahead, ahead[..., -1:].expand(*ahead.shape[:-1], steps - ahead.shape[-1])], -1)
        found += [ahead - ahead_of(past), (past[..., -1:] - past.mean(-1, keepdim=True)).expand_as(ahead)]
    if "observed" in fields:
        past = batch["observed"]
        mean = past.mean(-1, keepdim=True)
        found += [value.expand(*value.shape[:-1], steps) for value in (past[..., -1:] - mean, mean)]
    return torch.cat(found, -2)


def subsets(known: int, observed: int) -> list[list[int]]:
    """The features that are tried together: all; of the known columns alone; their surprises; of the observed alone."""
    groups = [range(2 * known + 2 * observed), range(2 * known), range(known),
              range(2 * known, 2 * known + 2 * observed)]  # fmt: skip
    return [list(one) for one in dict.fromkeys(tuple(group) for group in groups if len(group))]


def windows(rows: SeriesRows, s: int, split: str, blocks: int, look: Look) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Windows of a split of a series, a chunk at a time: features [n, F, H], rest [n, H], and the block of time."""
    table, horizon = rows.table, max(rows.horizons)
    assert table.beside is not None
    at = table.starts(split, s, rows.lookback, horizon)
    stride = max(1, len(at) * table.series // MOST)
    for block, cut in enumerate(at[::stride].tensor_split(blocks)):
        for part in cut.split(CHUNK) if len(cut) else ():
            of = torch.full_like(part, s)
            series, row = of[:, None], part[:, None]
            batch = {
                "x": table.history(series, row, rows.lookback),
                "series": of,
                "phase": table.phase(of, part),
                **table.beside.fields(series, row, rows.lookback, horizon),
            }
            future = table.future(of, part, horizon, table.split(split)[1, s].expand_as(part))
            f, rest = look(batch, future)
            yield f.double(), rest.double(), block


def fit_effects(
    rows: SeriesRows, horizons: Sequence[int], known: int, observed: int, look: Look
) -> tuple[Tensor, Tensor]:
    """The weights [F, H] of all series, and what each series' own differ by [S, F, H]; zero where they save nothing.

    Judged as the linear forecast's penalties are: on the validation windows, and on each block of the training windows
    by a fit to the others.
    """
    horizon, series, groups = max(horizons), rows.table.series, subsets(known, observed)
    weight = torch.zeros(2 * (known + observed), horizon, dtype=torch.float64)
    own = torch.zeros(series, *weight.shape, dtype=torch.float64)
    sums = {split: [Sums.empty(horizon, len(weight)) for _ in range(blocks)] for split, blocks in SPLITS.items()}
    for s in range(series):
        for split, parts in sums_of(rows, s, weight, look).items():
            sums[split] = [Sums.total(both) for both in zip(sums[split], parts, strict=True)]
    for begin, end in itertools.pairwise([0, *sorted(horizons)]):
        cut = {split: [part.steps(begin, end) for part in parts] for split, parts in sums.items()}
        best = _best([cut], itertools.product(groups, PENALTIES, STEP_PENALTIES))
        if best is not None:
            weight[:, begin:end] = _shared(Sums.total(cut["train"]), *best).T
    if 1 < series <= MOST_OWN // horizon:
        each = [sums_of(rows, s, weight, look) for s in range(series)]
        best = _best(each, itertools.product(groups, OWN_PENALTIES, OWN_STEP_PENALTIES))
        if best is not None:
            own = torch.stack([_shared(Sums.total(one["train"]), *best).T for one in each])
    return weight.float(), own.float()


def sums_of(rows: SeriesRows, s: int, weight: Tensor, look: Look) -> dict[str, list[Sums]]:
    """Of one series' windows, of what the `weight` [F, H] leaves, in blocks of time."""
    count, horizon = weight.shape
    sums = {split: [Sums.empty(horizon, count) for _ in range(blocks)] for split, blocks in SPLITS.items()}
    for split, parts in sums.items():
        for f, rest, block in windows(rows, s, split, len(parts), look):
            left = rest - torch.einsum("nfh,fh->nh", f, weight)
            parts[block].gram.add_(torch.einsum("nfh,ngh->hfg", f, f))
            parts[block].cross.add_(torch.einsum("nfh,nh->hf", f, left))
            parts[block].power.add_(left.square().sum(0))
    return sums


def _folds(sums: dict[str, list[Sums]]) -> list[Fold]:
    """Training and validation, then each block of training and the others."""
    train, valid = Sums.total(sums["train"]), Sums.total(sums["valid"])
    blocks = [block for block in sums["train"] if block.power.any()]
    folds = [[(train, valid)]] if valid.power.any() else []
    return [*folds, [(train.without(block), block) for block in blocks]] if len(blocks) > 1 else folds


def _score(folds: Sequence[Fold], fits: Sequence[Sequence[Tensor]]) -> float:
    """The error of each fold's fits on windows they have not seen, over that of no weights: a sum over the folds."""
    score = 0.0
    for fold, weights in zip(folds, fits, strict=True):
        error = torch.stack([judge.error(weight) for (_, judge), weight in zip(fold, weights, strict=True)]).sum(0)
        plain = torch.stack([judge.power for _, judge in fold]).sum(0)
        score += float((error / plain.clamp_min(TINY)).mean())
    return score


def _shared(part: Sums, some: list[int], penalty: float, step_penalty: float) -> Tensor:
    """Weights [H, F] from `some` of the features: shared ones, and what each step's differ by."""
    chosen, weight = part.only(some), torch.zeros_like(part.cross)
    shared = Sums(*(value.mean(0, keepdim=True) for value in chosen)).solve(penalty)
    left = chosen.cross - (chosen.gram @ shared[0])
    weight[:, some] = shared + chosen._replace(cross=left).solve(step_penalty)
    return weight


def _best(each: Sequence[dict[str, list[Sums]]], tried: Iterable[How]) -> How | None:
    """The way to fit that leaves the smallest error on windows not fitted to, over all of `each`; None: none saves."""
    folds = [some for one in each if (some := _folds(one))]
    best, least = None, (1 - WORTH) * sum(map(len, folds))
    for how in tried:
        score = sum(_score(some, [[_shared(seen, *how) for seen, _ in fold] for fold in some]) for some in folds)
        if score < least:
            best, least = how, score
    return best

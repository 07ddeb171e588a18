"""Real pieces of signals for the report's page: what each code stands for, and reconstructions beside originals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

EXAMPLES = 4  # pieces shown for a code
PIECE_TOKENS = 16  # the most tokens in a piece
PIECE_POINTS = 96  # the most points kept of each channel of a piece
PIECE_SIDE = 32  # the same for each side of an image
MOST_CHANNELS = 3
MOST_NUMBERS = 1_200_000  # in all pieces together: one byte each in the page
MOST_TOKENS = 4096  # of a window whose codes are shown over time


@dataclass(frozen=True, slots=True)
class Samples:
    """Pieces of the windows of a split. M pieces, C channels, W points; images have a height H beside W."""

    split: str
    pieces: np.ndarray  # [M, C, W] or [M, C, H, W]
    piece_tokens: int  # tokens that a piece holds
    examples: tuple[np.ndarray, ...]  # for each codebook [K, EXAMPLES, 2]: a piece and the token in it; -1: none
    originals: np.ndarray  # [R, C, L] or [R, C, H, L]
    reconstructions: np.ndarray | None = None  # like `originals`
    unit: str = ""
    codes: np.ndarray | None = None  # [R, T, Q] of the `originals`; -1: none
    rate: float = 0.0  # samples in a second; 0: not known


class Picker:
    """Chooses few pieces in which as many codes as possible occur; give it batch after batch until `full`."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.examples = [np.full((size, EXAMPLES, 2), -1, np.int32) for size in sizes]
        self.have = [np.zeros(size, np.int32) for size in sizes]
        self.pieces: list[np.ndarray] = []
        self.piece_tokens = 1
        self.room = 1

    @property
    def full(self) -> bool:
        """Whether no more pieces fit into a page."""
        return len(self.pieces) >= self.room

    def add(self, x: np.ndarray, codes: np.ndarray) -> None:
        """Take what is worth showing of windows `x` [B, C, L] (or [B, C, H, W]) with codes [B, T, Q], -1 for none."""
        images, tokens = x.ndim == 4, codes.shape[1]
        self.piece_tokens = tokens if images else min(tokens, PIECE_TOKENS)
        x = x[:, :MOST_CHANNELS]
        starts = [*range(0, tokens - self.piece_tokens, self.piece_tokens), tokens - self.piece_tokens]
        span = x.shape[-1] / tokens
        for row, start in ((r, s) for r in range(len(x)) for s in starts):
            if self.full:
                return
            here = codes[row, start : start + self.piece_tokens]
            if not self._wanted(here):
                continue
            if images:
                piece = thinned_image(x[row])
            else:
                piece = thinned(x[row, :, round(start * span) : round((start + self.piece_tokens) * span)])
            self.room = max(1, MOST_NUMBERS // piece.size)
            self._take(piece, here)

    def _wanted(self, codes: np.ndarray) -> bool:
        """Whether a code of this piece needs examples; once half the room is used, only codes without any count."""
        enough = EXAMPLES if 2 * len(self.pieces) < self.room else 1
        seen = (have[column[column >= 0]] for have, column in zip(self.have, codes.T, strict=True))
        return any(bool((counts < enough).any()) for counts in seen)

    def _take(self, piece: np.ndarray, codes: np.ndarray) -> None:
        number = len(self.pieces)
        self.pieces.append(piece.astype(np.float32))
        for examples, have, column in zip(self.examples, self.have, codes.T, strict=True):
            for code, place in zip(*np.unique(column, return_index=True), strict=True):
                if code >= 0 and have[code] < EXAMPLES:
                    examples[code, have[code]] = number, place
                    have[code] += 1

    def samples(self, split: str, originals: np.ndarray, **more: Any) -> Samples:
        """What was picked, together with a few windows and what else `Samples` holds."""
        return Samples(split, np.stack(self.pieces), self.piece_tokens, tuple(self.examples), originals, **more)


def thinned(x: np.ndarray, points: int = PIECE_POINTS) -> np.ndarray:
    """`x` [..., L] with at most `points` points; of a longer signal the lowest and the highest of each stretch."""
    length = x.shape[-1]
    if length <= points:
        return x
    return np.concatenate([lowest_and_highest(x[..., a:b]) for a, b in stretches(length, points // 2)], -1)


def stretches(length: int, count: int) -> Iterator[tuple[int, int]]:
    """`count` neighbouring stretches of nearly equal size that cover `length`."""
    edges = np.linspace(0, length, count + 1).round().astype(int)
    yield from pairwise(edges)


def lowest_and_highest(x: np.ndarray) -> np.ndarray:
    """[..., L] -> [..., 2] in the order they come, so that what is thinned keeps its envelope and its slopes."""
    places = np.sort(np.stack([x.argmin(-1), x.argmax(-1)], -1), -1)
    return np.take_along_axis(x, places, -1)


def thinned_image(x: np.ndarray, side: int = PIECE_SIDE) -> np.ndarray:
    """`x` [C, H, W] with at most `side` rows and columns, by leaving out the others."""
    rows, columns = (np.linspace(0, n - 1, min(n, side)).round().astype(int) for n in x.shape[-2:])
    return x[..., rows[:, None], columns]

"""Watching codebooks while they train: the findings of `vqtool diagnose`, from what the loop has counted anyway."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqtool.api.quantizer import Quantizer
from vqtool.console import out
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.measures import usage
from vqtool.diagnosis.news import News, StopOn
from vqtool.diagnosis.report import Codebook, Finding, Report
from vqtool.model.seen import quantizer_metadata
from vqtool.quantizers.core.codebook import Codebook as Book
from vqtool.recipe.thresholds import every

REMEMBERED = 400  # rows of metrics.jsonl that a look reads trends from
WARM = 0.1  # the share of a stage in which codebooks may still be finding their places


class Motion:
    """Which of the codes chosen in one step moved by it, and whether their moving averages did."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self.books = [m for m in quantizer.modules() if isinstance(m, Book) and m.kind == "ema"]
        self.before = self._vectors()
        self.weights = self._weights()

    def _vectors(self) -> list[Tensor]:
        return [] if self.quantizer.fixed else [v.detach().clone() for v in self.quantizer.vectors() or ()]

    def _weights(self) -> list[Tensor]:
        return [book.weights.detach().clone() for book in self.books]

    def figures(self, codes: Sequence[Tensor]) -> dict[str, float]:
        """After the step, whose tokens chose `codes` [N, Q]: shares of the codes chosen, by codebook.

        `codes.moved` is the share that changed at all, `codes.followed` the share whose record of use did.
        """
        chosen = torch.cat(list(codes)) if codes else None
        if chosen is None or not self.before:
            return {}
        found: dict[str, float] = {}
        for q, name in enumerate(self.quantizer.codebook_names):
            column = chosen[:, q]
            used = torch.unique(column[column >= 0])
            if not len(used):
                continue
            now = (self.quantizer.vectors() or ())[q]
            found[f"codes.moved.{name}"] = float((now != self.before[q])[used].any(1).double().mean())
            if len(self.books) == len(self.before):
                followed = self.books[q].weights != self.weights[q]
                found[f"codes.followed.{name}"] = float(followed[used].double().mean())
        return found


class Watch:
    """Looks some twenty times a stage, warns of what is new, and stops the stage where that is asked for."""

    def __init__(self, recipe: Mapping[str, Any], stage: str, steps: int, quantizer: Quantizer,
                 stop_on: StopOn | None = None) -> None:  # fmt: skip
        self.recipe, self.stage, self.steps, self.quantizer = recipe, stage, steps, quantizer
        self.news = News(stop_on, twice=True)
        self.every = every(recipe, steps)
        self.rows: deque[Mapping[str, Any]] = deque(maxlen=REMEMBERED)
        self.looked = 0  # the step of the last look

    def note(self, row: Mapping[str, Any]) -> None:
        """Take a row of metrics.jsonl."""
        self.rows.append(row)

    def due(self, step: int) -> bool:
        """Whether it is time for another look."""
        return self.every > 0 and step - self.looked >= self.every and step >= WARM * self.steps

    def look(self, step: int, counts: Mapping[str, np.ndarray], row: Mapping[str, Any]) -> Finding | None:
        """Look, and warn once of what was there at the last look already; the finding to stop at, if any."""
        self.looked = step
        for finding in self.news.of(diagnosed(self.report(step, counts, row)).findings):
            fix = f"; fix: {finding.fix[0]}" if finding.fix else ""
            out.warn(f"step {step}: {finding.id}: {finding.cause}{fix}")
        return self.news.ill

    def report(self, step: int, counts: Mapping[str, np.ndarray], row: Mapping[str, Any]) -> Report:
        """What the checks read: use of the codes since the last row, without their vectors."""
        sizes = zip(self.quantizer.codebook_names, self.quantizer.codebook_sizes, strict=True)
        books = tuple(Codebook(name, size, counts.get(name), None, usage(counts[name]) if name in counts else {})
                      for name, size in sizes)  # fmt: skip
        validated: Mapping[str, Any] = next((r for r in reversed(self.rows) if r.get("split") == "valid"), {})
        figures = {k: float(v) for k, v in {**validated, **row}.items() if isinstance(v, int | float)}
        tokens = max((int(n.sum()) for n in counts.values()), default=0)
        return Report(Path(), f"stage {self.stage}, up to step {step}", tokens, books, figures, self.rows, self.recipe,
                      {"quantizer": quantizer_metadata(self.quantizer), "stage": self.stage, "step": step})  # fmt: skip

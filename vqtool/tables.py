"""Tables of figures, as several commands print them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from vqtool.console import out

DETAIL = re.compile(r"\.(group|level)\d+$|^(forced|reconstruction|shuffled)\.(?!error\.)")  # in the JSON only
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, columns and rows


def number(value: float | None) -> str:
    """Four significant digits; nothing where the model or a baseline has no such metric."""
    return "" if value is None else f"{value:.4g}"


def split_tables(splits: Mapping[str, Any]) -> Iterator[Table]:
    """A table per split: a row per metric, the model beside each baseline; details stay in the JSON."""
    for split, scores in splits.items():
        baselines = scores["baselines"]
        columns = [scores["model"], *baselines.values()]
        rows = [[name, *(number(one.get(name)) for one in columns)] for name in dict.fromkeys(chain(*columns))
                if not DETAIL.search(name)]  # fmt: skip
        if rows:
            yield f"held-out: {split}", ["metric", "model", *baselines], rows


def show_splits(splits: Mapping[str, Any]) -> None:
    """The held-out figures for people."""
    for title, columns, rows in split_tables(splits):
        out.table(title, columns, rows)

"""Reports made by hand, for tests of the findings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from vqtool.cli import app
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.reading import codebook
from vqtool.diagnosis.report import Finding, Report
from vqtool.recipe.recipe import parse

RECIPE = """
[data]
kind = "arrays"
path = "signals.npz"
[encoder]
kind = "conv1d"
[quantizer]
{quantizer}
[decoder]
kind = "conv1d"
{more}
[[stage]]
name = "tokenizer"
task = "autoencode"
steps = 100
losses = {{ {losses} }}
"""


def text(quantizer: str = 'kind = "ema"\nrevive_below = 0.0', losses: str = "mse = 1.0", more: str = "") -> str:
    """A recipe."""
    return RECIPE.format(quantizer=quantizer, losses=losses, more=more)


def report(
    counts: Sequence[np.ndarray] = (),
    vectors: Sequence[np.ndarray] = (),
    measures: Mapping[str, float] | None = None,
    *,
    history: Sequence[Mapping[str, Any]] = (),
    recipe: str | None = None,
    noun: str = "group",
    **metadata: Any,
) -> Report:
    """A report of codebooks with these counts [K] (a healthy one by default)."""
    counts = list(counts) or [np.full(32, 100)]
    names = ["codebook"] if len(counts) == 1 else [f"{noun}{q}" for q in range(len(counts))]
    measures = dict(measures or {})
    books = tuple(
        codebook(name, len(n), n, vectors[q] if q < len(vectors) else None, measures)
        for q, (name, n) in enumerate(zip(names, counts, strict=True))
    )
    quantizer = {"noun": noun, "initialised": True, "terms": ["commitment"], "knobs": [], **metadata}
    return Report(
        source=Path("tokenizer.safetensors"),
        counted="split valid",
        tokens=max(int(n.sum()) for n in counts),
        codebooks=books,
        measures=measures,
        history=history,
        recipe=parse(recipe or text()).resolved(),
        metadata={"quantizer": quantizer, "recipe": recipe or text()},
    )


def findings(made: Report, least: Sequence[str] = ("warn", "fail")) -> dict[str, Finding]:
    """The findings of some severities by id."""
    return {f.id: f for f in diagnosed(made).findings if f.severity in least}


def with_history(made: Report, *, split: str = "valid", stage: str = "tokenizer", **columns: Sequence[float]) -> Report:
    """The report with rows of metrics.jsonl, ten steps apart."""
    length = len(next(iter(columns.values())))
    rows = [{"stage": stage, "split": split, "step": 10 * (i + 1), **{k: v[i] for k, v in columns.items()}}
            for i in range(length)]  # fmt: skip
    return replace(made, history=[*made.history, *rows])


def pasted(made: Report, finding: Finding) -> None:
    """Type every fix of a finding as it stands: options into the recipe it came from, commands on the command line."""
    for line in finding.fix:
        first, *words = shlex.split(line)
        if first == "-s":
            (override,) = words
            changed = parse(made.metadata["recipe"], overrides=[override]).resolved()
            assert changed != made.recipe, f"{line} changes nothing"
        else:
            assert first == "vqtool"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("vqtool.command.guarded", lambda *_: 0)
                done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output

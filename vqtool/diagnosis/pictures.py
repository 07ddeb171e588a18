"""The report as one picture: use of each codebook, perplexity while training, and the code vectors in the plane."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqtool.diagnosis.code_map import Layout, places
from vqtool.diagnosis.plotting import check, figure, write
from vqtool.diagnosis.report import Codebook, Report
from vqtool.diagnosis.view import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_MAPS = 8
ACROSS = 4  # maps in a row
COLOURS = {"fail": "#b3261e", "warn": "#8a5a00", "note": "#4a5568"}
DEAD = COLOURS["fail"]


def plot(report: Report, path: Path, *, layout: Layout = "pca") -> None:
    """Write the picture in the format of the file's ending: png, svg or pdf.

    Raises:
        VqtoolError: matplotlib is not installed, the ending is another, or the file cannot be written.
    """
    check(path)
    view = View(report)
    mapped = [b for b in report.codebooks if b.vectors is not None and len(b.vectors) == b.size]
    drawn = mapped[:MAX_MAPS]
    rows = -(-len(drawn) // ACROSS)
    whole = figure("`--plot`", 11, 4 + 2.9 * rows)
    left_out = [f"maps of {len(drawn)} of {len(mapped)} codebooks"] if len(drawn) < len(mapped) else []
    whole.suptitle(f"{view.title}\n{'; '.join([view.file, *view.subject, *left_out])}", fontsize=10)
    top, *maps = whole.subfigures(1 + rows, 1, height_ratios=[1.3, *[1] * rows], squeeze=False)[:, 0]
    use, history = top.subplots(1, 2)
    draw_use(use, view)
    draw_history(history, view)
    for number, part in enumerate(maps):
        for axes, book in zip(part.subplots(1, ACROSS), drawn[number * ACROSS :], strict=False):
            draw_map(axes, book, layout)
        for axes in part.axes[len(drawn) - number * ACROSS :]:
            axes.set_axis_off()
    write(whole, path)


def draw_use(axes: Axes, view: View) -> None:
    """How often each code is chosen, the most used first, as a multiple of uniform use: a line a codebook."""
    for number, use in enumerate(view.use):
        size = len(use.shares)
        axes.plot((np.arange(size) + 0.5) / size, np.where(use.shares > 0, use.shares, np.nan),
                  label=f"{use.name}: {use.used} of {size}", color=colour(number, len(view.use)),
                  marker="o" if use.used == 1 else "")  # fmt: skip
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set(title="use of codes, the most used first", xlabel="share of the codebook", ylabel="times uniform use")
    axes.set(yscale="log", xlim=(0, 1))
    if view.use:
        axes.legend(fontsize=7, frameon=False, title="codes used", title_fontsize=7)


def draw_history(axes: Axes, view: View) -> None:
    """Perplexity while the stage was trained, and the steps at which findings began."""
    axes.set(title="perplexity while training", xlabel="step", ylabel="codes")
    stage = next((s for s in reversed(view.history) if s.name == view.stage or not view.stage), None)
    chart = next((c for c in stage.charts if c.name == "codes.perplexity"), None) if stage is not None else None
    if stage is None or chart is None:
        axes.text(0.5, 0.5, "no training history", ha="center", va="center", transform=axes.transAxes, color="grey")
        return
    for line, split, style, shade in ((chart.train, "train", "-", "grey"), (chart.valid, "valid", "o-", colour(0, 1))):
        if line:
            axes.plot(*zip(*line, strict=True), style, markersize=3, label=split, color=shade)
    for card in stage.marks:
        step = card.finding.step or 0
        axes.axvline(step, color=COLOURS[card.finding.severity], linestyle="--", linewidth=1)
        axes.annotate(card.finding.id, (step, 0.97), xytext=(3, 0), textcoords="offset points", rotation=90,
                      xycoords=("data", "axes fraction"), va="top", fontsize=7)  # fmt: skip
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.legend(fontsize=7, frameon=False)


def draw_map(axes: Axes, book: Codebook, layout: Layout) -> None:
    """Code vectors in the plane: used ones by their use, dead ones as rings."""
    assert book.vectors is not None
    counts = np.ones(book.size) if book.counts is None else book.counts
    x, y = places(book.vectors, book.counts, layout).T
    used, size = counts > 0, max(3, min(25, 4000 / book.size))
    weight = np.log1p(counts[used])
    axes.scatter(x[~used], y[~used], s=size, facecolors="none", edgecolors=DEAD, linewidths=0.7)
    axes.scatter(x[used], y[used], s=size, c=weight, cmap="viridis_r", vmin=-0.3 * weight.max(initial=1), linewidths=0)
    axes.set(title=f"{book.name}, rings are dead", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xticks=[], yticks=[])


def colour(number: int, of: int) -> tuple[float, float, float, float]:
    """A colour for one of several codebooks, from dark to light."""
    import matplotlib

    return matplotlib.colormaps["viridis"](0.85 * number / max(1, of - 1) if of > 1 else 0.45)

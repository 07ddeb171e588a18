"""The report as one picture: use of each codebook, perplexity while training, and the code vectors in the plane."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqtool.diagnosis.code_map import Layout, places
from vqtool.diagnosis.report import Codebook, Report
from vqtool.errors import VqtoolError, missing_extra
from vqtool.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
MOST_MAPS = 8
ACROSS = 4  # maps in a row
DEAD, MARK = "#b3261e", "#8a5a00"


def plot(report: Report, path: Path, *, layout: Layout = "pca") -> None:
    """Write the picture in the format of the file's ending: png, svg or pdf.

    Raises:
        VqtoolError: matplotlib is not installed, the ending is another, or the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise VqtoolError(f"`{path}` is no picture that can be drawn", hint=f"end it in {', '.join(FORMATS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "plot", "`--plot`") from error
    mapped = [b for b in report.codebooks if b.vectors is not None and len(b.vectors) == b.size]
    drawn = mapped[:MOST_MAPS]
    rows = -(-len(drawn) // ACROSS)
    figure = Figure(figsize=(11, 4 + 2.9 * rows), layout="constrained")
    told = f"; maps of {len(drawn)} of {len(mapped)} codebooks" if len(drawn) < len(mapped) else ""
    figure.suptitle(f"{report.source.name}: {report.tokens:,} tokens of {report.counted}{told}", fontsize=11)
    grid = figure.add_gridspec(1 + rows, ACROSS, height_ratios=[1.3, *[1] * rows])
    draw_use(figure.add_subplot(grid[0, : ACROSS // 2]), report.codebooks)
    draw_history(figure.add_subplot(grid[0, ACROSS // 2 :]), report)
    for number, book in enumerate(drawn):
        draw_map(figure.add_subplot(grid[1 + number // ACROSS, number % ACROSS]), book, layout)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=120)
    write_atomic(path, content.getvalue())


def draw_use(axes: Axes, codebooks: Sequence[Codebook]) -> None:
    """How often each code is chosen, the most used first, as a multiple of uniform use: a line a codebook."""
    for number, book in enumerate(codebooks):
        if book.counts is None or book.counts.sum() == 0:
            continue
        shares = np.sort(book.counts)[::-1] / book.counts.sum() * book.size
        told = f"{book.name}: {int((shares > 0).sum())} of {book.size}"
        along = (np.arange(book.size) + 0.5) / book.size
        axes.plot(along, np.where(shares > 0, shares, np.nan), label=told, color=colour(number, len(codebooks)),
                  marker="o" if (shares > 0).sum() == 1 else "")  # fmt: skip
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set(title="use of codes, the most used first", xlabel="share of the codebook", ylabel="times uniform use")
    axes.set(yscale="log", xlim=(0, 1))
    if axes.get_lines()[:-1]:
        axes.legend(fontsize=7, frameon=False, title="codes used", title_fontsize=7)


def draw_history(axes: Axes, report: Report) -> None:
    """Perplexity while the stage was trained, and the steps at which findings began."""
    stage = report.about.get("stage")
    rows = [r for r in report.history if "codes.perplexity" in r and r.get("stage", stage) == stage]
    for split, style in (("train", "-"), ("valid", "o-")):
        points = [(r["step"], r["codes.perplexity"]) for r in rows if r.get("split") == split]
        if points:
            axes.plot(*zip(*points, strict=True), style, markersize=3, label=split,
                      color="grey" if split == "train" else colour(0, 1))  # fmt: skip
    for finding in report.findings if rows else ():
        if finding.step is not None and finding.severity != "ok":
            axes.axvline(finding.step, color=DEAD if finding.severity == "fail" else MARK, linestyle="--", linewidth=1)
            axes.annotate(finding.id, (finding.step, 0.97), xytext=(3, 0), textcoords="offset points", rotation=90,
                          xycoords=("data", "axes fraction"), va="top", fontsize=7)  # fmt: skip
    axes.set(title="perplexity while training", xlabel="step", ylabel="codes")
    if rows:
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        axes.legend(fontsize=7, frameon=False)
    else:
        axes.text(0.5, 0.5, "no training history", ha="center", va="center", transform=axes.transAxes, color="grey")


def draw_map(axes: Axes, book: Codebook, layout: Layout) -> None:
    """Code vectors in the plane: used ones by their use, dead ones as rings."""
    x, y = places(book.vectors, book.counts, layout).T  # type: ignore[arg-type]  # those without are left out before
    used: Any = np.ones(book.size, bool) if book.counts is None else book.counts > 0
    weight = np.log1p(book.counts[used]) if book.counts is not None else np.ones(book.size)
    size = max(3, min(25, 4000 / book.size))
    axes.scatter(x[~used], y[~used], s=size, facecolors="none", edgecolors=DEAD, linewidths=0.7)
    axes.scatter(x[used], y[used], s=size, c=weight, cmap="viridis_r", vmin=-0.3 * weight.max(initial=1), linewidths=0)
    axes.set(
        title=f"{book.name}, rings are dead",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xticks=[],
        yticks=[],
        aspect="equal",
    )


def colour(number: int, of: int) -> tuple[float, float, float, float]:
    """A colour for one of several codebooks, from dark to light."""
    import matplotlib

    return matplotlib.colormaps["viridis"](0.85 * number / max(1, of - 1) if of > 1 else 0.45)

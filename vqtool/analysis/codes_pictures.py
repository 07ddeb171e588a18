"""Pictures of what codes fire on: their use, a raster under the signal, code vectors in the plane, and examples."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vqtool.analysis.code_labels import CodeLabels, Reading, order
from vqtool.diagnosis.code_map import Layout, places
from vqtool.errors import missing_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#8a8f98", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5230")  # after Okabe, Ito
UNSEEN = "#dddddd"
WINDOWS = 3  # in the raster
CODES = 3  # examples of so many codes a label
Signal = Callable[[int], np.ndarray]  # row -> [C, L]


def draw(reading: Reading, signal: Signal, layout: Layout) -> dict[str, bytes]:
    """PNG files by name. Raises VqtoolError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as fault:
        raise missing_extra("matplotlib", "plot", "`--out`") from fault
    made = {"use.png": use(Figure, reading), "raster.png": raster(Figure, reading, signal)}
    if reading.vectors:
        made["map.png"] = code_map(Figure, reading, layout)
    made["examples.png"] = examples(Figure, reading, signal)
    return {name: _png(figure) for name, figure in made.items()}


def colour(label: int) -> str:
    """Of a label; grey for none."""
    return COLOURS[label % len(COLOURS)] if label >= 0 else UNSEEN


def use(new: Any, reading: Reading) -> Figure:
    """How many tokens take each code, the most used first, and of which label they are."""
    figure = new(figsize=(11, 2.6 * len(reading.books)), layout="constrained")
    for number, book in enumerate(reading.books):
        axes = figure.add_subplot(len(reading.books), 1, number + 1)
        by_use = np.argsort(-book.counts.sum(1), kind="stable")
        base = np.zeros(len(by_use))
        for c, name in enumerate(reading.names):
            height = book.counts[by_use, c]
            axes.bar(np.arange(len(by_use)), height, 1.0, base, color=colour(c), label=name)
            base += height
        used = int((book.counts.sum(1) > 0).sum())
        axes.set_title(f"{book.name}: {used} of {len(by_use)} codes used", fontsize=10, loc="left")
        axes.set(xlim=(-0.5, len(by_use) - 0.5), ylabel="tokens", xlabel="codes, the most used first")
    figure.axes[0].legend(title=reading.label, fontsize=8)
    return figure


def raster(new: Any, reading: Reading, signal: Signal) -> Figure:
    """The tokens of some rows under their signal: a dot a token, at the height of its code, codes sorted by label."""
    rows = shown_rows(reading)
    figure = new(figsize=(11, 3.4 * len(rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        axes = part.subplots(1 + len(reading.books), 1, sharex=True)
        here = reading.held["rows"] == row
        at, labels = reading.held["places"][here], reading.held["labels"][here]
        x = signal(row)[0]
        step = x.shape[-1] / reading.tokens / (reading.rate or 1.0)
        _trace(axes[0], x, step * reading.tokens)
        for place, label in zip(at, labels, strict=True):
            axes[0].axvspan(place * step, (place + 1) * step, color=colour(int(label)), alpha=0.25, lw=0)
        axes[0].set_title(f"{_group(reading, int(reading.held['groups'][here][0]))}, row {row}", fontsize=9, loc="left")
        for q, book in enumerate(reading.books):
            _dots(axes[1 + q], book, (at + 0.5) * step, reading.held["codes"][here, q])
        axes[-1].set_xlabel("seconds" if reading.rate else "samples")
    return figure


def shown_rows(reading: Reading) -> list[int]:
    """Rows with the most kinds of labels, then the most labelled tokens, each of another group."""
    rows, first = np.unique(reading.held["rows"], return_index=True)
    kinds = [len(np.unique(reading.held["labels"][reading.held["rows"] == row])) for row in rows]
    counts = np.unique(reading.held["rows"], return_counts=True)[1]
    chosen: list[int] = []
    groups: set[int] = set()
    for at in np.lexsort((-counts, -np.array(kinds))):
        group = int(reading.held["groups"][first[at]])
        if group not in groups:
            groups.add(group)
            chosen.append(int(rows[at]))
    return chosen[:WINDOWS]


def code_map(new: Any, reading: Reading, layout: Layout) -> Figure:
    """The code vectors of each codebook, in the colour of the label that each stands for; codes without one grey."""
    figure = new(figsize=(5.2 * len(reading.vectors), 5), layout="constrained")
    for number, (book, vectors) in enumerate(zip(reading.books, reading.vectors, strict=True)):
        axes = figure.add_subplot(1, len(reading.vectors), number + 1)
        use_ = book.counts.sum(1)
        x, y = places(vectors, use_, layout).T
        size = 12 + 160 * np.sqrt(use_ / max(1, use_.max()))
        for label in range(-1, len(reading.names)):
            own = book.label == label
            axes.scatter(x[own], y[own], size[own], colour(label), alpha=0.8, lw=0,
                         label=reading.names[label] if label >= 0 else "not seen")  # fmt: skip
        axes.scatter(x[book.claimed], y[book.claimed], size[book.claimed], "none", edgecolors="black", linewidths=0.9,
                     label="claimed")  # fmt: skip
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{book.name}, {layout.upper().replace('TSNE', 't-SNE')}", fontsize=10, loc="left")
    figure.axes[0].legend(fontsize=8, markerscale=0.7)
    return figure


def examples(new: Any, reading: Reading, signal: Signal) -> Figure:
    """Signals about tokens of the surest codes of each label, whatever label they have; the token itself is shaded."""
    shown = [(book, int(k)) for c in range(len(reading.names)) for book in reading.books
             for k in [k for k in order(book) if book.label[k] == c][:CODES]]  # fmt: skip
    most = max((len(book.examples[k]) for book, k in shown), default=1) or 1
    figure = new(figsize=(11, max(1, len(shown)) * 1.0), layout="constrained")
    grid = figure.subplots(max(1, len(shown)), most, squeeze=False)
    for line, (book, k) in zip(grid, shown, strict=False):
        for axes in line:
            axes.set_axis_off()
        for axes, token in zip(line, book.examples[k], strict=False):
            _example(axes, reading, signal, token, colour(int(book.label[k])))
        told = f"{book.name} code {k}: {reading.names[book.label[k]]} {book.precision[k]:.0%}"
        line[0].set_title(told + (", claimed" if book.claimed[k] else ""), fontsize=8, loc="left")
    return figure


def _example(axes: Axes, reading: Reading, signal: Signal, token: int, shade: str) -> None:
    """Six tokens before the one and six after it."""
    x = signal(int(reading.held["rows"][token]))[0]
    step, place = x.shape[-1] / reading.tokens, int(reading.held["places"][token])
    first, last = (int(np.clip((place + k) * step, 0, x.shape[-1])) for k in (-6, 7))
    seconds = np.arange(first, last) / (reading.rate or 1.0)
    axes.plot(seconds, x[first:last], color="#222222", lw=0.6)
    axes.axvspan(place * step / (reading.rate or 1.0), (place + 1) * step / (reading.rate or 1.0), color=shade,
                 alpha=0.35, lw=0)  # fmt: skip
    true = reading.names[reading.held["labels"][token]]
    axes.text(1, 1, f"{_group(reading, int(reading.held['groups'][token]))}: {true}", fontsize=7, ha="right", va="top",
              transform=axes.transAxes)  # fmt: skip


def _dots(axes: Axes, book: CodeLabels, at: np.ndarray, codes: np.ndarray) -> None:
    height = np.full(len(book.counts), -1)
    height[order(book)] = np.arange(len(order(book)))
    seen = codes >= 0
    axes.scatter(at[seen], height[codes[seen]], 9, [colour(int(label)) for label in book.label[codes[seen]]], lw=0)
    axes.set(ylabel=book.name, yticks=[], ylim=(-3, len(order(book)) + 2))


def _trace(axes: Axes, x: np.ndarray, seconds: float) -> None:
    axes.plot(np.linspace(0, seconds, x.shape[-1], endpoint=False), x, color="#222222", lw=0.5)
    axes.set(yticks=[], xlim=(0, seconds))


def _group(reading: Reading, number: int) -> str:
    named = number < len(reading.group_names)
    return reading.group_names[number] if named else f"{reading.group} {number}"


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()

"""Pictures of what codes stand for: their use, a raster under the signal, code vectors in the plane, and examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from vqtool.analysis.code_labels import CodeLabels, Reading, order
from vqtool.analysis.codes_view import group_name
from vqtool.diagnosis.code_map import Layout, places
from vqtool.diagnosis.plotting import encoded, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#8a8f98", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5230")  # after Okabe, Ito
UNSEEN = "#dddddd"
WINDOWS = 3  # in the raster
CODES = 3  # examples of so many codes a label
AROUND = 6  # tokens shown before and after the one that is an example
Signal = Callable[[int], np.ndarray]  # row -> [C, L]


def draw(reading: Reading, signal: Signal, layout: Layout) -> dict[str, bytes]:
    """PNG files by name. Raises VqtoolError if matplotlib is not installed."""
    drawn = {"use.png": use(reading), "raster.png": raster(reading, signal)}
    if reading.vectors:
        drawn["map.png"] = code_map(reading, layout)
    drawn["examples.png"] = examples(reading, signal)
    return {name: encoded(each) for name, each in drawn.items()}


def new(width: float, height: float) -> Figure:
    """An empty figure."""
    return figure("`--out`", width, height)


def colour(label: int) -> str:
    """Of a label; grey for none."""
    return COLOURS[label % len(COLOURS)] if label >= 0 else UNSEEN


def use(reading: Reading) -> Figure:
    """How many tokens take each code, the most used first, and of which label they are."""
    whole = new(11, 2.6 * len(reading.books))
    for axes, book in zip(whole.subplots(len(reading.books), 1, squeeze=False)[:, 0], reading.books, strict=True):
        totals = book.counts.sum(1)
        counts = book.counts[np.argsort(-totals, kind="stable")]
        place = np.arange(len(counts))
        for c, name in enumerate(reading.names):
            axes.bar(place, counts[:, c], 1.0, counts[:, :c].sum(1), color=colour(c), label=name)
        title(axes, f"{book.name}: {int((totals > 0).sum())} of {len(counts)} codes used")
        axes.set(xlim=(-0.5, len(counts) - 0.5), ylabel="tokens", xlabel="codes, the most used first")
    whole.axes[0].legend(title=reading.label, fontsize=8)
    return whole


def raster(reading: Reading, signal: Signal) -> Figure:
    """The tokens of some rows under their signal: a dot a token, at the height of its code, codes sorted by label."""
    rows = shown_rows(reading)
    whole = new(11, 3.4 * len(rows))
    for part, row in zip(whole.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        axes = part.subplots(1 + len(reading.books), 1, sharex=True)
        here = reading.held["rows"] == row
        at, labels = reading.held["places"][here], reading.held["labels"][here]
        x = signal(row)[0]
        step = x.shape[-1] / reading.tokens / (reading.rate or 1.0)
        axes[0].plot(np.linspace(0, step * reading.tokens, x.shape[-1], endpoint=False), x, color="#222222", lw=0.5)
        axes[0].set(yticks=[], xlim=(0, step * reading.tokens))
        for place, label in zip(at, labels, strict=True):
            axes[0].axvspan(place * step, (place + 1) * step, color=colour(int(label)), alpha=0.25, lw=0)
        title(axes[0], f"{group_name(reading, int(reading.held['groups'][here][0]))}, row {row}")
        for q, book in enumerate(reading.books):
            _dots(axes[1 + q], book, (at + 0.5) * step, reading.held["codes"][here, q])
        axes[-1].set_xlabel("seconds" if reading.rate else "samples")
    return whole


def shown_rows(reading: Reading) -> list[int]:
    """Rows with the most kinds of labels, then the most labelled tokens, each of another group."""
    rows, first, counts = np.unique(reading.held["rows"], return_index=True, return_counts=True)
    kinds = [len(np.unique(reading.held["labels"][reading.held["rows"] == row])) for row in rows]
    chosen: dict[int, int] = {}  # by group
    for at in np.lexsort((-counts, -np.array(kinds))):
        chosen.setdefault(int(reading.held["groups"][first[at]]), int(rows[at]))
    return list(chosen.values())[:WINDOWS]


def code_map(reading: Reading, layout: Layout) -> Figure:
    """The code vectors of each codebook, in the colour of the label that each stands for; codes without one grey."""
    whole = new(5.2 * len(reading.vectors), 5)
    every = whole.subplots(1, len(reading.vectors), squeeze=False)[0]
    for axes, book, vectors in zip(every, reading.books, reading.vectors, strict=True):
        totals = book.counts.sum(1)
        x, y = places(vectors, totals, layout).T
        size = 12 + 160 * np.sqrt(totals / max(1, totals.max()))
        for label in range(-1, len(reading.names)):
            own = book.label == label
            axes.scatter(x[own], y[own], size[own], colour(label), alpha=0.8, lw=0,
                         label=reading.names[label] if label >= 0 else "not seen")  # fmt: skip
        axes.scatter(x[book.claimed], y[book.claimed], size[book.claimed], "none", edgecolors="black", linewidths=0.9,
                     label="claimed")  # fmt: skip
        axes.set(xticks=[], yticks=[])
        title(axes, f"{book.name}, {'t-SNE' if layout == 'tsne' else 'PCA'}")
    whole.axes[0].legend(fontsize=8, markerscale=0.7)
    return whole


def examples(reading: Reading, signal: Signal) -> Figure:
    """Signals around tokens of the surest codes of each label, whatever label they have; the token itself is shaded."""
    shown = [(book, int(k)) for c in range(len(reading.names)) for book in reading.books
             for k in [k for k in order(book) if book.label[k] == c][:CODES]]  # fmt: skip
    most = max((len(book.examples[k]) for book, k in shown), default=1) or 1
    whole = new(11, float(max(1, len(shown))))
    for line, (book, k) in zip(whole.subplots(max(1, len(shown)), most, squeeze=False), shown, strict=False):
        for axes in line:
            axes.set_axis_off()
        for axes, token in zip(line, book.examples[k], strict=False):
            _example(axes, reading, signal, token, colour(int(book.label[k])))
        name = f"{book.name} code {k}: {reading.names[book.label[k]]} {book.precision[k]:.0%}"
        title(line[0], name + (", claimed" if book.claimed[k] else ""), 8)
    return whole


def title(axes: Axes, words: str, size: int = 10) -> None:
    """A title at the left."""
    axes.set_title(words, fontsize=size, loc="left")


def _example(axes: Axes, reading: Reading, signal: Signal, token: int, shade: str) -> None:
    x = signal(int(reading.held["rows"][token]))[0]
    step, place, rate = x.shape[-1] / reading.tokens, int(reading.held["places"][token]), reading.rate or 1.0
    first, last = (int(np.clip((place + k) * step, 0, x.shape[-1])) for k in (-AROUND, AROUND + 1))
    axes.plot(np.arange(first, last) / rate, x[first:last], color="#222222", lw=0.6)
    axes.axvspan(place * step / rate, (place + 1) * step / rate, color=shade, alpha=0.35, lw=0)
    group, label = int(reading.held["groups"][token]), reading.names[reading.held["labels"][token]]
    axes.text(1, 1, f"{group_name(reading, group)}: {label}", fontsize=7, ha="right", va="top",
              transform=axes.transAxes)  # fmt: skip


def _dots(axes: Axes, book: CodeLabels, at: np.ndarray, codes: np.ndarray) -> None:
    ordered = order(book)
    height = np.full(len(book.counts), -1)
    height[ordered] = np.arange(len(ordered))
    seen = codes >= 0
    axes.scatter(at[seen], height[codes[seen]], 9, [colour(int(label)) for label in book.label[codes[seen]]], lw=0)
    axes.set(ylabel=book.name, yticks=[], ylim=(-3, len(ordered) + 2))

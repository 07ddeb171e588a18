"""`vqtool evaluate --sweep`: the same evaluation at several values of one option, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqtool.console import out
from vqtool.diagnosis import plotting
from vqtool.errors import VqtoolError
from vqtool.tables import number

MOST_PANELS = 6
MOST_POINTS = 1000  # each an evaluation of its own


def parse_sweep(text: str) -> tuple[str, list[float]]:
    """`KEY=0:18:3` -> the key and its values, the end included."""
    key, _, span = text.partition("=")
    try:
        start, stop, step = (float(part) for part in span.split(":"))
        count = round((stop - start) / step)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise VqtoolError(f"`{text}` is not a sweep", hint="--sweep KEY=FROM:TO:STEP") from None
    if count < 0:
        raise VqtoolError(f"the sweep `{text}` never reaches its end", hint="--sweep KEY=FROM:TO:STEP")
    if count >= MOST_POINTS:
        raise VqtoolError(f"the sweep `{text}` has {count + 1:,} points", hint=f"at most {MOST_POINTS:,} are evaluated")
    return key, [start + i * step for i in range(count + 1)]


def lines_of(points: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Every figure over the sweep, a baseline's under "<baseline>: <metric>".

    A figure that stays the same is left out where it is a reading of one that moves: `accuracy.hard.<level>` adds
    nothing to `accuracy.hard` over all levels.
    """
    series = {name: [p["model"].get(name) for p in points] for name in points[0]["model"]}
    moving = {name for name, values in series.items() if len(set(values)) > 1}
    kept = {n: v for n, v in series.items() if n in moving or not any(n.startswith(f"{m}.") for m in moving)}
    for baseline in points[0]["baselines"]:
        for name in kept:
            values = [p["baselines"][baseline].get(name) for p in points]
            if any(value is not None for value in values):
                series[f"{baseline}: {name}"] = values
    return {n: v for n, v in series.items() if n in kept or ": " in n}


def show(split: str, key: str, points: Sequence[dict[str, Any]]) -> None:
    """A table: a row for every figure, a column for every value."""
    rows = [[name, *(number(value) for value in values)] for name, values in sorted(lines_of(points).items())]
    out.table(f"held-out: {split}", [key, *(f"{p['value']:g}" for p in points)], rows)


def draw_axes(path: Path, axes: str, points: Sequence[dict[str, Any]]) -> None:
    """One metric over another, `X,Y`: the model as a line with its swept values, baselines as dashed lines at their Y.

    Raises:
        VqtoolError: the model does not have one of them.
    """
    names = [part.strip() for part in axes.split(",")]
    known = points[0]["model"]
    if len(names) != 2 or not set(names) <= known.keys():
        raise VqtoolError(
            f"`--axes {axes}` does not name two figures of this model", hint="two of: " + ", ".join(known)
        )
    x, y = ([p["model"][name] for p in points] for name in names)
    figure = plotting.figure("`--plot`", 5.5, 4)
    panel = figure.add_subplot()
    (line,) = panel.plot(x, y, marker="o", markersize=4, label="model")
    for point, across, up in zip(points, x, y, strict=True):
        panel.annotate(
            f"{point['value']:g}", (across, up), (4, -10), textcoords="offset points", color=line.get_color()
        )
    for baseline, figures in points[0]["baselines"].items():
        if names[1] in figures:
            shade = panel.axhline(figures[names[1]], linestyle="--", linewidth=1, color="grey")
            panel.annotate(baseline, (1, figures[names[1]]), (-4, 3), xycoords=("axes fraction", "data"), ha="right",
                           textcoords="offset points", color=shade.get_color())  # fmt: skip
    panel.set(xlabel=names[0], ylabel=names[1])
    panel.grid(alpha=0.3)
    plotting.write(figure, path)


def draw(path: Path, key: str, points: Sequence[dict[str, Any]]) -> None:
    """A panel for every family of figures that moves (`accuracy.*`), baselines dashed, what stays the same dotted."""
    families: dict[str, dict[str, list[float | None]]] = {}
    for name, values in lines_of(points).items():
        families.setdefault(name.split(": ")[-1].split(".")[0], {})[name] = values
    moving = [f for f, lines in families.items() if any(len(set(v)) > 1 for v in lines.values())][:MOST_PANELS]
    figure = plotting.figure("`--plot`", 5.5 * min(3, len(moving) or 1), 4 * -(-max(1, len(moving)) // 3))
    at = [p["value"] for p in points]
    for place, family in enumerate(moving):
        axes = figure.add_subplot(-(-len(moving) // 3), min(3, len(moving)), place + 1)
        for name, values in families[family].items():
            style = "--" if ": " in name else "-" if len(set(values)) > 1 else ":"
            axes.plot(
                at, [float("nan") if v is None else v for v in values], style, marker="o", markersize=3, label=name
            )
        axes.set(title=family, xlabel=key)
        axes.legend(fontsize=7, frameon=False)
    plotting.write(figure, path)

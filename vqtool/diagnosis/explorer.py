"""The page's explorer of codes: its elements, and the data that its script reads."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from vqtool.diagnosis.code_map import Layout, places
from vqtool.diagnosis.report import Codebook, Report
from vqtool.diagnosis.samples import MOST_CHANNELS, MOST_TOKENS, Samples, thinned

POINTS = 1200  # of a window's signal
AUDIBLE = (4_000, 200_000)  # samples in a second of signals that are offered to be heard
MOST_CODES = 4096  # of one codebook; of a larger one the most used are drawn
GRID = 1000  # steps of a coordinate on the map

EXPLORER = """<div id="explorer" hidden>
<p class="controls"><label>Codebook <select id="book"></select></label>
<label>Code <input id="code" type="number" min="0" step="1" inputmode="numeric"></label>
<button id="more" type="button">more used</button> <button id="less" type="button">less used</button></p>
<div class="pair">
<figure><figcaption id="bars-h"><b>Use</b> <span>of each code, the most used first; click, or use the arrow keys</span>
</figcaption><svg id="bars" viewBox="0 0 400 200" preserveAspectRatio="none" tabindex="0" role="slider"
aria-labelledby="bars-h" aria-valuemin="0"></svg></figure>
<figure id="map-figure"><figcaption><b>Map</b> <span id="map-note"></span></figcaption>
<svg id="map" viewBox="0 0 400 400" aria-label="code vectors in the plane"></svg></figure>
</div>
<div id="panel" aria-live="polite"><h3 id="panel-h"></h3><p id="panel-note"></p>
<div id="windows" class="grid"></div></div>
<div id="streams" hidden><h3>Codes over time</h3>
<p class="controls"><label>Window <select id="stream"></select></label>
<button id="play" type="button">play</button> <button id="play-rebuilt" type="button">play the reconstruction</button>
<button id="play-code" type="button">play the chosen code</button></p>
<svg id="signal" viewBox="0 0 1000 120" preserveAspectRatio="none" role="img" aria-label="the window's signal"></svg>
<canvas id="raster" role="img" aria-label="the codes of its tokens, a row for each codebook"></canvas>
<p class="quiet" id="stream-note"></p></div>
</div>
<noscript><p>Exploring the codes needs scripts; all figures are on this page.</p></noscript>"""


def explorer_data(report: Report, samples: Samples | None, layout: Layout) -> dict[str, Any]:
    """What the page's script reads: counts, places on the map, and pieces of signals as bytes."""
    books = [book_data(book, layout) for book in report.codebooks]
    layout_name = "t-SNE" if layout == "tsne" else "principal components"
    data: dict[str, Any] = {"books": books, "layout": layout_name, "counted": report.tokens > 0}
    if samples is not None:
        data["pieces"] = pieces_data(samples)
        for book, examples in zip(books, samples.examples, strict=False):
            kept = np.arange(len(examples)) if "codes" not in book else np.array(book["codes"])
            book["examples"] = [[[int(p), int(t)] for p, t in examples[code] if p >= 0] for code in kept]
        if samples.codes is not None and samples.originals.ndim == 3:  # the tokens of images are no sequence
            data["streams"] = streams_data(samples)
    return data


def streams_data(samples: Samples) -> dict[str, Any]:
    """The first tokens of a few windows, their signals, and for signals that can be heard the sound."""
    assert samples.codes is not None
    codes = samples.codes[:, :MOST_TOKENS]
    length = round(samples.originals.shape[-1] * codes.shape[1] / samples.codes.shape[1])
    signals = samples.originals[..., :length]
    both = {"sound": signals, "rebuilt": samples.reconstructions}
    heard = AUDIBLE[0] <= samples.rate <= AUDIBLE[1] and signals.shape[1] <= 2
    sounds = {name: sound_data(x[..., :length]) for name, x in both.items() if x is not None} if heard else {}
    return {
        "shape": list(codes.shape),
        "codes": base64.b64encode(codes.astype("<i4").tobytes()).decode(),
        "signals": levels_data(thinned(signals[:, :MOST_CHANNELS], POINTS)),
        "split": samples.split,
        "seconds": length / samples.rate if samples.rate else 0,
        "rate": samples.rate,
        **sounds,
    }


def sound_data(x: np.ndarray) -> str:
    """The mean of the channels of [R, C, L] as 16-bit samples, each window at its full scale."""
    mono = np.nan_to_num(x.astype(np.float64), posinf=0, neginf=0).mean(1)
    scale = np.maximum(np.abs(mono).max(-1, keepdims=True), 1e-12)
    return base64.b64encode((mono / scale * 32767).astype("<i2").tobytes()).decode()


def book_data(book: Codebook, layout: Layout) -> dict[str, Any]:
    """One codebook: counts by code, and its code vectors' places in steps of a thousandth."""
    counts = None if book.counts is None else np.asarray(book.counts, np.float64)
    data: dict[str, Any] = {"name": book.name, "size": book.size}
    kept = np.arange(book.size)
    if book.size > MOST_CODES:
        kept = np.sort(np.argsort(-(counts if counts is not None else -kept), kind="stable")[:MOST_CODES])
        data["codes"] = kept.tolist()
    if counts is not None:
        data["total"] = float(f"{counts.sum():.6g}")
        data["counts"] = [int(c) if float(c).is_integer() else float(f"{c:.4g}") for c in counts[kept]]
    if book.vectors is not None and len(book.vectors) == book.size:
        here = places(book.vectors[kept], None if counts is None else counts[kept], layout)
        data["x"], data["y"] = ((GRID * here[:, i]).round().astype(int).tolist() for i in range(2))
    return data


def pieces_data(samples: Samples) -> dict[str, Any]:
    """Pieces as bytes."""
    about = {"tokens": samples.piece_tokens, "unit": samples.unit, "split": samples.split}
    return about | levels_data(samples.pieces)


def levels_data(signals: np.ndarray) -> dict[str, Any]:
    """Signals [M, C, ...] as bytes, each channel between its own lowest and highest value."""
    signals = np.nan_to_num(signals.astype(np.float64), posinf=0, neginf=0)
    axes = tuple(range(2, signals.ndim))
    low, high = signals.min(axes, keepdims=True), signals.max(axes, keepdims=True)
    levels = np.round(255 * (signals - low) / np.where(high > low, high - low, 1)).astype(np.uint8)
    return {
        "shape": list(signals.shape),
        "low": [float(f"{v:.4g}") for v in low.ravel()],
        "high": [float(f"{v:.4g}") for v in high.ravel()],
        "bytes": base64.b64encode(levels.tobytes()).decode(),
    }

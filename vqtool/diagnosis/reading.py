"""From a checkpoint and its run to a report, with numpy alone: no torch, and no data are encoded."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.diagnosis.measures import drift, geometry, usage
from vqtool.diagnosis.report import Codebook, Report
from vqtool.errors import VqtoolError
from vqtool.metadata import parsed
from vqtool.runs import BEST, LAST, stage_names
from vqtool.untrusted import json_value

FORGOTTEN = 0.01  # of uniform use: a moving average below this is that of a dead code
Arrays = dict[str, np.ndarray]


def report_of(checkpoint: Path) -> Report:
    """Everything that a checkpoint, and the run it lies in, tell of the quantizer.

    Raises:
        VqtoolError: the file cannot be read, or holds no quantizer.
    """
    about, arrays = read(checkpoint, (r"usage\.", r"vectors\.", r"parts\.quantizer\..*(codes|weights)$"))
    quantizer = about.get("quantizer")
    resolved: dict[str, Any] = about["resolved"] if isinstance(about.get("resolved"), dict) else {}
    if quantizer is None and "quantizer" not in (resolved.get("parts") or {}):
        raise VqtoolError(f"`{checkpoint}` holds no quantizer: there is nothing to diagnose",
                          hint=f"vqtool show {checkpoint}")  # fmt: skip
    folder = checkpoint.parent
    run = folder if (folder / "resolved.json").is_file() else None
    counted, counts = _counts(arrays, about)
    known = {q: (arrays[f"usage.{q}.errors"], arrays[f"usage.{q}.offsets"]) for q in counts
             if f"usage.{q}.offsets" in arrays}  # fmt: skip
    validation = {k: float(v) for k, v in (about.get("validation") or {}).items()
                  if isinstance(v, int | float) and k != "step"}  # fmt: skip
    measures = validation | (held_out(run, checkpoint) if run is not None else {})
    names, sizes, vectors = _shape(arrays, quantizer or {}, counts)
    books = [codebook(name, sizes[q], counts.get(q), vectors.get(q), measures, known.get(q))
             for q, name in enumerate(names)]  # fmt: skip
    if run is not None:
        books = _with_drift(books, earlier_vectors(checkpoint, run, about))
    return Report(
        source=checkpoint,
        counted=counted,
        tokens=max((int(n.sum()) for n in counts.values()), default=0),
        codebooks=tuple(books),
        measures=measures,
        history=history(run / "metrics.jsonl") if run is not None else (),
        recipe=resolved,
        about=about,
        run=run,
    )


def read(path: Path, wanted: Sequence[str]) -> tuple[dict[str, Any], Arrays]:
    """A checkpoint's metadata, parsed, and those of its tensors whose names begin with one of some patterns."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "np") as file:
            about = parsed(path, file.metadata() or {})
            names = {name: name for name in file.keys()} | dict(about.pop("aliases", None) or {})  # noqa: SIM118
            arrays = {name: file.get_tensor(source) for name, source in names.items()
                      if any(re.match(one, name) for one in wanted)}  # fmt: skip
    except (SafetensorError, OSError) as error:
        raise VqtoolError(f"`{path}` is no whole safetensors file: {error}",
                          hint="it may be truncated or of another kind") from error  # fmt: skip
    return about, arrays


def _counts(arrays: Arrays, about: Mapping[str, Any]) -> tuple[str, dict[int, np.ndarray]]:
    """What was counted, and the counts [K] of each codebook: of the last validation, else the moving averages."""
    exact = {int(name.split(".")[1]): value for name, value in arrays.items()
             if re.fullmatch(r"usage\.\d+\.counts", name)}  # fmt: skip
    if exact:
        return "split valid", exact
    weights = [value for name, value in sorted(arrays.items(), key=lambda i: _natural(i[0]))
               if name.endswith("weights") and value.ndim == 1]  # fmt: skip
    if weights and all(w.sum() > 0 for w in weights):
        options = about.get("resolved", {}).get("parts", {}).get("quantizer", {}).get("options", {})
        memory = 1 / (1 - float(options.get("decay", 0.0)))  # steps that the average remembers
        alive = (np.where(w > FORGOTTEN * w.mean(), w, 0.0) for w in weights)
        return "the moving average of training", {q: w * memory for q, w in enumerate(alive)}
    return "nothing: it holds no counts", {}


def _natural(name: str) -> list[Any]:
    """A sorting key by which `codebooks.10` comes after `codebooks.9`."""
    return [int(part) if part.isdigit() else part for part in name.split(".")]


def _shape(
    arrays: Arrays, quantizer: Mapping[str, Any], counts: Mapping[int, np.ndarray]
) -> tuple[list[str], list[int], dict[int, np.ndarray]]:
    """The codebooks' names and sizes, and their vectors where there are any."""
    vectors = {int(name.split(".")[1]): value for name, value in arrays.items() if name.startswith("vectors.")}
    if not vectors:  # a checkpoint of an earlier vqtool
        plain = [v for n, v in sorted(arrays.items(), key=lambda i: _natural(i[0])) if n.endswith("codes")]
        vectors = dict(enumerate(v for value in plain for v in (value if value.ndim == 3 else [value])))
    sizes = quantizer.get("sizes") or [len(v) for _, v in sorted((counts or vectors).items())]
    names = ["codebook"] if len(sizes) == 1 else [f"group{q}" for q in range(len(sizes))]
    return list(quantizer.get("names") or names), list(sizes), vectors


def recounted(
    report: Report,
    counted: str,
    counts: Sequence[np.ndarray],
    errors: Mapping[int, tuple[np.ndarray, np.ndarray]],
    figures: Mapping[str, float],
) -> Report:
    """The report with another split's counts [K] of each codebook, its errors (see `codebook`) and its figures."""
    measures = {**report.measures, **figures}
    books = []
    for q, (book, n) in enumerate(zip(report.codebooks, counts, strict=True)):
        fresh = codebook(book.name, book.size, n, book.vectors, measures, errors.get(q))
        kept = {name: book.measures[name] for name in ("drift",) if name in book.measures}
        books.append(replace(fresh, measures={**fresh.measures, **kept}))
    tokens = max((int(n.sum()) for n in counts), default=0)
    return replace(report, counted=counted, tokens=tokens, codebooks=tuple(books), measures=measures)


def codebook(
    name: str,
    size: int,
    counts: np.ndarray | None,
    vectors: np.ndarray | None,
    measures: Mapping[str, float],
    errors: tuple[np.ndarray, np.ndarray] | None = None,
) -> Codebook:
    """A codebook with all its measures; of `measures`, those under its own name (`codes.error.level3`) become its.

    `errors` are, per code, the sum of squared distances of its inputs and its squared distance to their mean.
    """
    own = {} if counts is None else usage(counts)
    if vectors is not None and len(vectors) > 1 and np.isfinite(vectors).all():
        own |= geometry(vectors, counts)
    for key in ("error", "lag", "moved", "followed"):
        value = measures.get(f"codes.{key}.{name}")
        if value is not None:
            own[key] = value
    if errors is not None and counts is not None:
        own["lagging_codes"] = float(((counts > 1) & (counts * errors[1] > 0.5 * errors[0])).sum())
    return Codebook(name, size, counts, vectors, own)


def _with_drift(books: list[Codebook], before: Arrays) -> list[Codebook]:
    """The codebooks with how far each moved since an earlier checkpoint, whose vectors are `before`."""
    moved = []
    for q, book in enumerate(books):
        old = before.get(f"vectors.{q}")
        if old is not None and book.vectors is not None and old.shape == book.vectors.shape:
            book = replace(book, measures={**book.measures, "drift": drift(old, book.vectors)})
        moved.append(book)
    return moved


def earlier_vectors(checkpoint: Path, run: Path, about: Mapping[str, Any]) -> Arrays:
    """The code vectors in the run's newest checkpoint of an earlier step or stage than this one; none without.

    A stage's result is its best, which may be of an earlier step than checkpoints that were written before it.
    """
    files = [run / f"{stage}.safetensors" for stage in stage_names(run)] + [run / BEST, run / LAST]
    times = {f: f.stat().st_mtime for f in files if f.is_file()}
    mine = checkpoint.stat().st_mtime
    for path in sorted(times, key=lambda f: -times[f]):
        if path == checkpoint or times[path] > mine:
            continue
        try:
            other, arrays = read(path, (r"vectors\.",))
        except VqtoolError:  # being written, or damaged: another command tells of that
            continue
        if other.get("stage") != about.get("stage") or weights_step(other) < weights_step(about):
            return arrays
    return {}


def weights_step(about: Mapping[str, Any]) -> float:
    """The step whose weights a checkpoint holds: that of its validation, where it tells."""
    step = (about.get("validation") or {}).get("step", about.get("step"))
    return float(step) if isinstance(step, int | float) else -1.0


def history(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a line that is only half written is left out."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):  # the last line of a run that was killed
            row = json_value(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def held_out(run: Path, checkpoint: Path) -> dict[str, float]:
    """The metrics of a finished run, where they are this checkpoint's: of its first held-out split."""
    try:
        summary = json_value((run / "summary.json").read_bytes())
        if Path(summary["checkpoint"]).name != checkpoint.name:
            return {}
        splits = list(summary["splits"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    found = splits[0].get("model", {}) if splits else {}
    return {name: float(value) for name, value in found.items()
            if isinstance(value, int | float) and math.isfinite(value) and not name.startswith("codes.")}  # fmt: skip

"""From a checkpoint and its run to a report, with numpy alone: no torch, and no data are encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.diagnosis.measures import drift, geometry, usage
from vqtool.diagnosis.report import Codebook, Report
from vqtool.errors import VqtoolError
from vqtool.forms import damaged, is_finite, read_json
from vqtool.model.format import (
    BEST,
    BYPASS,
    LAST,
    METRICS_FILE,
    PARTS,
    SUMMARY_FILE,
    USAGE,
    USAGE_FIGURES,
    VECTORS,
    read_header,
    stage_file,
    under,
)
from vqtool.model.runs import SUMMARY, is_run, rows_of, stage_names

FORGOTTEN = 0.01  # of uniform use: a moving average below this is that of a dead code
NOTHING = "nothing (it holds no counts)"
Arrays = dict[str, np.ndarray]


def report_of(checkpoint: Path) -> Report:
    """Everything that a checkpoint, and the run it is in, contain about the quantizer.

    Raises:
        VqtoolError: the file cannot be read, or holds no quantizer.
    """
    metadata, arrays = read(checkpoint, lambda name: name.startswith((USAGE, VECTORS)) or is_old_codebook(name))
    quantizer = metadata.get("quantizer")
    _check_codebooks(checkpoint, arrays, quantizer)
    resolved: dict[str, Any] = metadata.get("resolved", {})
    if quantizer is None and "quantizer" not in resolved.get("parts", {}):
        raise VqtoolError(f"`{checkpoint}` holds no quantizer: there is nothing to diagnose",
                          hint=f"vqtool show {checkpoint}")  # fmt: skip
    folder = checkpoint.parent
    run = folder if is_run(folder) else None
    counted, counts = _counts(arrays, metadata)
    used = under(USAGE, arrays)
    known = {q: (used[f"{q}.errors"], used[f"{q}.offsets"]) for q in counts
             if {f"{q}.errors", f"{q}.offsets"} <= used.keys()}  # fmt: skip
    validation = {k: float(v) for k, v in (metadata.get("validation") or {}).items()
                  if isinstance(v, int | float) and k != "step"}  # fmt: skip
    measures = validation | (held_out(run, checkpoint) if run is not None else {})
    names, sizes, vectors = _shape(arrays, quantizer or {}, counts)
    books = [codebook(name, sizes[q], counts.get(q), vectors.get(q), measures, known.get(q))
             for q, name in enumerate(names)]  # fmt: skip
    if run is not None:
        books = _with_drift(books, earlier_vectors(checkpoint, run, metadata))
    return Report(
        source=checkpoint,
        counted=counted,
        tokens=max((int(n.sum()) for n in counts.values()), default=0),
        codebooks=tuple(books),
        measures=measures,
        history=[r for r in rows_of(run / METRICS_FILE) if not r.get(BYPASS)] if run is not None else (),
        recipe=resolved,
        metadata=metadata,
        run=run,
        not_finite=not_finite(checkpoint),
    )


def read(path: Path, wanted: Callable[[str], bool]) -> tuple[dict[str, Any], Arrays]:
    """A checkpoint's metadata, and those of its tensors whose names are `wanted`."""
    header = read_header(path)
    names = {name: name for name in header.tensors} | header.aliases
    return header.metadata, dict(_arrays(path, {name: source for name, source in names.items() if wanted(name)}))


def is_old_codebook(name: str) -> bool:
    """Whether a tensor is a codebook's state, which is all that checkpoints before 0.1 hold of its codes."""
    return name.startswith(f"{PARTS}quantizer.") and name.endswith(("codes", "weights"))


def _arrays(path: Path, sources: Mapping[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors under their names, one after the other, from the names they are stored under."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "np") as file:
            for name, source in sources.items():
                try:
                    array = file.get_tensor(source)
                    yield name, array.astype(np.float32) if array.dtype == np.float16 else array  # sums overflow in it
                except TypeError as error:  # bfloat16 and the like
                    raise damaged(path, f"its tensor `{source}` has a dtype that no part has") from error
    except SafetensorError as error:
        raise damaged(path, str(error)) from error
    except OSError as error:
        raise VqtoolError(f"cannot read `{path}`: {error.strerror or error}", exit_code=1) from error


def not_finite(path: Path) -> dict[str, int]:
    """How many values of each of the parts' tensors are NaN or infinite, where any is."""
    floats = {n: n for n, (kind, _) in read_header(path).tensors.items() if n.startswith(PARTS) and kind[0] == "F"}
    bad = {name: int((~np.isfinite(array)).sum()) for name, array in _arrays(path, floats)}
    return {name: count for name, count in bad.items() if count}


def _counts(arrays: Arrays, metadata: Mapping[str, Any]) -> tuple[str, dict[int, np.ndarray]]:
    """What was counted, and the counts [K] of each codebook: of the last validation, else the moving averages."""
    used = under(USAGE, arrays)
    exact = {int(name.removesuffix(".counts")): value for name, value in used.items() if name.endswith(".counts")}
    if exact:
        return "split valid", exact
    weights = [value for name, value in sorted(arrays.items(), key=lambda i: _natural(i[0]))
               if name.endswith("weights") and value.ndim == 1]  # fmt: skip
    if weights and all(w.sum() > 0 for w in weights):
        options = metadata.get("resolved", {}).get("parts", {}).get("quantizer", {}).get("options", {})
        decay = options.get("decay", 0.0)
        memory = 1 / (1 - decay) if is_finite(decay) and decay < 1 else 1.0  # steps that the average remembers
        alive = (np.where(w > FORGOTTEN * w.mean(), w, 0.0) for w in weights)
        return "the moving average of training", {q: w * memory for q, w in enumerate(alive)}
    return NOTHING, {}


def _check_codebooks(path: Path, arrays: Arrays, quantizer: Mapping[str, Any] | None) -> None:
    """What a checkpoint holds of its codebooks must agree: sizes, use of codes and code vectors."""
    sizes = quantizer["sizes"] if quantizer is not None else []
    if quantizer is not None and (len(sizes) != len(quantizer["names"]) or min(sizes, default=0) < 1):
        raise damaged(path, "the `sizes` of its `quantizer` do not fit its `names`")
    for name, array in arrays.items():
        if name.startswith(PARTS):
            continue
        number, _, figure = name.removeprefix(VECTORS).removeprefix(USAGE).partition(".")
        known = figure == "" if name.startswith(VECTORS) else figure in USAGE_FIGURES
        fits = known and number.isdecimal() and len(number) < 10 and array.ndim == (1 if figure else 2)
        if fits and quantizer is not None:
            fits = int(number) < len(sizes) and sizes[int(number)] == len(array)
        if not fits:
            raise damaged(path, f"its tensor `{name}` does not fit its codebooks")
        if name.endswith("counts") and (array.dtype.kind not in "iu" or (array < 0).any()):
            raise damaged(path, f"its tensor `{name}` should hold counts")


def _natural(name: str) -> list[Any]:
    """A sorting key by which `codebooks.10` comes after `codebooks.9`."""
    return [int(part) if part.isdigit() else part for part in name.split(".")]


def _shape(
    arrays: Arrays, quantizer: Mapping[str, Any], counts: Mapping[int, np.ndarray]
) -> tuple[list[str], list[int], dict[int, np.ndarray]]:
    """The codebooks' names and sizes, and their vectors where there are any."""
    vectors = {int(number): value for number, value in under(VECTORS, arrays).items()}
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
        old = before.get(f"{VECTORS}{q}")
        if old is not None and book.vectors is not None and old.shape == book.vectors.shape:
            book = replace(book, measures={**book.measures, "drift": drift(old, book.vectors)})
        moved.append(book)
    return moved


def earlier_vectors(checkpoint: Path, run: Path, metadata: Mapping[str, Any]) -> Arrays:
    """The code vectors in the run's newest checkpoint of an earlier step or stage than this one; none without.

    A stage's result is its best, which may be of an earlier step than checkpoints that were written before it.
    """
    files = [run / name for name in (*map(stage_file, stage_names(run)), BEST, LAST)]
    times = {f: f.stat().st_mtime for f in files if f.is_file()}
    mine = checkpoint.stat().st_mtime
    for path in sorted(times, key=lambda f: -times[f]):
        if path == checkpoint or times[path] > mine:
            continue
        try:
            other, arrays = read(path, lambda name: name.startswith(VECTORS))
        except VqtoolError:  # being written, or damaged: other commands report that
            continue
        if other.get("stage") != metadata.get("stage") or weights_step(other) < weights_step(metadata):
            return arrays
    return {}


def weights_step(metadata: Mapping[str, Any]) -> float:
    """The step whose weights a checkpoint holds: that of its validation, where it is known."""
    step = (metadata.get("validation") or {}).get("step", metadata.get("step"))
    return float(step) if isinstance(step, int | float) else -1.0


def held_out(run: Path, checkpoint: Path) -> dict[str, float]:
    """The metrics of a finished run, where they are this checkpoint's: of its first held-out split."""
    try:
        summary = read_json(run / SUMMARY_FILE, SUMMARY)
    except FileNotFoundError:
        return {}
    if Path(summary.get("checkpoint", "")).name != checkpoint.name:
        return {}
    found: dict[str, Any] = next((split["model"] for split in summary["splits"].values()), {})
    return {name: float(value) for name, value in found.items()
            if is_finite(value) and not name.startswith("codes.")}  # fmt: skip

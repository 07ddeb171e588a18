"""From the tensors of a model that vqtool did not train, or from its codes, to the one report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.diagnosis.measures import geometry, joint_usage, sequences, unmoved
from vqtool.diagnosis.reading import FORGOTTEN, NOTHING, codebook, recounted, report_of
from vqtool.diagnosis.report import Codebook, Report
from vqtool.errors import VqtoolError
from vqtool.foreign.codes import USUAL, Codes, arranged, codes_among, counts_of, may_be_codes
from vqtool.foreign.families import ForeignCodebook, codebooks_in, fixed_grids, natural
from vqtool.foreign.tensors import Stored, Tensors, tensors_in, tensors_of
from vqtool.model.format import is_of_vqtool, read_header
from vqtool.model.runs import checkpoint_path, is_run, newest_in

PER_CODE = 1000.0  # tokens that a moving average of use counts for: it is taken as what use is, not as a sample of it
BARE = ("", "arr_0")  # names of arrays that were saved without one
HINTED = 6  # tensors that an error lists


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file or its codes are to be read, where names and shapes leave it open."""

    codes: Any = None  # a file of codes, or the codes
    layout: str | None = None  # of the codes: a letter for each axis, as `arranged` takes it
    sizes: tuple[int, ...] = ()  # codes of each codebook; one number for all
    vectors: Any = None  # a pattern of the tensors that hold code vectors; or these themselves, [K, D] of each codebook
    usage: Any = None  # the same of counts [K]


def report_of_any(given: Any, reading: Reading) -> Report:
    """The report of a checkpoint or run of vqtool, of any other file of tensors or model's folder, or of codes.

    Args:
        given: a path; None for the newest run under `runs/`, or for codes or vectors that `reading` has; else a module,
            a state dict, or codes or vectors as an array.
        reading: how what others made is to be read; of a checkpoint of vqtool its codes alone are counted anew.

    Raises:
        VqtoolError: there is nothing, it is damaged or a pickle that needs code, or no codebook was found in it.
    """
    by_name = reading.vectors is not None or reading.usage is not None
    if given is None and (by_name or reading.codes is not None):
        return foreign_report(reading.codes if isinstance(reading.codes, Path) else Path("codes"), {}, reading)
    if given is not None and not isinstance(given, Path):
        tensors = tensors_in(given)
        if reading.codes is None and tensors.keys() == {""} and not isinstance(reading.vectors, str | None):
            tensors, reading = {}, replace(reading, codes=given)  # codes, beside vectors
        return foreign_report(Path(_named(given)), tensors, reading)
    if given is not None and given.exists() and (by_name or not is_own(given)):
        return foreign_report(given, tensors_of(given), reading)
    report = report_of(checkpoint_path(given))
    if reading.codes is None:
        return report
    codes, counted, _ = _codes(reading, reading.codes, len(report.codebooks))
    counts = counts_of(codes, [book.size for book in report.codebooks])
    return recounted(report, counted, counts, {}, _together(codes))


@np.errstate(over="ignore", invalid="ignore")  # values that are no numbers are findings, not warnings
def foreign_report(source: Path, tensors: Tensors, reading: Reading) -> Report:
    """What a model's tensors, and codes that it made, show of its codebooks.

    Raises:
        VqtoolError: no codebook was found and no codes are given, or they do not fit each other.
    """
    found = _codebooks(tensors, reading)
    grids = fixed_grids(tensors, found)
    found = [book for book in found if book.family != "unknown" or book.tensor.rpartition(".")[0] not in grids]
    codes = reading.codes
    if codes is None and not found and _holds_codes(tensors):
        codes = source if source.is_file() else codes_among(tensors, source).read()
    elif hasattr(codes, "detach"):
        codes = tensors_in(codes)[""].read()
    if codes is not None:
        placed, counted, sizes = _codes(reading, codes, len(found) or None)
        return _of_codes(source, found, placed, counted, sizes, grids)
    if not found and not grids:
        raise nothing_found(source, tensors)
    return _of_vectors(source, found, grids)


def _named(given: Any) -> str:
    """What a report calls something that has no path."""
    return (
        type(given).__name__
        if hasattr(given, "state_dict")
        else "state dict"
        if isinstance(given, Mapping)
        else "codes"
    )


def _codebooks(tensors: Tensors, reading: Reading) -> list[ForeignCodebook]:
    """The codebooks; an array of floats without a name is one."""
    if reading.vectors is not None and not isinstance(reading.vectors, str):
        return codebooks_in(_given(reading.vectors, "codebook") | _given(reading.usage, "usage"))
    bare = [name for name, s in tensors.items() if name in BARE and s.is_float and len(s.shape) in (2, 3)
            and not _are_whole(s)]  # fmt: skip
    vectors = reading.vectors if reading.vectors is not None or not bare else ""
    return codebooks_in(tensors, vectors=vectors, usage=reading.usage)


def _given(values: Any, word: str) -> dict[str, Stored]:
    """Vectors or counts that are given themselves, one array for each codebook, under names that are known."""
    if values is None or isinstance(values, str):
        return {}
    each = [values] if getattr(values, "ndim", 0) == (2 if word == "codebook" else 1) else list(values)
    names = ["codebook"] if len(each) == 1 else [f"level{q}" for q in range(len(each))]
    return {f"{name}.{word}": tensors_in(one)[""] for name, one in zip(names, each, strict=True)}


def _codes(reading: Reading, codes: Any, levels: int | None) -> tuple[Codes, str, Sequence[int]]:
    """Codes [N, T, Q], what was read, and their codebooks' sizes where these are known."""
    name, sizes = "the codes", reading.sizes
    if isinstance(codes, Path):
        name, path = codes.name, codes
        codes = codes_among(tensors_of(path), path).read()
        sizes = sizes or own_sizes(path)
    placed = arranged(codes, reading.layout, levels or (len(sizes) if len(sizes) > 1 else None))
    shape = " x ".join(map(str, placed.shape))
    return placed, f"{name}, read as {shape} (sequences, positions, codebooks)", sizes


def own_sizes(path: Path) -> tuple[int, ...]:
    """The codebooks' sizes that a file of codes of vqtool's names; empty for any other file."""
    if not is_of_vqtool(path):
        return ()
    sizes: list[int] = read_header(path).metadata.get("codebook_sizes", [])
    return tuple(sizes)


def is_own(path: Path) -> bool:
    """Whether a path is a run or a checkpoint of vqtool's."""
    if path.is_dir():
        newest = newest_in(path)
        return is_run(path) or (newest is not None and is_of_vqtool(newest))
    return is_of_vqtool(path) and read_header(path).metadata.get("kind") != "codes"


def _together(codes: Codes) -> dict[str, float]:
    """The figures of all levels together, and of sequences."""
    levels = codes.shape[-1]
    return (joint_usage(codes.reshape(-1, levels)) if levels > 1 else {}) | sequences(codes[:, :, 0])


def _holds_codes(tensors: Tensors) -> bool:
    whole = [n for n, s in tensors.items() if may_be_codes(s) or (n in BARE and s.is_float and _are_whole(s))]
    return bool(whole) and (len(whole) == len(tensors) or any(name in USUAL for name in whole))


def _are_whole(stored: Stored) -> bool:
    """Whether floats are codes that were saved as floats."""
    values = stored.read()
    return bool(values.size and values.min() >= 0 and values.max() >= 2 and (values == np.round(values)).all())


def nothing_found(source: Path, tensors: Tensors) -> VqtoolError:
    """The error for a file without a codebook that is known: what is in it, and which options would help."""
    tables = {n: s for n, s in tensors.items() if s.is_float and len(s.shape) in (2, 3) and min(s.shape) > 1}
    likely = sorted(tables, key=lambda n: (not _sounds_like_codes(n), natural(n)))[:HINTED]
    what = ", ".join(f"`{name}` {tables[name].dtype}{list(tables[name].shape)}" for name in likely)
    more = f" and {len(tables) - len(likely)} more" if len(tables) > len(likely) else ""
    held = f"; of its {len(tensors)} tensors these could be: {what}{more}" if likely else f" ({len(tensors)} tensors)"
    options = "--vectors REGEX (and --usage REGEX for their counts) names them, " if likely else ""
    return VqtoolError(f"no codebook was found in `{source}`{held}",
                       hint=f"{options}--codes FILE diagnoses codes that the model made")  # fmt: skip


def _sounds_like_codes(name: str) -> bool:
    return any(word in name.lower() for word in ("code", "quant", "vq", "embed", "emb."))


def _of_vectors(source: Path, found: Sequence[ForeignCodebook], grids: Mapping[str, str]) -> Report:
    """The report of what the file alone holds."""
    books, counted, missing, idle = [], set[str](), [], []
    for name, book in zip(short_names(found), found, strict=True):
        counts, kind = _use(book)
        if _not_started(book):
            idle.append(name)
            books.append(Codebook(name, len(book.vectors), None, None))
            continue
        if counts is None:
            missing.append(name)
        else:
            counted.add(kind)
        made = codebook(name, len(book.vectors), counts, book.vectors, {})
        books.append(made if counts is not None or book.frozen else _by_motion(made))
    tokens = [int(b.counts.sum()) for b in books if b.counts is not None] if counted == {"counts"} else []
    what = " and ".join(f"the {kind} of use in the file" for kind in sorted(counted))
    return Report(
        source=source,
        counted=what or NOTHING,
        tokens=max(tokens, default=0),
        codebooks=tuple(books),
        measures={},
        metadata=_metadata(found, grids, no_counts=missing, not_started=idle),
    )


def _by_motion(book: Codebook) -> Codebook:
    """A codebook without counts, with how many codes never moved; its geometry is that of the others."""
    assert book.vectors is not None
    still = unmoved(book.vectors)
    some = 0 < still.sum() < book.size - 1 and np.isfinite(book.vectors).all()
    moved = geometry(book.vectors[~still]) if some else {}
    return replace(book, measures={**book.measures, **moved, "unmoved": float(still.sum())})


def _of_codes(
    source: Path,
    found: Sequence[ForeignCodebook],
    codes: Codes,
    counted: str,
    sizes: Sequence[int],
    grids: Mapping[str, str],
) -> Report:
    """The report of codes [N, T, Q], with the vectors of the file's codebooks where it holds any."""
    levels = codes.shape[-1]
    if found and levels > len(found):
        raise VqtoolError(f"the codes have {levels} levels, and `{source}` holds {len(found)} codebooks",
                          hint="--layout says which axis is what")  # fmt: skip
    if len(sizes) not in (0, 1, levels):
        raise VqtoolError(
            f"--sizes has {len(sizes)} numbers, and the codes {levels} levels",
            hint="one for all, or one for each",
        )
    own = [len(book.vectors) for book in found[:levels]]
    every = own or list(sizes) * (levels if len(sizes) == 1 else 1)
    counts = counts_of(codes, every or None)
    names = short_names(found) if found else ["codebook"] if levels == 1 else [f"level{q}" for q in range(levels)]
    vectors = [None if _not_started(book) else book.vectors for book in found] or [None] * levels
    books = [codebook(names[q], len(n), n, vectors[q], {}) for q, n in enumerate(counts)]
    return Report(
        source=source,
        counted=counted,
        tokens=max(int(n.sum()) for n in counts),
        codebooks=tuple(books),
        measures=_together(codes),
        metadata=_metadata(found, grids, sizes_unknown=[] if every else names, not_counted=names[levels:]),
    )


def _metadata(found: Sequence[ForeignCodebook], grids: Mapping[str, str], **lists: Sequence[str]) -> dict[str, Any]:
    """What findings and pages need to know of a model that no recipe made."""
    families = list(dict.fromkeys([*(book.family for book in found), *grids.values()]))
    families = [family for family in families if family not in ("unknown", "named")]
    units = {book.unit for book in found} - {""}
    names = short_names(found)
    return {
        "quantizer": {"noun": units.pop() if len(units) == 1 else "codebook"},
        "foreign": {
            "family": ", ".join(families),
            "cosine": [name for name, book in zip(names, found, strict=True) if book.cosine],
            "frozen": [name for name, book in zip(names, found, strict=True) if book.frozen],
            "grids": dict(grids),
            **{name: list(value) for name, value in lists.items()},
        },
    }


def _use(book: ForeignCodebook) -> tuple[np.ndarray | None, str]:
    """A codebook's counts, and what they are; None where none were stored, or those that are were never updated."""
    use = book.counts
    if use is None or not np.isfinite(use).all() or use.sum() <= 0 or (len(use) > 1 and np.ptp(use) == 0):
        return None, ""
    use = np.clip(use, 0, None)
    if (use == np.round(use)).all():
        return use.astype(np.int64), "counts"
    return np.where(use > FORGOTTEN * use.mean(), use, 0.0) * (PER_CODE / use.mean()), "moving average"


def _not_started(book: ForeignCodebook) -> bool:
    """Whether a codebook was never started: by its own flag, or by zeros whose counts were never updated."""
    never_used = book.counts is not None and _use(book)[0] is None
    return book.started is False or (never_used and not book.vectors.any())


def short_names(found: Sequence[ForeignCodebook]) -> list[str]:
    """The codebooks' names without wrappers and without what all begin with; the last two parts at least stay."""
    split = [re.sub(r"^((model_)?state_dict\.|module\.|_orig_mod\.)+", "", book.name).split(".") for book in found]
    shared = 0
    while len(split) > 1 and all(len(p) > shared + 2 and p[shared] == split[0][shared] for p in split):
        shared += 1
    while shared and any(parts[shared].isdecimal() for parts in split):
        shared -= 1
    return [".".join(parts[shared:]) for parts in split]

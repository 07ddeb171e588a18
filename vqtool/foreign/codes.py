"""Codes of any model, as arrays of whole numbers: which axis is what, and how often each code was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.errors import VqtoolError
from vqtool.foreign.tensors import Stored, Tensors

Codes = np.ndarray[Any, np.dtype[np.int64]]
SEQUENCES, LEVELS = "nb", "q"  # letters of a layout; all others are positions within a sequence, in their order
USUAL = ("codes", "audio_codes", "indices", "tokens", "ids", "code", "arr_0", "")  # names of the array, best first
MOST = 1 << 24  # codes of a codebook
MOST_LEVELS = 64  # of an axis that is taken for the levels where no layout is given
LAYOUT_HINT = "--layout has a letter for each axis: n sequences, q levels or groups, others positions: nqt, ntq, nhw"


def codes_among(tensors: Tensors, source: Path) -> Stored:
    """The one tensor of a file of codes; of several the one of whole numbers, or the one of a usual name.

    Raises:
        VqtoolError: there is none, or several.
    """
    whole = {name: stored for name, stored in tensors.items() if may_be_codes(stored) or len(tensors) == 1}
    named = [name for name in USUAL if name in whole] or list(whole)
    if not whole or (len(named) > 1 and named[0] not in USUAL):
        some = ", ".join(f"`{name}` {s.dtype}{list(s.shape)}" for name, s in [*tensors.items()][:5])
        several = f"`{source}` holds {len(whole)} arrays that may be codes"
        raise VqtoolError(several if whole else f"`{source}` holds no codes: {some}",
                          hint="save the codes alone, as whole numbers: numpy.save('codes.npy', codes)")  # fmt: skip
    return whole[named[0]]


def may_be_codes(stored: Stored) -> bool:
    """Whether a tensor holds whole numbers, of one axis or more."""
    return stored.dtype[0] in "IU" and len(stored.shape) >= 1 and 0 not in stored.shape


def arranged(codes: Any, layout: str | None, levels: int | None) -> Codes:
    """Codes as [N, T, Q]: N sequences of T positions, with the codes of Q levels or groups.

    Args:
        codes: whole numbers of any shape; negative ones are padding.
        layout: a letter for each axis: "n" (or "b") sequences, "q" levels, any other positions. By default it is
            inferred: [T], [N, T] of one level; of several, the axis that is as long as there are levels, or the much
            shorter one of the last two; 4 axes are EnCodec's [chunks, N, Q, T], or vqtool's [N, H, W, Q] where the last
            one alone is as long as there are levels.
        levels: how many levels there are, where that is known.

    Raises:
        VqtoolError: the codes are not whole numbers, or which axis is what is not clear.
    """
    array = np.asarray(codes)
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.round(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" or array.ndim == 0 or array.size == 0:
        raise VqtoolError(f"codes should be whole numbers, not {array.dtype} of the shape {list(array.shape)}")
    axes = _axes(array.shape, layout, levels)
    order = sorted(range(array.ndim), key=lambda axis: (axes[axis] not in SEQUENCES, axes[axis] in LEVELS))
    moved = array.astype(np.int64).transpose(order)
    sequences = int(np.prod([n for n, a in zip(array.shape, axes, strict=True) if a in SEQUENCES], dtype=np.int64))
    many = int(np.prod([n for n, a in zip(array.shape, axes, strict=True) if a in LEVELS], dtype=np.int64))
    return moved.reshape(sequences, -1, many)


def _axes(shape: Sequence[int], layout: str | None, levels: int | None) -> str:
    if layout is not None:
        axes = layout.lower()
        if len(axes) != len(shape) or not axes.isalpha() or axes.count("q") > 1 or len(set(axes)) < len(axes):
            raise VqtoolError(f"the layout `{layout}` does not fit codes of the shape {list(shape)}", hint=LAYOUT_HINT)
        return axes
    if len(shape) == 4:
        if shape[3] == levels != shape[2]:
            return "nhwq"
        return "bn" + _axes(shape[1:], None, levels)[1:]
    plain = {1: "t", 2: "nt", 3: "nhw"}.get(len(shape))
    if plain is None:
        raise VqtoolError(f"codes of the shape {list(shape)} may be several things", hint=LAYOUT_HINT)
    if len(shape) == 1 or (levels == 1 and (len(shape) == 2 or 1 not in shape[1:])):
        return plain
    if levels is not None:
        fitting = [axis for axis, length in enumerate(shape) if length == levels]
        fitting = [axis for axis in fitting if axis > 0] or fitting
        if len(fitting) == 1:
            return _with_levels(len(shape), fitting[0])
        if fitting or len(shape) == 2:
            raise VqtoolError(f"codes of the shape {list(shape)} and {levels} levels: which axis they are is not clear",
                              hint=LAYOUT_HINT)  # fmt: skip
    if len(shape) == 2:
        return plain
    short = 1 if shape[1] < shape[2] else 2
    if shape[short] > MOST_LEVELS or 4 * shape[short] > shape[3 - short]:
        raise VqtoolError(f"codes of the shape {list(shape)}: which axis is what is not clear", hint=LAYOUT_HINT)
    return _with_levels(3, short)


def _with_levels(axes: int, at: int) -> str:
    """A layout whose axis `at` are the levels; of what remains, the last are positions."""
    others = iter("t" if axes == 2 else "nt")
    return "".join("q" if axis == at else next(others) for axis in range(axes))


def counts_of(codes: Codes, sizes: Sequence[int] | None) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """How often each code of each level was chosen: counts [K] for codes [N, T, Q]; negative codes count nowhere.

    Args:
        sizes: the number of codes K of each level; without them the largest code seen is taken for the last of two
            or more.

    Raises:
        VqtoolError: a code is not below its level's size, or all are padding.
    """
    if (codes < 0).all():
        raise VqtoolError("all codes are negative, which is padding: there is nothing to count")
    counts = []
    for level, column in enumerate(codes.reshape(-1, codes.shape[-1]).T):
        real = column[column >= 0]
        largest = int(real.max(initial=0))
        if largest > MOST:
            raise VqtoolError(f"a code of {largest} is more than any codebook has", hint="are these really codes?")
        size = sizes[level] if sizes is not None else max(2, largest + 1)
        if largest >= size:
            raise VqtoolError(f"the codes of level {level} go up to {largest}, and its codebook has {size} codes",
                              hint="--sizes says how many codes there are; --layout which axis is what")  # fmt: skip
        counts.append(np.bincount(real, minlength=size))
    return counts

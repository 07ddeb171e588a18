"""Which axis of codes is what, and how often each code was chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vqtool.errors import VqtoolError
from vqtool.foreign.codes import arranged, codes_among, counts_of
from vqtool.foreign.tensors import tensors_in

N, T, Q = 5, 40, 3
CODES = np.random.default_rng(0).integers(0, 16, (N, T, Q))
LAYOUTS = {
    "ntq": CODES,
    "nqt": CODES.transpose(0, 2, 1),
    "qnt": CODES.transpose(2, 0, 1),
    "nhqw": CODES.reshape(N, 8, 5, Q).transpose(0, 1, 3, 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_says_which_axis_is_what(layout: str) -> None:
    np.testing.assert_array_equal(arranged(LAYOUTS[layout], layout, None), CODES)


@pytest.mark.parametrize(
    ("shape", "levels", "read"),
    [
        ((5, 40, 3), None, (5, 40, 3)),
        ((5, 3, 40), None, (5, 40, 3)),
        ((5, 3, 40), 3, (5, 40, 3)),
        ((3, 5, 40), 3, (5, 40, 3)),
        ((5, 2, 40), 3, (5, 40, 2)),  # fewer levels than the model has
        ((5, 40), None, (5, 40, 1)),
        ((40, 3), 3, (1, 40, 3)),
        ((3, 40), 3, (1, 40, 3)),
        ((40,), None, (1, 40, 1)),
        ((5, 16, 16), 1, (5, 256, 1)),
        ((5, 1, 40), 1, (5, 40, 1)),
        ((5, 40), 1, (5, 40, 1)),
        ((2, 5, 3, 40), None, (10, 40, 3)),
        ((2, 5, 3, 40), 3, (10, 40, 3)),
        ((5, 7, 6, 1), 1, (5, 42, 1)),
        ((5, 7, 6, 3), 3, (5, 42, 3)),
    ],
)
def test_the_axes_are_inferred(shape: tuple[int, ...], levels: int | None, read: tuple[int, ...]) -> None:
    assert arranged(np.zeros(shape, np.int64), None, levels).shape == read


@pytest.mark.parametrize(
    ("shape", "layout", "levels"),
    [
        ((5, 16, 16), None, None),
        ((5, 100, 80), None, None),
        ((5, 3, 3), None, 3),
        ((5, 40), None, 3),
        ((2, 2, 2, 2, 2), None, None),
        ((5, 40), "ntq", None),
        ((5, 40), "qq", None),
        ((5, 40), "n1", None),
    ],
)
def test_what_is_not_clear_is_asked_for(shape: tuple[int, ...], layout: str | None, levels: int | None) -> None:
    with pytest.raises(VqtoolError) as raised:
        arranged(np.zeros(shape, np.int64), layout, levels)
    assert "nqt" in str(raised.value.hint)


def test_what_are_no_codes_is_refused() -> None:
    for values in (np.array([0.5, 1.0]), np.array([np.nan, 1]), np.array(["a"]), np.zeros((0, 3), int), np.array(3)):
        with pytest.raises(VqtoolError, match="codes should be whole numbers"):
            arranged(values, None, None)
    assert arranged(np.array([0.0, 3.0]), None, None).dtype == np.int64


def test_padding_counts_nowhere() -> None:
    counts = counts_of(np.array([[[0, 1], [-1, -1], [2, 1]]]), [4, 2])
    assert [n.tolist() for n in counts] == [[1, 0, 1, 0], [0, 2]]
    assert [len(n) for n in counts_of(np.array([[[0, 1], [2, 1]]]), None)] == [3, 2]


def test_padding_alone_is_refused() -> None:
    with pytest.raises(VqtoolError, match="nothing to count"):
        counts_of(np.full((2, 3, 1), -1), [4])


def test_codes_beyond_the_codebook_are_refused() -> None:
    with pytest.raises(VqtoolError, match="level 1 go up to 4, and its codebook has 4 codes"):
        counts_of(np.array([[[0, 4]]]), [4, 4])
    with pytest.raises(VqtoolError, match="more than any codebook has"):
        counts_of(np.array([[[2**40]]]), None)


def test_the_array_of_codes_is_found_among_others() -> None:
    source, codes = Path("x.npz"), np.arange(6)
    assert codes_among(tensors_in({"codes": codes, "length": np.arange(3)}), source).shape == (6,)
    assert codes_among(tensors_in({"q": codes, "audio": np.ones(3)}), source).shape == (6,)
    with pytest.raises(VqtoolError, match="holds 2 arrays that may be codes"):
        codes_among(tensors_in({"a": codes, "b": codes}), source)
    with pytest.raises(VqtoolError, match=r"holds no codes: `a` F64\[3\], `b` F64\[2\]"):
        codes_among(tensors_in({"a": np.ones(3), "b": np.ones(2)}), source)

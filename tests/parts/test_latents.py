"""Latents of an encoder of one's own: their layouts, their rows, and what is left out of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vqtool.errors import VqtoolError
from vqtool.parts.data.latents import Latents, Layout, latents


def saved(folder: Path, *shape: int) -> Path:
    np.save(folder / "z.npy", np.random.default_rng(0).normal(size=shape).astype(np.float32))
    return folder / "z.npy"


def tokens(data: Latents) -> list[tuple[float, ...]]:
    """The tokens [D] of all splits, sorted."""
    rows = [data.rows(split).__getitems__(list(range(len(data.rows(split)))))["x"] for split in data.splits]
    return sorted(map(tuple, torch.cat(rows).transpose(1, 2).flatten(0, 1).tolist()))


@pytest.mark.parametrize(
    ("layout", "shape"), [("NDT", (20, 4, 64)), ("NTD", (20, 64, 4)), ("NDHW", (20, 4, 8, 8)), ("NHWD", (20, 8, 8, 4))]
)
def test_every_token_is_in_one_split(tmp_path: Path, layout: Layout, shape: tuple[int, ...]) -> None:
    path = saved(tmp_path, *shape)
    data = Latents(path=path, layout=layout)
    every = np.moveaxis(np.load(path), layout.index("D"), -1).reshape(-1, 4)
    assert tokens(data) == sorted(map(tuple, every.tolist()))
    assert data.notes == ()


def test_tokens_that_fill_no_row_are_left_out_and_reported(tmp_path: Path) -> None:
    data = Latents(path=saved(tmp_path, 20, 4, 75))
    assert len(tokens(data)) == 20 * 64
    assert data.notes == ("the last 11 of 75 tokens of each recording are left out: rows have 32",)


def test_latents_of_other_axes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match=r"float32\[20, 4\], not latents of the layout NDT"):
        latents(saved(tmp_path, 20, 4), "NDT")

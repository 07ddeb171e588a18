"""Signals as patches and back: runs of samples of windows [B, C, L], squares of pixels of images [B, C, H, W]."""

from __future__ import annotations

from math import isqrt

import torch.nn.functional as F
from torch import Tensor

from vqtool.api.spec import UnfitError
from vqtool.errors import VqtoolError

Extent = int | tuple[int, ...]


def grid_of(extent: Extent, patch: int) -> tuple[int, ...]:
    """How many patches an extent holds along each of its axes.

    Raises:
        UnfitError: it is neither that of windows nor that of images.
        VqtoolError: they do not fill it.
    """
    sides = (extent,) if isinstance(extent, int) else tuple(extent)
    if len(sides) > 2:
        raise UnfitError(f"patches are of windows [C, L] or of images [C, H, W], not of {len(sides)} axes")
    if any(side % patch for side in sides):
        what = "a window of {} samples" if len(sides) == 1 else "an image of {} x {} pixels"
        near = what.format(*(max(1, round(side / patch)) * patch for side in sides))
        raise VqtoolError(
            f"{what.format(*sides)} is not a multiple of the patch of {' x '.join([str(patch)] * len(sides))}",
            hint=f"choose a patch that divides {' and '.join(map(str, sorted(set(sides))))}, or {near}",
        )
    return tuple(side // patch for side in sides)


def patch_of(extent: Extent, stride: int) -> int:
    """The side of a patch that has `stride` samples or pixels.

    Raises:
        VqtoolError: pixels that make no square.
    """
    if isinstance(extent, int):
        return stride
    if isqrt(stride) ** 2 != stride:
        raise VqtoolError(f"the encoder's tokens of {stride} pixels are not square patches")
    return isqrt(stride)


def to_patches(x: Tensor, patch: int) -> tuple[Tensor, tuple[int, ...]]:
    """[B, C, L] or [B, C, H, W] to patches [B, T, C * size], row after row, and how many lie along each axis.

    An end that does not fill a patch is filled up with zeros.
    """
    axes = x.dim() - 2
    x = F.pad(x, [size for side in reversed(x.shape[2:]) for size in (0, -side % patch)])
    grid = tuple(side // patch for side in x.shape[2:])
    if axes == 1:
        return x.unflatten(2, (-1, patch)).transpose(1, 2).flatten(2), grid
    cells = x.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # [B, C, h, P, w, P]
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(2), grid


def from_patches(patches: Tensor, patch: int, grid: tuple[int, ...]) -> Tensor:
    """The inverse of `to_patches`: [B, T, C * size] to [B, C, L] or [B, C, H, W]."""
    if len(grid) == 1:
        return patches.unflatten(2, (-1, patch)).transpose(1, 2).flatten(2)
    cells = patches.unflatten(2, (-1, patch, patch)).unflatten(1, grid)  # [B, h, w, C, P, P]
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)

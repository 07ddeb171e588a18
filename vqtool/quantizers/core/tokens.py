"""The way into a quantizer: latents in any layout to windows [B, T, D] and flat tokens [N, D], and which count."""

from __future__ import annotations

import contextlib
import math
from typing import Literal, get_args

import torch
from torch import Tensor

from vqtool.errors import VqtoolError

Layout = Literal["BTD", "BCL", "BCHW", "BHWC", "BCTHW", "ND"]  # B windows, C or D features, the others are tokens
NAMES = {"B": "batch", "T": "tokens", "L": "length", "H": "height", "W": "width", "N": "tokens"}


def windows(z: Tensor, mask: Tensor | None, layout: Layout, dim: int, owner: str) -> tuple[Tensor, Tensor | None]:
    """`z` as windows of tokens [B, T, D], rows of `ND` in one window, and `mask` [B * T] as booleans.

    Raises:
        VqtoolError: `z` has not the axes of `layout`, or other than `dim` features, or the mask is of other tokens.
    """
    features = features_axis(layout)
    if z.dim() != len(layout) or z.shape[features] != dim:
        wanted = ", ".join(f"{dim} features" if i == features else NAMES[axis] for i, axis in enumerate(layout))
        fits = [one for one in get_args(Layout) if z.dim() == len(one) and z.shape[features_axis(one)] == dim]
        hint = " or ".join(f'layout="{one}"' for one in fits) or f"the quantizer was made for {dim} features"
        raise VqtoolError(f'{owner} with layout "{layout}" takes [{wanted}], not {list(z.shape)}', hint=hint)
    axes = [size for axis, size in enumerate(z.shape) if axis != features]
    if mask is not None and mask.numel() != math.prod(axes):
        raise VqtoolError(
            f"the mask of {owner} has the shape {list(mask.shape)}, not {axes}",
            hint="one value for each token, true for real ones",
        )
    z = z[None] if layout == "ND" else z if layout == "BTD" else z.movedim(features, -1).flatten(1, -2)
    return z, None if mask is None else mask.reshape(-1).bool()


def features_axis(layout: Layout) -> int:
    """Which axis of a layout holds the features."""
    return layout.index("C" if "C" in layout else "D")


def restored(x: Tensor, shape: torch.Size, layout: Layout, *, features_last: bool = False) -> Tensor:
    """`x` [B, T, ...] with the axes of an input of `shape`; features where they were, or at the end."""
    if layout == "BTD":
        return x
    at = features_axis(layout)
    places = [size for axis, size in enumerate(shape) if axis != at]
    x = x.reshape(*places, *x.shape[2:])
    return x if features_last else x.movedim(-1, at)


def own_precision(z: Tensor) -> contextlib.AbstractContextManager[None]:
    """Turns autocast off for the device of `z`: distances, counts and sums need float32."""
    device = z.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def counted(tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Which of `tokens` [N, D] count: (tokens with zeros for the others, valid [N] or None for all, not finite).

    A token counts if `mask` [N] is true and it holds no NaN and no infinity. Everything behind this call sees finite
    numbers only; `valid` is None where all count, which saves the passes that mask.
    """
    eager = not torch.compiler.is_compiling() and tokens.device.type == "cpu"
    if mask is None and eager and math.isfinite(float(tokens.detach().sum())):
        return tokens, None, torch.zeros((), dtype=torch.long)
    finite = finite_rows(tokens.detach())
    valid = finite if mask is None else mask & finite
    not_finite = (~finite if mask is None else mask & ~finite).sum()
    if eager and bool(valid.all()):
        return tokens, None, not_finite
    return torch.where(valid[:, None], tokens, 0), valid, not_finite


def finite_rows(tokens: Tensor) -> Tensor:
    """Which rows of `tokens` [N, d] hold neither NaN nor infinity [N]; several times as fast as isfinite().all(1)."""
    return tokens.amax(1).isfinite() & tokens.amin(1).isfinite()


def n_values(tokens: Tensor, valid: Tensor | None) -> Tensor | int:
    """How many numbers the valid rows of `tokens` [N, d] hold."""
    return tokens.numel() if valid is None else valid.sum() * tokens.shape[1]


def both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Where both masks hold; None stands for everywhere."""
    return second if first is None else first if second is None else first & second


def starting_points(z: Tensor, mask: Tensor | None, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` real and finite tokens of `z` [B, T, D], drawn at random, as float32 [N, D]."""
    tokens = z.detach().reshape(-1, z.shape[-1]).float()
    usable = tokens.isfinite().all(1)
    if mask is not None:
        usable = usable & mask.reshape(-1).bool()
    tokens = tokens[usable]
    if tokens.shape[0] == 0:
        raise VqtoolError(
            "there is no finite token to start the codebook from",
            hint="look at the encoder's outputs: all of them are masked, NaN or infinite",
            exit_code=1,
        )
    if tokens.shape[0] > most:
        tokens = tokens[torch.randperm(tokens.shape[0], generator=generator)[:most].to(tokens.device)]
    return tokens.contiguous()

"""The way in and out of a quantizer: windows [B, T, D] to flat float32 tokens [N, D], and which of them count."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from vqtool.errors import VqtoolError


def flat(z: Tensor, mask: Tensor | None, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor | None]:
    """`z` [B, T, D] as tokens [N, D] in the quantizer's own precision, and `mask` [B, T] as [N].

    Row after row in memory: of a single window that a convolution made, the reshaped tokens would lie column by column.
    """
    tokens = z.reshape(-1, z.shape[-1]).to(dtype).contiguous()
    return tokens, None if mask is None else mask.reshape(-1).bool()


def own_precision(z: Tensor) -> contextlib.AbstractContextManager[None]:
    """Turns autocast off for the device of `z`: distances, counts and sums need float32."""
    device = z.device.type
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def cleaned(tokens: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """`tokens` [N, d] with zeros for those that do not count, which count [N] (None: all), how many are not finite.

    For parts that compute with all tokens before they choose a code: a NaN times a zero gradient is a NaN still.
    """
    finite = finite_rows(tokens.detach())
    not_finite = (~finite if real is None else real & ~finite).sum()
    valid = only_if_some(finite if real is None else real & finite)
    if valid is not None:
        tokens = torch.where(valid[:, None], tokens, 0)
    return tokens, valid, not_finite


def only_if_some(valid: Tensor) -> Tensor | None:
    """None where all of `valid` is known to hold without waiting for the device; saves the passes that mask."""
    if torch.compiler.is_compiling() or valid.device.type != "cpu" or not bool(valid.all()):
        return valid
    return None


def finite_rows(tokens: Tensor) -> Tensor:
    """Which rows of `tokens` [N, d] hold neither NaN nor infinity [N]; several times as fast as isfinite().all(1)."""
    return tokens.amax(1).isfinite() & tokens.amin(1).isfinite()


def entries(tokens: Tensor, valid: Tensor | None) -> Tensor | int:
    """How many numbers the valid rows of `tokens` [N, d] hold."""
    return tokens.numel() if valid is None else valid.sum() * tokens.shape[1]


def starting_points(z: Tensor, mask: Tensor | None, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` real and finite tokens of `z` [B, T, D], drawn at random, as float32 [N, D]."""
    tokens, real = flat(z.detach(), mask)
    usable = tokens.isfinite().all(1)
    if real is not None:
        usable = usable & real
    tokens = tokens[usable]
    if tokens.shape[0] == 0:
        raise VqtoolError(
            "there is no finite token to start the codebook from",
            hint="look at the encoder's outputs: all of them are masked, NaN or infinite",
            exit_code=1,
        )
    if tokens.shape[0] > most:
        tokens = tokens[torch.randperm(tokens.shape[0], generator=generator)[:most].to(tokens.device)]
    return tokens


def silenced(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` [B, T, W] with zeros where `mask` [B, T] is false, whatever stands there."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0)

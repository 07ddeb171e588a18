"""Encode a signal to codes and decode it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from annotated_doc import Doc
from annotated_types import Interval
from torch import Tensor

from vqtool.api import Batch, Better, DataSpec, Estimates, Make, Parts, Task
from vqtool.errors import VqtoolError
from vqtool.sequence.chain import condition_of, decode, decode_normed, encode, to_latents

FAINT = 0.05  # a sum that nearly vanishes is not blown up to more than 1 / this
TINY = 1e-12


class Autoencode(Task):
    """x -> norm -> encoder -> quantizer -> decoder -> x_hat, given the condition where a conditioner is named.

    Provides `x_hat` and `target` [B, C, L], normalised, `estimate` [B, C, L] in the signal's own units,
    `sent` [B, S], `quantized` and `codes` [B, T, Q]; signals may be images [B, C, H, W]. Of mixed rows (`mix`) there is
    no estimate in units of their own.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"norm", "conditioner", "encoder", "quantizer", "decoder"})
    trains: ClassVar[tuple[str, ...]] = ("conditioner", "encoder", "quantizer", "decoder")
    provides: ClassVar[frozenset[str]] = frozenset({"x_hat", "target", "estimate", "sent", "quantized", "codes"})
    headline: ClassVar[Mapping[str, Better]] = {"output.snr_db": "max", **Task.headline}

    def __init__(
        self,
        *,
        mix: Annotated[
            float,
            Interval(ge=0, le=1),
            Doc("share of training rows that another is added to, after normalisation: where signals add"),
        ] = 0.0,
    ) -> None:
        self.mix = mix

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire norm, conditioner (optional), encoder, quantizer and decoder."""
        make("norm", spec, optional=True)
        conditioner = make("conditioner", spec, optional=True)
        if self.mix and conditioner is not None:
            raise VqtoolError("rows under different conditions cannot be mixed", hint="mix = 0, or no [conditioner]")
        width = conditioner.dim if conditioner is not None else 0
        encoder = make("encoder", spec.channels, spec.extent, width)
        make("quantizer", encoder.dim)
        make("decoder", encoder.dim, spec.channels, spec.extent, encoder.stride, width)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """One pass through the whole chain."""
        normed, sent = self._normed(parts, batch)
        condition = condition_of(parts, normed)
        quantized = parts.quantizer(parts.encoder(normed["x"], condition))
        x_hat = decode_normed(parts, quantized.z, condition)
        return {
            "x_hat": x_hat,
            "target": normed["x"],
            "estimate": parts.norm.invert(x_hat, batch, sent),
            "sent": sent,
            "quantized": quantized,
            "codes": quantized.codes,
        }

    def latents(self, parts: Parts, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The encoder's output [B, T, D], of mixed rows too."""
        return to_latents(parts, self._normed(parts, batch)[0]), None

    def _normed(self, parts: Parts, batch: Batch) -> tuple[Batch, Tensor]:
        """The normalised batch, mixed where that is asked for in training, and the side information [B, S]."""
        normed, sent = parts.norm(batch)
        if self.mix and parts.encoder.training:
            normed = {**normed, "x": mixed(normed["x"], self.mix)}
        return normed, sent

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """The reconstruction, and the same with codes of other rows: what the codes are worth to the decoder."""
        coded = self.encode(parts, batch)
        x_hat = self.decode(parts, coded, batch)
        shuffled = self.decode(parts, {**coded, "codes": coded["codes"].roll(1, 0)}, batch)
        return Estimates(
            {"": x_hat, "reconstruction": x_hat, "shuffled": shuffled},
            {
                "codes": coded["codes"],
                "codebook_sizes": parts.quantizer.codebook_sizes,
                "codebook_names": parts.quantizer.codebook_names,
                "bands": parts.encoder.bands,
                "code_use": parts.quantizer.code_use(),
            },
        )

    def encode(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`codes` [B, T, Q] and the side information `sent` [B, S]."""
        return encode(parts, batch)

    def decode(self, parts: Parts, coded: dict[str, Tensor], batch: Batch) -> Tensor:
        """[B, C, L] in the signal's own units."""
        return decode(parts, coded["codes"], coded["sent"], batch)

    def embed(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`features` [B, T, D] before the quantizer, and `codes` [B, T, Q]."""
        coded = encode(parts, batch)
        return {"features": coded["z"], "codes": coded["codes"]}


def mixed(x: Tensor, share: float) -> Tensor:
    """A share of the rows [B, ...] as x cos a + y sin a, of the same mean square, for another row y and any angle a."""
    other, along = x.roll(1, 0), [len(x)] + [1] * (x.ndim - 1)
    angle = 2 * torch.pi * torch.rand(along, device=x.device)
    both = angle.cos() * x + angle.sin() * other
    axes = tuple(range(1, x.ndim))
    size, now = (v.square().mean(axes, keepdim=True).sqrt() for v in (x, both))
    both = both * size / now.clamp_min(FAINT * size + TINY)
    return torch.where(torch.rand(along, device=x.device) < share, both, x)

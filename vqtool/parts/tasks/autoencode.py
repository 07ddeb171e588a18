"""Squeeze a signal through the codebook and back."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from vqtool.api import Batch, DataSpec, Estimates, Make, Parts, Task
from vqtool.nn.chain import condition_of, decode, encode, to_frame


class Autoencode(Task):
    """x -> norm -> encoder -> quantizer -> decoder -> x_hat, given the condition where a conditioner is named.

    Provides `x_hat` and `target` [B, C, L] in the norm's frame, `estimate` [B, C, L] in the signal's own units,
    `sent` [B, S], `quantized` and `codes` [B, T, Q].
    """

    uses: ClassVar[frozenset[str]] = frozenset({"norm", "conditioner", "encoder", "quantizer", "decoder"})
    trains: ClassVar[tuple[str, ...]] = ("conditioner", "encoder", "quantizer", "decoder")
    provides: ClassVar[frozenset[str]] = frozenset({"x_hat", "target", "estimate", "sent", "quantized", "codes"})

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire norm, conditioner (optional), encoder, quantizer and decoder."""
        make("norm", spec, optional=True)
        conditioner = make("conditioner", spec, optional=True)
        width = conditioner.dim if conditioner is not None else 0
        encoder = make("encoder", spec.channels, spec.length, width)
        make("quantizer", encoder.dim)
        make("decoder", encoder.dim, spec.channels, spec.length, encoder.stride, width)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """One pass through the whole chain."""
        framed, sent = parts.norm(batch)
        condition = condition_of(parts, framed)
        quantized = parts.quantizer(parts.encoder(framed["x"], condition))
        x_hat = to_frame(parts, quantized.z, condition)
        return {
            "x_hat": x_hat,
            "target": framed["x"],
            "estimate": parts.norm.invert(x_hat, batch, sent),
            "sent": sent,
            "quantized": quantized,
            "codes": quantized.codes,
        }

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
            },
        )

    def encode(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`codes` [B, T, Q] and the scalars sent apart, `sent` [B, S]."""
        return encode(parts, batch)

    def decode(self, parts: Parts, coded: dict[str, Tensor], batch: Batch) -> Tensor:
        """[B, C, L] in the signal's own units."""
        return decode(parts, coded["codes"], coded["sent"], batch)

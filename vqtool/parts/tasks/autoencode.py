"""Encode a signal to codes and decode it; a channel may lie in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Annotated, Any, ClassVar

import torch
from annotated_doc import Doc
from annotated_types import Interval
from torch import Tensor

from vqtool.api import MASK, Batch, Better, DataSpec, Estimates, Make, Parts, Quantized, Received, Task
from vqtool.errors import VqtoolError
from vqtool.layers.lengths import Lengths
from vqtool.sequence.chain import decode, decode_normed, encode, encoded, from_latents, latents
from vqtool.sequence.link import Link, code_figures, code_tables, means, the_soft

FAINT = 0.05  # a sum that nearly vanishes is not blown up to more than 1 / this
TINY = 1e-12


class Autoencode(Link, Task):
    """x -> norm -> encoder -> quantizer -> channel -> decoder -> x_hat, given the condition if a conditioner is named.

    Provides `x_hat` and `target` [B, C, L], normalised, `estimate` [B, C, L] in the signal's own units,
    `sent` [B, S], `quantized` and `codes` [B, T, Q]; signals may be images [B, C, H, W]. Of mixed rows (`mix`) there is
    no estimate in units of their own; of rows of different lengths, each is mixed with others of its length.

    The channel may be left out; with one, `received` is provided as well. Evaluation then measures every level of it
    with the same noise, as `METRIC.LEVEL`; if the quantizer gives probabilities, also the path of its expectations
    (`METRIC.soft.LEVEL`); and the codes as they were sent (`METRIC.no-channel`).
    """

    uses: ClassVar[frozenset[str]] = frozenset({"norm", "conditioner", "encoder", "quantizer", "channel", "decoder"})
    trains: ClassVar[tuple[str, ...]] = ("conditioner", "encoder", "quantizer", "channel", "decoder")
    provides: ClassVar[frozenset[str]] = frozenset(
        {"x_hat", "target", "estimate", "sent", "quantized", "codes", "received"}
    )
    masks: ClassVar[bool] = True
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
        """Wire norm, conditioner (optional), encoder, quantizer, channel (optional) and decoder."""
        norm = make("norm", spec, optional=True)
        conditioner = make("conditioner", spec, optional=True)
        if self.mix and conditioner is not None:
            raise VqtoolError("rows under different conditions cannot be mixed", hint="mix = 0, or no [conditioner]")
        width = conditioner.dim if conditioner is not None else 0
        encoder = make("encoder", spec.channels, spec.extent, width)
        quantizer = make("quantizer", encoder.dim)
        if make("channel", quantizer.codebook_sizes, optional=True) is not None:
            for problem in (
                "rows of different lengths: their `mask`" if spec.named("mask") else "",
                f"side information: `{norm.sends[0]}` of [norm]" if norm.sends else "",
            ):
                if problem:
                    raise VqtoolError(f"a channel carries codes of whole windows, and no {problem}",
                                      hint="no [channel], or data and a norm without")  # fmt: skip
        self.tokens = -(-prod(spec.signal.shape[1:]) // encoder.stride)
        make("decoder", encoder.dim, spec.channels, spec.extent, encoder.stride, width)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """One pass through the whole chain."""
        lengths = Lengths.of(parts, batch)
        each = [encoded(parts, group, self._vary(parts)) for group in lengths.groups]
        sent = lengths.join_rows([one.sent for one in each])
        quantized = parts.quantizer(lengths.join_tokens([one.z for one in each]), lengths.token_mask())
        received: Received | None = None
        if "channel" in parts:
            received = parts.channel(quantized, code_tables(parts.quantizer))
        z = quantized.z if received is None else received.z
        passed = list(zip(lengths.groups, each, lengths.tokens(z), strict=True))
        x_hats = [decode_normed(parts, z, one.condition, group) for group, one, z in passed]
        estimates = [parts.norm.invert(x_hat, group.batch, one.sent)
                     for x_hat, (group, one, _) in zip(x_hats, passed, strict=True)]  # fmt: skip
        outputs = {
            "x_hat": lengths.join(x_hats),
            "target": lengths.join([one.normed["x"] for one in each]),
            "estimate": lengths.join(estimates),
            "sent": sent,
            "quantized": quantized,
            "codes": quantized.codes,
        }
        if received is not None:
            with torch.no_grad():
                outputs |= {"received": received, "figures": means(received)}
        return outputs

    def latents(self, parts: Parts, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The encoder's output [B, T, D], of mixed rows too, and the mask of real tokens."""
        return latents(parts, batch, self._vary(parts))

    def _vary(self, parts: Parts) -> Callable[[Tensor], Tensor] | None:
        """What mixes normalised rows, where that is asked for in training."""
        return partial(mixed, share=self.mix) if self.mix and parts.encoder.training else None

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """The reconstruction, and the same with codes of other rows: what the codes are worth to the decoder."""
        coded = self.encode(parts, batch)
        x_hat = self.decode(parts, coded, batch)
        codes = coded["codes"]
        alone = MASK in batch and len(codes) == 1  # the only row of its length: its own codes, elsewhere in it
        other = codes.roll(codes.shape[1] // 2, 1) if alone else codes.roll(1, 0)
        shuffled = self.decode(parts, {**coded, "codes": other}, batch)
        signals = {"": x_hat, "reconstruction": x_hat, "shuffled": shuffled}
        named: dict[str, Any] = {}
        if "channel" in parts:
            arrived, named = self._arrived(parts, batch, parts.quantizer(coded["z"]))
            signals |= {".no-channel": x_hat, **arrived}
        return Estimates(
            signals,
            named
            | {
                "codes": coded["codes"],
                "codebook_sizes": parts.quantizer.codebook_sizes,
                "stride": parts.encoder.stride,
                "codebook_names": parts.quantizer.codebook_names,
                "bands": parts.encoder.bands,
                "code_use": parts.quantizer.code_use(),
            },
        )

    def _arrived(self, parts: Parts, batch: Batch, quantized: Quantized) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the decoder makes of each level of the channel, and what metrics read of the channel itself."""
        tables, noise = code_tables(parts.quantizer), parts.channel.draw(quantized)
        received = {name: parts.channel(quantized, tables, level=level, noise=noise)
                    for name, level in parts.channel.levels().items()}  # fmt: skip
        vectors = {level: one.hard for level, one in received.items()}
        vectors |= {f".soft{level}": one.soft for level, one in received.items() if one.soft is not None}
        signals = {name: self._signal(parts, z, batch) for name, z in vectors.items()}
        return signals, {**code_figures(parts, quantized), "received": received}

    def _signal(self, parts: Parts, z: Tensor, batch: Batch) -> Tensor:
        """Received vectors [B, T, D] to [B, C, L] in the signal's own units, without side information."""
        return from_latents(parts, z, z.new_zeros(z.shape[0], 0), batch)

    def transmit(
        self, parts: Parts, batch: Batch, level: float | None, *, soft: bool = False, doubt: float | None = None
    ) -> tuple[Tensor, Received]:
        """[B, C, L] as it arrives at a level of the channel; `soft` by expectations instead of codes.

        Raises:
            VqtoolError: `soft`, and the quantizer gives no probabilities; or `doubt`, which needs classes.
        """
        if doubt is not None:
            raise VqtoolError("a decoder has no doubt that could ask for more: that takes a model that classifies")
        received = parts.channel(self._coded(parts, batch)[1], code_tables(parts.quantizer), level=level)
        return self._signal(parts, the_soft(received) if soft else received.hard, batch), received

    def receive(self, parts: Parts, arrived: Mapping[str, Tensor]) -> Tensor:
        """[B, C, L] from what arrived; fields of the data among it are conditions."""
        known = {name: value for name, value in arrived.items() if name in parts.norm.spec.fields}
        z = self._vectors(parts, {name: value for name, value in arrived.items() if name not in known})
        return self._signal(parts, z, known)

    def _coded(self, parts: Parts, batch: Batch) -> tuple[Tensor, Quantized]:
        z, mask = latents(parts, batch)
        return z, parts.quantizer(z, mask)

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

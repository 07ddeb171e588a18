"""Classify windows by their codes; a channel may lie between the quantizer and the classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import log, nan, prod
from typing import Annotated, Any, ClassVar

import torch
from annotated_doc import Doc
from annotated_types import Ge
from torch import Tensor

from vqtool.api import Batch, Better, DataSpec, Estimates, Make, Parts, Quantized, Received, Task
from vqtool.errors import VqtoolError
from vqtool.sequence.link import Link, code_figures, code_tables, means, the_soft


class Classify(Link, Task):
    """x -> norm -> encoder -> quantizer -> channel -> classifier -> logits; quantizer and channel may be left out.

    Provides `logits` [B, classes], `quantized`, `codes` [B, T, Q] and `received`. In evaluation every level of the
    channel is measured on the deployed path ("hard") and, if the quantizer gives probabilities, on the path of its
    expectations ("soft"), both with the same noise; "no-channel" is the same network without quantizer and channel.

    With `doubt`, levels of the quantizer are sent one after the other on the deployed path, each only for the rows of
    whose class the other end is not sure yet (incremental redundancy). Its asking for more is taken to be free.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"norm", "encoder", "quantizer", "channel", "classifier"})
    trains: ClassVar[tuple[str, ...]] = ("encoder", "quantizer", "channel", "classifier")
    provides: ClassVar[frozenset[str]] = frozenset({"logits", "quantized", "codes", "received"})
    headline: ClassVar[Mapping[str, Better]] = {"accuracy": "max", "consistency": "min", **Task.headline}

    def __init__(
        self,
        *,
        both: Annotated[bool, Doc("classify the soft and the hard path in training, for losses")] = False,
        doubt: Annotated[
            Annotated[float, Ge(0)] | None,
            Doc("entropy of the classes, in bits, above which the next level is sent; none: all levels at once"),
        ] = None,
    ) -> None:
        self.both, self.doubt = both, doubt

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire norm, encoder, quantizer and channel (each optional but the encoder) and classifier."""
        labels = spec.named("label")
        if len(labels) != 1:
            raise VqtoolError(f"the task `classify` needs data with one label, these have {len(labels)}")
        ((self.label, label),) = labels.items()
        make("norm", spec, optional=True)
        encoder = make("encoder", spec.channels, spec.extent, 0)
        quantizer = make("quantizer", encoder.dim, optional=True)
        channel = None if quantizer is None else make("channel", quantizer.codebook_sizes, optional=True)
        if self.doubt is not None and channel is None:
            raise VqtoolError("`doubt` asks for more over a channel, and there is none", hint="a [channel]")
        self.tokens = prod(spec.signal.shape[1:]) // encoder.stride
        make("classifier", encoder.dim, self.tokens, len(label.names))

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """One pass through the whole chain."""
        z, quantized = self._coded(parts, batch)
        outputs: dict[str, Any] = {}
        if quantized is not None:
            outputs = {"quantized": quantized, "codes": quantized.codes}
            z = quantized.z
            if "channel" in parts:
                received = parts.channel(quantized, code_tables(parts.quantizer))
                if self.both and received.soft is not None:
                    pair = parts.classifier(received.soft), parts.classifier(received.hard)
                    received = replace(received, stages={**received.stages, "logits": pair})
                outputs["received"], z = received, received.z
        logits = parts.classifier(z)
        return outputs | {"logits": logits, "figures": self._figures(logits, batch, outputs.get("received"))}

    @torch.no_grad()
    def _figures(self, logits: Tensor, batch: Batch, received: Received | None) -> dict[str, Tensor]:
        """`accuracy` of a batch, as training sees it, and the means of what the channel reports."""
        label = batch[self.label]
        known = label >= 0
        right = ((logits.argmax(-1) == label) & known).sum() / known.sum().clamp_min(1)
        return {"accuracy": right, **({} if received is None else means(received))}

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """`scores`, logits by path and level, as "hard.LEVEL"; `received`, outputs of the channel by level."""
        z, quantized = self._coded(parts, batch)
        if quantized is None:
            return Estimates(named={"scores": {"": parts.classifier(z)}})
        named = code_figures(parts, quantized)
        if "channel" not in parts:
            return Estimates(named={**named, "scores": {"": parts.classifier(quantized.hard)}})
        scores: dict[str, Tensor] = {"no-channel": parts.classifier(z)}
        noise, received = parts.channel.draw(quantized), {}
        for name, level in parts.channel.levels().items():
            scores[f"hard{name}"], one = self._heard(parts, quantized, level, noise)
            received[name] = one
            if one.soft is not None:
                scores[f"soft{name}"] = parts.classifier(one.soft)
        return Estimates(named={**named, "scores": scores, "received": received})

    def classify(self, parts: Parts, batch: Batch) -> Tensor:
        """Logits [B, classes] of the deployed path, at the channel's own level."""
        return self.transmit(parts, batch, None)[0]

    def transmit(
        self, parts: Parts, batch: Batch, level: float | None, *, soft: bool = False, doubt: float | None = None
    ) -> tuple[Tensor, Received | None]:
        """The same at another level of the channel, where there is one; `soft` by expectations instead of codes.

        `doubt`, in bits, takes the place of the option.

        Raises:
            VqtoolError: `soft`, and the quantizer gives no probabilities; or `doubt`, and levels cannot be sent alone.
        """
        z, quantized = self._coded(parts, batch)
        if quantized is None:
            return parts.classifier(z), None
        if "channel" not in parts:
            return parts.classifier(the_soft(quantized) if soft else quantized.hard), None
        if not soft:
            return self._heard(parts, quantized, level, doubt=doubt)
        received = parts.channel(quantized, code_tables(parts.quantizer), level=level)
        return parts.classifier(the_soft(received)), received

    def _heard(
        self,
        parts: Parts,
        quantized: Quantized,
        level: float | None,
        noise: tuple[Tensor, ...] | None = None,
        doubt: float | None = None,
    ) -> tuple[Tensor, Received]:
        """Logits of the deployed path, and what arrived: of each row as many levels as were asked for."""
        tables = code_tables(parts.quantizer)
        doubt = self.doubt if doubt is None else doubt
        if doubt is None:
            received = parts.channel(quantized, tables, level=level, noise=noise)
            return parts.classifier(received.hard), received
        rounds = parts.channel.rounds(quantized, tables, level, noise)
        received = next(rounds)
        logits = parts.classifier(received.hard)
        asks = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        for more in rounds:
            asks = asks & (entropy_bits(logits) > doubt)
            received = either(asks, more, received)
            logits = torch.where(asks[:, None], parts.classifier(more.hard), logits)
        return logits, received

    def receive(self, parts: Parts, arrived: Mapping[str, Tensor]) -> Tensor:
        """Logits [B, classes] from what arrived."""
        return parts.classifier(self._vectors(parts, arrived))

    def encode(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`codes` [B, T, Q]; there is no side information.

        Raises:
            VqtoolError: the model has no quantizer.
        """
        codes = self._quantized(parts, batch)[1].codes
        return {"codes": codes, "sent": batch["x"].new_zeros(len(codes), 0, dtype=torch.float32)}

    def embed(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`features` [B, T, D] before the quantizer, and `codes` [B, T, Q]."""
        z, quantized = self._quantized(parts, batch)
        return {"features": z, "codes": quantized.codes}

    def _quantized(self, parts: Parts, batch: Batch) -> tuple[Tensor, Quantized]:
        z, quantized = self._coded(parts, batch)
        if quantized is None:
            raise VqtoolError("this model has no codes: its recipe has no [quantizer]")
        return z, quantized

    def _coded(self, parts: Parts, batch: Batch) -> tuple[Tensor, Quantized | None]:
        normed, _ = parts.norm(batch)
        z = parts.encoder(normed["x"])
        return z, parts.quantizer(z) if "quantizer" in parts else None


def entropy_bits(logits: Tensor) -> Tensor:
    """The entropy [B] of the classes that `logits` [B, classes] stand for, in bits."""
    return torch.special.entr(logits.float().softmax(-1)).sum(-1) / log(2)


def either(rows: Tensor, more: Received, less: Received) -> Received:
    """Of each row what arrived in `more`, where `rows` [B] says so, or in `less`, of fewer levels; the hard path alone.

    Codes of a level that a row did not get are -1; what is missing from its trace is NaN.
    """
    codes = [one.codes.movedim(-1, 1) for one in (more, less)]
    return Received(
        merged(rows, more.z, less.z),
        merged(rows, more.hard, less.hard),
        merged(rows, codes[0], codes[1], -1).movedim(1, -1),
        figures={name: merged(rows, value, less.figures[name]) for name, value in more.figures.items()},
        trace={name: merged(rows, value, less.trace[name], nan) for name, value in more.trace.items()},
    )  # fmt: skip


def merged(rows: Tensor, more: Tensor, less: Tensor, fill: float = 0) -> Tensor:
    """[B, ...]: of the `rows` as in `more`, of others as in `less`, lengthened along its second axis by `fill`."""
    if less.dim() > 1 and less.shape[1] < more.shape[1]:
        short = less.new_full((len(less), more.shape[1] - less.shape[1], *less.shape[2:]), fill)
        less = torch.cat([less, short], 1)
    return torch.where(rows.view(-1, *[1] * (more.dim() - 1)), more, less)

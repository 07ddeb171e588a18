"""Find the code of a hidden token among those of other hidden tokens, from what is left of the window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_doc import Doc
from annotated_types import Ge, Interval
from torch import Tensor
from torch.nn import functional as F

from vqtool.api import Batch, Better, DataSpec, Estimates, Make, Parts, Quantized, Renamed, Task
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.entropy import entropy
from vqtool.sequence.chain import condition_of, encode, to_latents
from vqtool.sequence.spans import hidden_spans


class Contrast(Task):
    """wav2vec 2.0's pre-training (Baevski et al. 2020, arXiv 2006.11477, section 3).

    x -> norm -> encoder -> z; the quantizer codes all of z, and the context network reads z with spans of tokens
    replaced by zeros, of which its first linear map makes a vector of its own. At each of the M hidden tokens its
    output is compared, by the cosine, with the code vectors of that token and of the other hidden ones of the window;
    those with the same codes as the right one are not negatives and are left out.

    Two options go beyond that. The features of an encoder with a wide receptive field reveal their hidden neighbours:
    with `hide = "signal"` the samples of hidden tokens are zero in what the context network reads, and only there. And
    a token differs from its neighbours mostly by chance: with `min_distance` only tokens farther away are negatives.

    Provides `similarities` [M, T] (-inf for what is not a candidate) and `positive` [M], the place of the right one,
    `hidden` [B, T], `quantized`, `codes` [B, T, Q], and the figures `contrastive.accuracy`,
    `contrastive.effective_negatives`, the mean number of candidates that are wrong, and `contrastive.chance`, the mean
    of 1 / (1 + that number). Where all tokens share one code nothing is wrong: accuracy and chance are 1 and the
    negatives 0, so none of the three means anything without the others. Of a quantizer that reports its choice's mean
    probabilities, `perplexity.soft.group0`, ... are their perplexities over the batch.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"norm", "conditioner", "encoder", "quantizer", "context"})
    trains: ClassVar[tuple[str, ...]] = ("conditioner", "encoder", "quantizer", "context")
    needs_codes: ClassVar[bool] = True
    provides: ClassVar[frozenset[str]] = frozenset({"similarities", "positive", "hidden", "quantized", "codes"})
    headline: ClassVar[Mapping[str, Better]] = {"contrastive.accuracy": "max", **Task.headline}

    def __init__(
        self,
        *,
        hidden: Annotated[
            float, Interval(gt=0, le=1), Doc("tokens that spans would hide if none overlapped, as a share of all")
        ] = 0.65,
        span: Annotated[int, Ge(1), Doc("tokens that are hidden together")] = 10,
        negatives: Annotated[
            Annotated[int, Ge(1)] | None,
            Doc("negatives drawn for each hidden token; left out: all other hidden tokens"),
        ] = None,
        hide: Annotated[
            Literal["features", "signal"],
            Doc("what is hidden: a token's features, or its samples, so that its neighbours do not reveal it"),
        ] = "features",
        min_distance: Annotated[
            int, Ge(1), Renamed("apart"), Doc("tokens nearer than this are not negatives of each other")
        ] = 1,
    ) -> None:
        self.hidden, self.span, self.negatives, self.hide = hidden, span, negatives, hide
        self.min_distance = min_distance

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire norm, conditioner (optional), encoder, quantizer and context network."""
        if self.hide == "signal" and not isinstance(spec.extent, int):
            raise VqtoolError(
                '`hide = "signal"` takes samples in a row away, and these data are images',
                hint='hide = "features"',
            )
        make("norm", spec, optional=True)
        conditioner = make("conditioner", spec, optional=True)
        encoder = make("encoder", spec.channels, spec.extent, conditioner.dim if conditioner is not None else 0)
        make("quantizer", encoder.dim)
        context = make("context", encoder.dim)
        if context.dim != encoder.dim:
            raise VqtoolError(
                f"the context network gives {context.dim} features, to be compared with codes of {encoder.dim}",
                hint="leave its `dim` out, or set the encoder's alike",
            )

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """Targets from all of the signal, the context from what is not hidden of it."""
        normed, _ = parts.norm(batch)
        z = parts.encoder(normed["x"], condition_of(parts, normed))
        quantized = parts.quantizer(z)
        outputs = self.compare(parts, normed, z, quantized)
        figures = contrast_figures(outputs["similarities"], outputs["positive"])
        if quantized.usage is not None:
            soft = entropy(quantized.usage).exp().unbind()
            names = parts.quantizer.codebook_names
            figures |= {f"perplexity.soft.{name}": value for name, value in zip(names, soft, strict=True)}
        return outputs | {"quantized": quantized, "codes": quantized.codes, "figures": figures}

    def compare(self, parts: Parts, normed: Batch, z: Tensor, quantized: Quantized) -> dict[str, Tensor]:
        """`similarities`, `positive` and `hidden` for one drawing of hidden spans."""
        batch, tokens, _ = z.shape
        hidden = hidden_spans(batch, tokens, share=self.hidden, span=self.span, device=z.device)
        seen = self.without(hidden, parts, normed) if self.hide == "signal" else z
        context = parts.context(seen.masked_fill(hidden[..., None], 0))
        hidden = hidden & (quantized.codes >= 0).all(-1)  # a token that is not finite has no code to be found
        near = F.normalize(context.float(), dim=-1) @ F.normalize(quantized.z.float(), dim=-1).transpose(1, 2)
        candidates = self.candidates(hidden, quantized.codes)
        return {
            "similarities": near.masked_fill(~candidates, -torch.inf)[hidden],
            "positive": torch.arange(tokens, device=z.device).expand(batch, tokens)[hidden],
            "hidden": hidden,
        }

    def without(self, hidden: Tensor, parts: Parts, normed: Batch) -> Tensor:
        """[B, T, D] the latents of the signal whose samples are zero where tokens are `hidden` [B, T]."""
        x = normed["x"]
        gone = hidden.repeat_interleave(parts.encoder.stride, 1)[:, None, : x.shape[-1]]
        return parts.encoder(x.masked_fill(gone, 0), condition_of(parts, normed))

    def candidates(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """[B, T, T]: for each token, itself and the hidden ones `min_distance` or more away that have other codes."""
        place = torch.arange(hidden.shape[1], device=hidden.device)
        away = (place[:, None] - place).abs()
        self_, others = away == 0, hidden[:, None, :] & (away >= self.min_distance)
        if self.negatives is not None and self.negatives < hidden.shape[1] - 1:
            draw = torch.rand(others.shape[0], *self_.shape, device=hidden.device).masked_fill(~others, -1)
            others = others & (draw >= draw.topk(self.negatives, dim=2).values[..., -1:])
        same = (codes[:, :, None] == codes[:, None]).all(-1)
        return (others & ~same) | self_

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """Codes without noise, features before the quantizer, and one drawing of hidden spans; no signal."""
        normed, _ = parts.norm(batch)
        z = to_latents(parts, normed)
        quantized = parts.quantizer(z)
        return Estimates(
            named={
                "codes": quantized.codes,
                "codebook_sizes": parts.quantizer.codebook_sizes,
                "codebook_names": parts.quantizer.codebook_names,
                "features": z,
                "context": parts.context(z),
                **self.compare(parts, normed, z, quantized),
                **({} if quantized.usage is None else {"usage": quantized.usage}),
            }
        )

    def encode(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`codes` [B, T, Q] and the side information `sent` [B, S]."""
        return encode(parts, batch)

    def embed(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`features` [B, T, D] before the quantizer, `codes` [B, T, Q], and `context` [B, T, D] with nothing hidden."""
        coded = encode(parts, batch)
        return {"features": coded["z"], "codes": coded["codes"], "context": parts.context(coded["z"])}


def contrast_figures(similarities: Tensor, positive: Tensor) -> dict[str, Tensor]:
    """Accuracy, effective negatives and chance of `similarities` [M, T] with the right one at `positive` [M]."""
    similarities = similarities.detach()
    negatives = similarities.isfinite().sum(1) - 1.0
    some = max(len(positive), 1)
    return {
        "contrastive.accuracy": (similarities.argmax(1) == positive).sum() / some,
        "contrastive.effective_negatives": negatives.sum() / some,
        "contrastive.chance": (1 / (1 + negatives)).sum() / some,
    }

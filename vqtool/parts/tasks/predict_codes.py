"""Predict the codes of a signal one after the other, given its condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from vqtool.api import Batch, Better, DataSpec, Estimates, Make, Parts, Task
from vqtool.errors import VqtoolError
from vqtool.layers.lengths import Group, Lengths
from vqtool.sequence.chain import decode, encode, encoded, join_tokens, one_length
from vqtool.sequence.prior_chain import (
    PRIOR_PARTS,
    adopt_codebooks,
    build_prior,
    decode_signal,
    prior_condition,
    token_figures,
)


class PredictCodes(Task):
    """Trains a prior over the codes of a frozen tokenizer, and the regressor of its norm's side information.

    The prior has a conditioner of its own, `[prior_conditioner]`, which reads the condition in full. Provides
    `logits` [B, T, Q, K] and `codes` [B, T, Q] (the right ones after the past that was fed), `latent_hat`
    [B, T, Q, D] and `latent` [B, T, D] (where the prior predicts latents), `sent_hat` and `sent` [B, S], and
    `estimate` [B, C, L], the signal of the codes fed with the scalars regressed. Where rows are padded, its tokens
    have the code -1.
    """

    uses: ClassVar[frozenset[str]] = PRIOR_PARTS
    trains: ClassVar[tuple[str, ...]] = ("prior_conditioner", "regressor", "prior")
    provides: ClassVar[frozenset[str]] = frozenset(
        {"logits", "codes", "latent_hat", "latent", "sent_hat", "sent", "estimate"}
    )
    knobs: ClassVar[frozenset[str]] = frozenset({"own_tokens"})
    masks: ClassVar[bool] = True
    headline: ClassVar[Mapping[str, Better]] = {"tokens.accuracy": "max"}

    def __init__(self) -> None:
        self.own_tokens = 0.0  # the share of the past that is the model's own token (scheduled sampling)

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire the tokenizer's parts, then the prior over its codes."""
        build_prior(make, spec)
        if spec.named("mask") and make("prior_conditioner", spec, optional=True) is not None:
            raise VqtoolError(
                "a prior under a condition is for rows of one length, and these data mask shorter ones",
                hint="without [prior_conditioner]",
            )

    def begin(self, parts: Parts) -> None:
        """The prior reads the trained codebooks."""
        adopt_codebooks(parts)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """Teacher forcing, or with a share of the model's own tokens in the past."""
        lengths = Lengths.of(parts, batch)
        each = [self._step(parts, group) for group in lengths.groups]
        outputs = join_tokens(lengths, each, "logits", "codes", "latent_hat", "latent")
        outputs |= {name: lengths.join_rows([one[name] for one in each]) for name in ("sent_hat", "sent")}
        estimate = lengths.join([one["estimate"] for one in each])
        return outputs | {"estimate": estimate, "figures": token_figures(outputs["logits"], outputs["codes"])}

    def _step(self, parts: Parts, group: Group) -> dict[str, Any]:
        """Of rows of one length."""
        with torch.no_grad():
            front = encoded(parts, group)
            normed, latent, sent = front.normed, front.z, front.sent
            codes = parts.quantizer(latent).codes
        condition = prior_condition(parts, normed)
        draw = torch.rand(codes.shape, device=codes.device)  # always drawn: a share of 0 is teacher forcing bit for bit
        fed = parts.prior.own(codes, condition, self.own_tokens, draw=draw)
        logits, latent_hat = parts.prior.outputs(codes, condition, fed=fed)
        past = parts.quantizer.decode(fed).detach()
        estimate, sent_hat = decode_signal(parts, condition, past, group.batch, normed)
        return {
            "logits": logits,
            "codes": parts.prior.targets(codes, fed, latent),
            "latent_hat": latent_hat,
            "latent": latent,
            "sent_hat": sent_hat,
            "sent": sent,
            "estimate": estimate,
        }

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """Greedy free-running generation, and beside it the true past and the true codes; of rows of one length."""
        group = one_length(parts, batch)
        front = encoded(parts, group)
        normed, sent, batch = front.normed, front.sent, group.batch
        codes, condition = parts.quantizer(front.z).codes, prior_condition(parts, normed)
        logits = parts.prior(codes, condition)
        forced = logits.argmax(-1)  # each code after the true ones before it
        free = parts.prior.sample(len(codes), condition, temperature=0.0, tokens=codes.shape[1])
        return Estimates(
            {
                "": decode_signal(parts, condition, parts.quantizer.decode(free), batch, normed)[0],
                "forced": decode_signal(parts, condition, parts.quantizer.decode(forced), batch, normed)[0],
                "reconstruction": decode(parts, codes, sent, batch),
            },
            {
                "codes": codes,
                "codes_free": free,
                "logits": logits,
                "codebook_sizes": parts.quantizer.codebook_sizes,
                "stride": parts.encoder.stride,
                "codebook_names": parts.quantizer.codebook_names,
            },
        )

    def encode(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`codes` [B, T, Q] and the side information `sent` [B, S]."""
        return encode(parts, batch)

    def decode(self, parts: Parts, coded: dict[str, Tensor], batch: Batch) -> Tensor:
        """[B, C, L] in the signal's own units."""
        return decode(parts, coded["codes"], coded["sent"], batch)

    def generate(self, parts: Parts, batch: Batch, **how: Any) -> Tensor:
        """Signals [B, C, L]; `how`: `beam`, or `temperature`, `top_k`, `top_p` and `seeds`; else greedy."""
        normed = parts.norm.condition(batch)
        condition = prior_condition(parts, normed)
        rows = len(next(iter(batch.values())))
        if "beam" in how:
            codes, _ = parts.prior.beam(rows, condition, width=how["beam"])
        else:
            codes = parts.prior.sample(rows, condition, **{"temperature": 0.0, **how})
        return decode_signal(parts, condition, parts.quantizer.decode(codes), batch, normed)[0]

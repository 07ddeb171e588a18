"""Predict the codes of a signal one after the other, given its condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from vqtool.api import Batch, Better, DataSpec, Estimates, Make, Parts, Task
from vqtool.sequence.chain import decode, encode, to_latents
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
    `estimate` [B, C, L], the signal of the codes fed with the scalars regressed.
    """

    uses: ClassVar[frozenset[str]] = PRIOR_PARTS
    trains: ClassVar[tuple[str, ...]] = ("prior_conditioner", "regressor", "prior")
    provides: ClassVar[frozenset[str]] = frozenset(
        {"logits", "codes", "latent_hat", "latent", "sent_hat", "sent", "estimate"}
    )
    knobs: ClassVar[frozenset[str]] = frozenset({"own_tokens"})
    headline: ClassVar[Mapping[str, Better]] = {"tokens.accuracy": "max"}

    def __init__(self) -> None:
        self.own_tokens = 0.0  # the share of the past that is the model's own token (scheduled sampling)

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire the tokenizer's parts, then the prior over its codes."""
        build_prior(make, spec)

    def begin(self, parts: Parts) -> None:
        """The prior reads the trained codebooks."""
        adopt_codebooks(parts)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """Teacher forcing, or with a share of the model's own tokens in the past."""
        with torch.no_grad():
            normed, sent = parts.norm(batch)
            latent = to_latents(parts, normed)
            codes = parts.quantizer(latent).codes
        condition = prior_condition(parts, normed)
        draw = torch.rand(codes.shape, device=codes.device)  # always drawn: a share of 0 is teacher forcing bit for bit
        fed = parts.prior.own(codes, condition, self.own_tokens, draw=draw)
        logits, latent_hat = parts.prior.outputs(codes, condition, fed=fed)
        estimate, sent_hat = decode_signal(parts, condition, parts.quantizer.decode(fed).detach(), batch, normed)
        targets = parts.prior.targets(codes, fed, latent)
        return {
            "logits": logits,
            "codes": targets,
            "figures": token_figures(logits, targets),
            "latent_hat": latent_hat,
            "latent": latent,
            "sent_hat": sent_hat,
            "sent": sent,
            "estimate": estimate,
        }

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """Greedy free-running generation, and beside it the true past and the true codes."""
        normed, sent = parts.norm(batch)
        codes, condition = parts.quantizer(to_latents(parts, normed)).codes, prior_condition(parts, normed)
        logits = parts.prior(codes, condition)
        forced = logits.argmax(-1)  # each code after the true ones before it
        free = parts.prior.sample(len(codes), condition, temperature=0.0)
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

"""Regress the latents of a signal from its condition: where a prior over its codes starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from vqtool.api import Batch, Better, DataSpec, Estimates, Make, Parts, Task
from vqtool.errors import VqtoolError
from vqtool.layers.lengths import Group
from vqtool.sequence.chain import encoded
from vqtool.sequence.prior_chain import PRIOR_PARTS, adopt_codebooks, build_prior, decode_signal, prior_condition


class PredictLatents(Task):
    """Trains the prior's guess of the latents, its conditioner and the regressor of the side information.

    No code is chosen and no past is read, so a step costs a fraction of one of `predict-codes`, and the error of the
    decoded signal reaches everything that is trained. Provides `latent_hat` [B, T, 1, D], `latent` [B, T, D],
    `sent_hat` and `sent` [B, S], and `estimate` [B, C, L] in the signal's own units.
    """

    uses: ClassVar[frozenset[str]] = PRIOR_PARTS
    trains: ClassVar[tuple[str, ...]] = ("prior_conditioner", "regressor", "prior")
    provides: ClassVar[frozenset[str]] = frozenset({"latent_hat", "latent", "sent_hat", "sent", "estimate"})
    headline: ClassVar[Mapping[str, Better]] = {}

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire the tokenizer's parts and the prior."""
        build_prior(make, spec)

    def begin(self, parts: Parts) -> None:
        """The prior reads the scales of the trained codebooks."""
        adopt_codebooks(parts)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """Condition to latents to signal."""
        with torch.no_grad():
            front = encoded(parts, Group(batch))
        return self._guess(parts, batch, front.normed) | {"latent": front.z, "sent": front.sent}

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """The signal of the guessed latents, not quantized: what the tokens of a later stage are measured against."""
        return Estimates({"": self._guess(parts, batch, parts.norm.condition(batch))["estimate"]})

    def _guess(self, parts: Parts, batch: Batch, normed: Batch) -> dict[str, Any]:
        condition = prior_condition(parts, normed)
        z = parts.prior.latents(condition)
        if z is None:
            raise VqtoolError(
                "the prior cannot guess latents: there is no `[prior_conditioner]`, or its codes have no vectors"
            )
        estimate, sent_hat = decode_signal(parts, condition, z, batch, normed)
        return {"latent_hat": z[:, :, None], "sent_hat": sent_hat, "estimate": estimate}

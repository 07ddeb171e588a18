"""Write the codes of a signal one after the other, given what is known without it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vqtool.api import Batch, Condition, DataSpec, Estimates, Make, Parts, Task
from vqtool.errors import VqtoolError
from vqtool.nn.chain import decode, encode


class PredictCodes(Task):
    """Trains a prior over the codes of a frozen tokenizer, and what regresses the scalars its norm sends apart.

    The prior has a conditioner of its own, `[prior_conditioner]`, which reads the condition in full. Provides
    `logits` [B, T, Q, K] and `codes` [B, T, Q] (what is right to write after the past that was fed), `latent_hat`
    [B, T, Q, D] and `latent` [B, T, D] (where the prior predicts latents), `sent_hat` and `sent` [B, S], and
    `estimate` [B, C, L], the signal of the codes fed with the scalars regressed.
    """

    uses: ClassVar[frozenset[str]] = frozenset(
        {"norm", "conditioner", "encoder", "quantizer", "decoder", "prior_conditioner", "regressor", "prior"}
    )
    trains: ClassVar[tuple[str, ...]] = ("prior_conditioner", "regressor", "prior")
    provides: ClassVar[frozenset[str]] = frozenset(
        {"logits", "codes", "latent_hat", "latent", "sent_hat", "sent", "estimate"}
    )
    knobs: ClassVar[frozenset[str]] = frozenset({"own_tokens"})

    def __init__(self) -> None:
        self.own_tokens = 0.0  # the share of the past that is the model's own token (scheduled sampling)

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire the tokenizer's parts, then the prior over its codes."""
        norm = make("norm", spec, optional=True)
        conditioner = make("conditioner", spec, optional=True)
        width = conditioner.dim if conditioner is not None else 0
        encoder = make("encoder", spec.channels, spec.length, width)
        quantizer = make("quantizer", encoder.dim)
        make("decoder", encoder.dim, spec.channels, spec.length, encoder.stride, width)
        own = make("prior_conditioner", spec, optional=True)
        width = own.dim if own is not None else 0
        if norm.sends:
            if own is None:
                raise VqtoolError(
                    f"the norm sends {', '.join(f'`{name}`' for name in norm.sends)} apart, and nothing can predict it",
                    hint="a part `[prior_conditioner]` and a part `[regressor]`",
                )
        sizes, tokens = tuple(quantizer.codebook_sizes), spec.length // encoder.stride
        if norm.sends:
            make("regressor", width, tokens * encoder.dim, len(norm.sends))
        make("prior", sizes, tokens, width, quantizer.vectors())

    def begin(self, parts: Parts) -> None:
        """The prior reads the trained codebooks."""
        vectors = parts.quantizer.vectors()
        if vectors is not None:
            parts.prior.copy_vectors(vectors)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """Teacher forcing, or with a share of the model's own tokens in the past."""
        with torch.no_grad():
            coded = encode(parts, batch)
        codes, condition = coded["codes"], _condition(parts, batch)
        draw = torch.rand(codes.shape, device=codes.device)  # always drawn: a share of 0 is teacher forcing bit for bit
        fed = parts.prior.own(codes, condition, self.own_tokens, draw=draw)
        logits, latent_hat = parts.prior.outputs(codes, condition, fed=fed)
        sent_hat = _sent(parts, condition, fed, coded["sent"])
        given = {"logits": logits, "latent_hat": latent_hat, "latent": coded["z"]}
        given |= {"codes": parts.prior.targets(codes, fed, coded["z"]), "sent": coded["sent"], "sent_hat": sent_hat}
        return given | {"estimate": decode(parts, fed, sent_hat, batch)}

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """Greedy free-running generation, and beside it the true past and the true codes."""
        coded = encode(parts, batch)
        codes, condition = coded["codes"], _condition(parts, batch)
        logits = parts.prior(codes, condition)
        forced = logits.argmax(-1)  # each code after the true ones before it
        free = parts.prior.sample(len(codes), condition, temperature=0.0)
        return Estimates(
            {
                "": decode(parts, free, _sent(parts, condition, free, coded["sent"]), batch),
                "forced": decode(parts, forced, _sent(parts, condition, forced, coded["sent"]), batch),
                "reconstruction": decode(parts, codes, coded["sent"], batch),
            },
            {
                "codes": codes,
                "codes_free": free,
                "logits": logits,
                "codebook_sizes": parts.quantizer.codebook_sizes,
            },
        )

    def encode(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`codes` [B, T, Q] and the scalars sent apart, `sent` [B, S]."""
        return encode(parts, batch)

    def decode(self, parts: Parts, coded: dict[str, Tensor], batch: Batch) -> Tensor:
        """[B, C, L] in the signal's own units."""
        return decode(parts, coded["codes"], coded["sent"], batch)

    def generate(self, parts: Parts, batch: Batch, **how: Any) -> Tensor:
        """Signals [B, C, L]; `how`: `beam`, or `temperature`, `top_k`, `top_p` and `seeds`; else greedy."""
        condition = _condition(parts, batch)
        rows = len(next(iter(batch.values())))
        if "beam" in how:
            codes, _ = parts.prior.beam(rows, condition, width=how["beam"])
        else:
            codes = parts.prior.sample(rows, condition, **{"temperature": 0.0, **how})
        sent = _sent(parts, condition, codes, codes.new_zeros(rows, 0, dtype=torch.float32))
        return decode(parts, codes, sent, batch)


def _condition(parts: Parts, batch: Batch) -> Condition | None:
    """The prior's own condition, in the norm's frame; None where the recipe names no conditioner for it."""
    return parts.prior_conditioner(parts.norm.condition(batch)) if "prior_conditioner" in parts else None


def _sent(parts: Parts, condition: Condition | None, codes: Tensor, like: Tensor) -> Tensor:
    """The scalars regressed from condition and codes, or the empty `like` where the norm sends nothing."""
    if condition is None or "regressor" not in parts:
        return like
    with torch.no_grad():
        z = parts.quantizer.decode(codes)
    return parts.regressor(condition, z)

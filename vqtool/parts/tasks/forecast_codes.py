"""Generate the codes of the future after those of the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor

from vqtool.api import Batch, Better, DataSpec, Estimates, Make, Parts, Task
from vqtool.errors import VqtoolError
from vqtool.layers.lengths import Lengths
from vqtool.sequence.chain import decode, encode, join_tokens, one_length
from vqtool.sequence.forecasting import build_forecaster, path_seeds, repeat_rows, rollout
from vqtool.sequence.prior_chain import adopt_codebooks, token_figures


class ForecastCodes(Task):
    """Trains a prior over the codes of a history followed by those of its future, of a frozen tokenizer.

    The history is encoded alone, so none of its codes depends on the future. The future is normalised by statistics
    predicted from the history (`Norm.future_stats`), `steps` at a time; beyond that, each path continues from its own
    values. Provides `logits` [B, T, Q, K] and `codes` [B, T, Q] of the future's tokens.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"norm", "encoder", "quantizer", "decoder", "prior"})
    trains: ClassVar[tuple[str, ...]] = ("prior",)
    provides: ClassVar[frozenset[str]] = frozenset({"logits", "codes"})
    masks: ClassVar[bool] = True
    headline: ClassVar[Mapping[str, Better]] = {"tokens.accuracy": "max"}

    def __init__(
        self,
        *,
        steps: Annotated[int, Gt(0), Doc("steps ahead that are generated at once; at least a token")] = 96,
        samples: Annotated[int, Gt(0), Doc("sample paths per row in evaluation")] = 100,
        clip: Annotated[float, Gt(0), Doc("futures are clipped to this, in the norm's scale")] = 8.0,
    ) -> None:
        self.steps, self.samples, self.clip = steps, samples, clip

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire the tokenizer's parts, then the prior over the tokens of a history and its future."""
        norm, encoder, quantizer = build_forecaster(make, spec)
        most = min(self.steps, spec.fields["future"].shape[-1], norm.max_horizon or self.steps)
        self.block = most // encoder.stride * encoder.stride
        if not self.block:
            raise VqtoolError(f"a forecast of {most} steps is shorter than a token, which has {encoder.stride}")
        tokens = -(-spec.length // encoder.stride) + self.block // encoder.stride
        make("prior", tuple(quantizer.codebook_sizes), tokens, 0, quantizer.vectors())

    def begin(self, parts: Parts) -> None:
        """The prior reads the trained codebooks."""
        adopt_codebooks(parts)

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """Teacher forcing over history and future; only the future's codes are predicted."""
        lengths = Lengths.of(parts, batch)
        outputs = join_tokens(lengths, [self._step(parts, group.batch) for group in lengths.groups], "logits", "codes")
        return outputs | {"figures": token_figures(outputs["logits"], outputs["codes"])}

    def _step(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """Of histories of one length."""
        with torch.no_grad():
            past, codes = encode(parts, batch)["codes"], self._truth(parts, batch)
        logits = parts.prior(torch.cat([past, codes], dim=1))[:, past.shape[1] :]
        return {"logits": logits, "codes": codes}

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """Sample paths of `steps` steps and their median; beside them the history reconstructed, and an oracle.

        The oracle is the true future through the codec: what the best prior could reach with these codes.
        """
        batch = one_length(parts, batch).batch
        coded = encode(parts, batch)
        seeds = torch.randint(2**62, (len(coded["codes"]),)).tolist()
        paths = self.forecast(parts, batch, self.block, samples=self.samples, seeds=seeds)
        oracle = self._signal(parts, self._truth(parts, batch), batch)
        return Estimates(
            {"reconstruction": decode(parts, coded["codes"], coded["sent"], batch)},
            {
                "forecast": paths.quantile(0.5, dim=1),
                "paths": paths,
                "forecasts": {"oracle": oracle},
                "codes": coded["codes"],
                "codebook_sizes": parts.quantizer.codebook_sizes,
                "stride": parts.encoder.stride,
            },
        )

    def forecast(
        self,
        parts: Parts,
        batch: Batch,
        steps: int,
        *,
        samples: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seeds: Sequence[int] | None = None,
        greedy: bool = False,
    ) -> Tensor:
        """Sample paths [B, S, C, steps]; see `Forecasts`. Whole blocks of steps are generated, then cut."""
        if greedy or temperature == 0:
            samples, temperature = 1, 0.0
        rows = len(batch["x"])
        seeds = torch.randint(2**62, (rows,)).tolist() if seeds is None else list(seeds)
        how = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        lengths = Lengths.of(parts, batch)
        places = lengths.rows(torch.arange(rows, device=batch["x"].device))
        return lengths.join_rows([
            self._paths(parts, group.batch, steps, samples, [seeds[row] for row in some.tolist()], how)
            for group, some in zip(lengths.groups, places, strict=True)
        ])  # fmt: skip

    def _paths(
        self, parts: Parts, batch: Batch, steps: int, samples: int, seeds: Sequence[int], how: Mapping[str, Any]
    ) -> Tensor:
        """`forecast` of histories of one length."""
        rows = len(batch["x"])

        def block(batch: Batch, number: int) -> Tensor:
            paths = samples * rows // len(batch["x"])  # each its own row from the second block on
            past = encode(parts, batch)["codes"]
            begin, each = past.shape[1], path_seeds(seeds, samples, number)
            tokens = begin + self.block // parts.encoder.stride
            codes = parts.prior.sample(len(past), prefix=past, paths=paths, tokens=tokens, seeds=each, **how)
            return self._signal(parts, codes[:, begin:], repeat_rows(batch, paths))

        return rollout(parts.norm, batch, steps, samples, block)

    def encode(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`codes` [B, T, Q] of the history and the side information `sent` [B, S]."""
        return encode(parts, batch)

    def decode(self, parts: Parts, coded: dict[str, Tensor], batch: Batch) -> Tensor:
        """[B, C, L] in the signal's own units."""
        return decode(parts, coded["codes"], coded["sent"], batch)

    def _truth(self, parts: Parts, batch: Batch) -> Tensor:
        """The codes of the true future; where it is not known, of the norm's prediction."""
        centre, scale = parts.norm.future_stats(batch, self.block)
        normed = ((batch["future"][..., : self.block] - centre) / scale).nan_to_num(0.0)
        codes: Tensor = parts.quantizer(parts.encoder(normed.clamp(-self.clip, self.clip))).codes
        return codes

    def _signal(self, parts: Parts, codes: Tensor, batch: Batch) -> Tensor:
        """Codes of the future [B, T, Q] to its values [B, C, T * stride]."""
        centre, scale = parts.norm.future_stats(batch, self.block)
        values: Tensor = centre + scale * parts.decoder(parts.quantizer.decode(codes))
        return values

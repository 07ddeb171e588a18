"""How codes are used: over a log interval of training, and in full over the rows of a split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vqtool.api.quantizer import Quantized, Quantizer
from vqtool.diagnosis.measures import decibels, joint_usage, lag, sequences, usage_row
from vqtool.model.format import USAGE
from vqtool.model.seen import Seen, own_columns


class Usage:
    """Counts codes [B, T, Q] per codebook; -1 counts nowhere."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []
        self.before: dict[str, np.ndarray] = {}  # counted before the run was resumed

    def add(self, codes: Tensor) -> None:
        """Take a batch's codes."""
        self.kept.append(codes.detach().reshape(-1, codes.shape[-1]))

    def take(self, quantizer: Quantizer | None) -> dict[str, np.ndarray]:
        """The counts [K] of each codebook, by its name, since the last call; none where no codes came."""
        counts = self.counts(quantizer)
        self.kept, self.before = [], {}
        return counts

    def counts(self, quantizer: Quantizer | None) -> dict[str, np.ndarray]:
        """The same, and they count on."""
        if not self.kept or quantizer is None:
            return self.before
        codes = torch.cat(self.kept)
        return {
            name: torch.bincount(column[column >= 0], minlength=size).cpu().numpy() + self.before.get(name, 0)
            for name, size, column in zip(quantizer.codebook_names, quantizer.codebook_sizes, codes.unbind(1),
                                          strict=True)
        }  # fmt: skip


class Tally:
    """Watches a quantizer while a split passes through it; nothing it keeps grows with the number of batches but codes.

    Use as a context: inside, every forward of the quantizer is counted.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self.codes: list[Tensor] = []  # [B, T, Q] each
        self.vectors = quantizer.vectors() if quantizer.nearest and quantizer.initialised else None
        self.sums: list[Tensor] = []  # [K, D] of each codebook's inputs
        self.errors: list[Tensor] = []  # [K]
        self.power = self.left = 0.0  # sum of squares of the inputs, and of what is left of them
        self.mean: Tensor | float = 0.0  # the sum of the inputs [D]
        self.inputs = 0
        self.mixed: dict[str, Any] = {}
        self._hook: Any = None

    def __enter__(self) -> Tally:
        self._hook = self.quantizer.register_forward_hook(self._see, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    @torch.no_grad()
    def _see(self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], given: Quantized) -> None:
        codes = given.codes.detach()
        z = (arguments[0] if arguments else named["z"]).detach().float()
        flat = codes.reshape(-1, codes.shape[-1])
        real = (flat >= 0).any(1)
        if not bool(real.any()):
            return
        self.codes.append(codes.cpu())
        z, flat = z.reshape(-1, z.shape[-1])[real], flat[real]
        if self.vectors is not None:
            self._measure(z, flat)
        if given.soft is not None and given.probs is not None:
            self._mixture(z, given, real)

    def _measure(self, z: Tensor, codes: Tensor) -> None:
        """Add up what each code's inputs were and how far from it; z [N, D], codes [N, Q]."""
        assert self.vectors is not None
        if not self.sums:
            self.sums = [torch.zeros_like(v, dtype=torch.float32) for v in self.vectors]
            self.errors = [v.new_zeros(len(v), dtype=torch.float32) for v in self.vectors]
        self.inputs += len(z)
        self.mean = self.mean + z.double().sum(0)
        self.power += float(z.double().square().sum())
        rest = z
        for q, vectors in enumerate(self.vectors):
            some = codes[:, q] >= 0
            index = codes[:, q][some]
            before = rest[some]
            after = before - vectors.float()[index]
            own = own_columns(self.quantizer, vectors)
            self.sums[q].index_add_(0, index, before)
            self.errors[q].index_add_(0, index, after[:, own].square().sum(1))
            if some.all():
                rest = after
            else:
                rest = rest.clone()
                rest[some] = after
        self.left += float(rest.double().square().sum())

    def _mixture(self, z: Tensor, given: Quantized, real: Tensor) -> None:
        """Add up what soft choices were like."""
        assert given.probs is not None
        assert given.soft is not None
        probs = given.probs.detach().float().flatten(0, 1)[real]  # [N, Q, K]
        far = (given.soft.detach() - given.hard).float().flatten(0, 1)[real].square().sum()
        sums = self.mixed
        sums["tokens"] = sums.get("tokens", 0) + len(probs)
        sums["use"] = sums.get("use", 0) + probs.sum(0)
        sums["own"] = sums.get("own", 0) + float(torch.special.entr(probs).sum()) / probs.shape[1]
        sums["far"] = sums.get("far", 0.0) + float(far)
        sums["first"] = sums.get("first", 0) + z.double().sum(0)
        sums["second"] = sums.get("second", 0.0) + float(z.double().square().sum())

    def seen(self) -> Seen:
        """Everything counted, as tensors for a checkpoint and figures for a row."""
        if not self.codes:
            return Seen()
        codes = torch.cat([c.flatten(0, 1) for c in self.codes])
        tensors: dict[str, Tensor] = {}
        counts: dict[str, np.ndarray] = {}
        row: dict[str, float] = {}
        books = zip(self.quantizer.codebook_names, self.quantizer.codebook_sizes, strict=True)
        for q, (name, size) in enumerate(books):
            column = codes[:, q]
            n = torch.bincount(column[column >= 0], minlength=size)
            tensors[f"{USAGE}{q}.counts"], counts[name] = n, n.numpy()
            if self.sums and self.vectors is not None:
                row |= self._errors_of(q, name, n, tensors)
        if self.sums:
            row["codes.snr_db"] = decibels(self._centred(), self.left)
        row = usage_row(counts) | row | joint_usage(codes.numpy()) if len(counts) > 1 else usage_row(counts) | row
        return Seen(tensors, row | self._sequence() | self._soft())

    def _errors_of(self, q: int, name: str, counts: Tensor, tensors: dict[str, Tensor]) -> dict[str, float]:
        assert self.vectors is not None
        own = own_columns(self.quantizer, self.vectors[q])
        means = self.sums[q] / counts.clamp_min(1).to(self.sums[q])[:, None]
        offsets = (means - self.vectors[q].float())[:, own].square().sum(1)
        offsets = torch.where(counts.to(offsets.device) > 0, offsets, 0).cpu()
        errors = self.errors[q].cpu()
        tensors |= {f"{USAGE}{q}.errors": errors, f"{USAGE}{q}.offsets": offsets}
        return {f"codes.error.{name}": float(errors.double().sum()) / max(int(counts.sum()), 1),
                f"codes.lag.{name}": lag(counts.numpy(), errors.numpy(), offsets.numpy())}  # fmt: skip

    def _centred(self) -> float:
        """The sum of squares of the inputs about their mean."""
        mean = self.mean
        return max(0.0, self.power - float(mean.square().sum()) / self.inputs) if isinstance(mean, Tensor) else 0.0

    def _sequence(self) -> dict[str, float]:
        """How the tokens of a window vary: of the first codebook, which says most."""
        lengths = {c.shape[1] for c in self.codes}
        if len(lengths) != 1 or lengths == {1}:
            return {}
        return sequences(torch.cat(self.codes)[..., 0].numpy())

    def _soft(self) -> dict[str, float]:
        """Entropies of the mixtures in bits a codebook, and how far they are from the codes."""
        if not self.mixed:
            return {}
        m, log2 = self.mixed, float(np.log(2))
        use = (m["use"] / m["tokens"]).double()
        spread = m["second"] - float(m["first"].square().sum()) / m["tokens"]
        return {
            "soft.use_bits": float(torch.special.entr(use).sum()) / use.shape[0] / log2,  # H_use
            "soft.token_bits": m["own"] / m["tokens"] / log2,  # H_tok
            "soft.distance": m["far"] / spread if spread > 0 else 0.0,
        }

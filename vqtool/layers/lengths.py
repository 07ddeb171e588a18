"""Rows of different lengths in one batch: padding is cut off before anything is computed, and put back behind it.

Rows of one length are computed together, as a batch without padding. So every part, whatever it does inside
(convolutions, recurrences, statistics of a row), sees the shorter signal itself, and neither what the padding holds
nor how much there is of it can change a bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtool.api.spec import MASK, Batch, DataSpec
from vqtool.api.task import Parts
from vqtool.errors import VqtoolError


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one length, without their padding."""

    batch: Batch
    rows: Tensor | None = None  # [b] their places in the whole batch; None: these are all, and nothing is masked
    span: tuple[int, int] = (0, 0)  # the samples from .. to that are real
    fill: tuple[int, int] = (0, 0)  # zeros in front and behind that complete the first or last token
    tokens: int = 0

    def filled(self, x: Tensor) -> Tensor:
        """`x` [b, ..., l] in whole tokens."""
        return F.pad(x, self.fill) if any(self.fill) else x

    def emptied(self, x: Tensor) -> Tensor:
        """`x` as it was before `filled`."""
        return x[..., self.fill[0] : x.shape[-1] - self.fill[1]] if any(self.fill) else x


class Lengths:
    """A batch in groups of rows of one length, and back; where nothing is masked, one group that is the batch itself.

    Args:
        spec: of the data; None where nothing is masked.
        batch: rows; which of their samples are real is in its field `mask` [B, L].
        whole: samples that a row's length is completed to a multiple of, with zeros: behind it, or in front of it where
            the row is a history.
        bands: tokens of so many samples.

    Raises:
        VqtoolError: the real samples of a row are not one stretch, or there are none.
    """

    def __init__(self, spec: DataSpec | None, batch: Batch, *, whole: int = 1, bands: int = 1) -> None:
        self.spec, self.groups = spec, [Group(batch)]
        self.mask = mask = batch.get(MASK) if spec is not None and spec.named("mask") else None
        if mask is None or spec is None:
            return
        self.groups = []
        spans = spans_of(mask)
        for span in sorted(set(spans)):
            rows = torch.tensor([row for row, each in enumerate(spans) if each == span], device=mask.device)
            length = span[1] - span[0]
            missing = -length % whole
            fill = (missing, 0) if "future" in spec.fields else (0, missing)
            tokens = -(-length // whole) * bands
            picked = {name: value[rows] for name, value in batch.items()}
            self.groups.append(Group(cut(spec, picked, span), rows, span, fill, tokens))

    @classmethod
    def of(cls, parts: Parts, batch: Batch) -> Lengths:
        """In whole tokens of the parts' encoder."""
        if MASK not in batch:
            return cls(None, batch)
        encoder = parts.encoder
        return cls(parts.norm.spec, batch, whole=encoder.stride * encoder.bands, bands=encoder.bands)

    def split(self, batch: Batch) -> list[Batch]:
        """Another batch of these rows, normalised perhaps, in the same groups."""
        if self.spec is None or self.mask is None:
            return [batch]
        return [cut(self.spec, {n: v[group.rows] for n, v in batch.items()}, group.span) for group in self.groups]

    def join_batches(self, batches: Sequence[Batch]) -> Batch:
        """What `split` undoes: the groups' batches as one, with zeros for padding in the fields along the signal."""
        if self.spec is None or self.mask is None:
            return batches[0]
        joined: Batch = {}
        for name in batches[0]:
            frame = max(1, frame_of(self.spec, name))
            total, parts = -(-self.mask.shape[-1] // frame), [batch[name] for batch in batches]
            if frame_of(self.spec, name):
                spans = [(group.span[0] // frame, total - -(-group.span[1] // frame)) for group in self.groups]
                parts = [F.pad(part, span) for part, span in zip(parts, spans, strict=True)]
            joined[name] = self.join_rows(parts)
        return joined

    def rows(self, value: Tensor) -> list[Tensor]:
        """`value` [B, ...] by group."""
        return [value if group.rows is None else value[group.rows] for group in self.groups]

    def tokens(self, value: Tensor) -> list[Tensor]:
        """`value` [B, T, ...] by group, without padded tokens."""
        pairs = zip(self.rows(value), self.groups, strict=True)
        return [rows if group.rows is None else rows[:, : group.tokens] for rows, group in pairs]

    def token_mask(self) -> Tensor | None:
        """[B, T]: which tokens are real, of as many as the longest row has."""
        if self.mask is None:
            return None
        counts = [
            self.mask.new_full((len(group.batch[MASK]),), group.tokens, dtype=torch.long) for group in self.groups
        ]
        most = max(group.tokens for group in self.groups)
        return torch.arange(most, device=self.mask.device) < self.join_rows(counts)[:, None]

    def join_rows(self, parts: Sequence[Tensor]) -> Tensor:
        """[b, ...] of each group as [B, ...]."""
        if self.mask is None:
            return parts[0]
        order = torch.cat([group.rows for group in self.groups if group.rows is not None])
        return torch.cat(list(parts))[order.argsort()]

    def join_tokens(self, parts: Sequence[Tensor], fill: float = 0) -> Tensor:
        """[b, t, ...] of each group as [B, T, ...], `fill` where a row has fewer tokens than the longest."""
        most = max(part.shape[1] for part in parts)
        padding = [(0, 0) * (part.ndim - 2) + (0, most - part.shape[1]) for part in parts]
        return self.join_rows(
            [F.pad(part, pad, value=fill) if pad[-1] else part for part, pad in zip(parts, padding, strict=True)]
        )

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """[b, ..., l] of each group as [B, ..., L]: every row in its place, zeros in that of its padding."""
        return self.join_batches([{"x": part} for part in parts])["x"]


def spans_of(mask: Tensor) -> list[tuple[int, int]]:
    """The samples from .. to of each row of `mask` [B, L] that are real."""
    real = mask.bool().cpu()
    count, first = real.sum(1), real.int().argmax(1)
    stop = real.shape[1] - real.flip(1).int().argmax(1)
    if bool(((stop - first) != count).any()):
        row = int(((stop - first) != count).nonzero()[0])
        if not int(count[row]):
            raise VqtoolError(f"row {row} has no real samples by its `mask`", hint="leave that row out")
        raise VqtoolError(f"row {row} has real samples in more than one stretch by its `mask`",
                          hint="padding belongs in front of a row, or behind it")  # fmt: skip
    return list(zip(first.tolist(), stop.tolist(), strict=True))


def frame_of(spec: DataSpec, name: str) -> int:
    """How many samples an entry of a field's last axis stands for; 0 where the field does not run along the signal."""
    field = spec.fields.get(name)
    if field is None or not field.shape or field.role not in ("signal", "wave", "mask", "label"):
        return 0
    return spec.length // max(1, field.shape[-1])


def cut(spec: DataSpec, batch: Batch, span: tuple[int, int]) -> Batch:
    """The batch between two samples, in all fields that run along the signal."""
    return {
        name: value[..., span[0] // frame : -(-span[1] // frame)] if (frame := frame_of(spec, name)) else value
        for name, value in batch.items()
    }


def trimmed(spec: DataSpec, batch: Batch) -> Batch:
    """A batch no longer than its longest row, with zeros (labels: -1) for all padding; others as they are."""
    if MASK not in batch or not spec.named("mask"):
        return batch
    spans = spans_of(batch[MASK])
    batch = cut(spec, batch, (min(start for start, _ in spans), max(stop for _, stop in spans)))
    batch[MASK] = mask = batch[MASK].bool()
    for name, value in batch.items():
        frame = frame_of(spec, name)
        if name == MASK or not frame:
            continue
        wanted = value.shape[-1] * frame
        real = F.pad(mask, (0, max(0, wanted - mask.shape[-1])))[:, :wanted].unflatten(1, (-1, frame)).any(2)
        real = real.view(len(real), *[1] * (value.ndim - 2), -1)
        batch[name] = value.masked_fill(~real, -1 if spec.fields[name].role == "label" else 0)
    return batch


def real_values(x: Tensor, mask: Tensor | None) -> Tensor:
    """What is real of `x` [B, C, L]: itself, or the samples [N, C] where `mask` [B, L] is true.

    The mean of a loss over them is one over the real samples; its bits do not depend on the padding.
    """
    return x if mask is None else x.movedim(1, 2)[mask]


def real_rows(mask: Tensor | None, *signals: Tensor) -> list[tuple[Tensor, ...]]:
    """`signals` [B, C, L] in groups of rows of one length, without padding: for losses that look along a signal."""
    if mask is None:
        return [signals]
    spans = spans_of(mask)
    groups = [(span, [row for row, each in enumerate(spans) if each == span]) for span in sorted(set(spans))]
    return [tuple(x[rows][..., span[0] : span[1]] for x in signals) for span, rows in groups]


def cat_windows(seen: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    """Latents [B, T, D] of several batches, and their masks [B, T], as one; windows of fewer tokens are padded."""
    tokens = {z.shape[1] for z, _ in seen}
    if len(tokens) == 1 and all(mask is None for _, mask in seen):
        return torch.cat([z for z, _ in seen]), None
    missing = [(0, max(tokens) - z.shape[1]) for z, _ in seen]
    masks = [z.new_ones(z.shape[:2], dtype=torch.bool) if mask is None else mask.bool() for z, mask in seen]
    z = torch.cat([F.pad(z, (0, 0, *pad)) for (z, _), pad in zip(seen, missing, strict=True)])
    return z, torch.cat([F.pad(mask, pad) for mask, pad in zip(masks, missing, strict=True)])

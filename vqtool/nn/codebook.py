"""A codebook: K code vectors, whether they were started, the search in them and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vqtool.errors import VqtoolError
from vqtool.nn.kmeans import kmeans, random_rows
from vqtool.nn.nearest import nearest
from vqtool.nn.tokens import only_if_some

Start = Literal["kmeans", "random"]


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search over N tokens."""

    codes: Tensor  # [N] long, -1 for tokens that do not count
    valid: Tensor | None  # [N] bool, the tokens that count; None: all
    not_finite: Tensor  # 0-dim long, real tokens with a NaN or an infinity


class Codebook(nn.Module):
    """K code vectors [K, d]: a parameter if `trained`, else a buffer that somebody moves.

    `ready` says whether they were started. It is a buffer, so that it travels with the weights, mirrored by a plain
    Python flag, so that asking costs no wait for the device and breaks no graph.
    """

    codes: Tensor
    ready: Tensor

    def __init__(self, size: int, dim: int, *, trained: bool) -> None:
        super().__init__()
        codes = torch.zeros(size, dim)
        if trained:
            self.codes = nn.Parameter(codes)
        else:
            self.register_buffer("codes", codes)
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))
        self.is_ready = False

    @torch.no_grad()
    def set(self, codes: Tensor) -> None:
        """Take `codes` [K, d] as the codebook."""
        self.codes.copy_(codes)
        self.ready.fill_(True)
        self.is_ready = True

    def start(self, points: Tensor, how: Start, generator: torch.Generator) -> None:
        """Start from `points` [N, d]: their k-means centres, or random ones of them."""
        begin = kmeans if how == "kmeans" else random_rows
        self.set(begin(points.to(self.codes.dtype), self.codes.shape[0], generator))

    def search(self, tokens: Tensor, real: Tensor | None = None) -> Found:
        """The nearest code of each of `tokens` [N, D]; `real` [N] bool says which of them count."""
        self.require_ready()
        return search(self.vectors, tokens, real)

    def look_up(self, codes: Tensor, valid: Tensor | None) -> Tensor:
        """The vectors [N, D] of `codes` [N]; zero where `valid` [N] is false. A gradient reaches trained codes."""
        self.require_ready()
        return look_up(self.vectors, codes, valid)

    @property
    def vectors(self) -> Tensor:
        """What each code stands for [K, D]."""
        return self.codes

    def require_ready(self) -> None:
        """Refuse to work on codes that were never started."""
        if not self.is_ready:
            raise VqtoolError(
                "the quantizer was never started: its codebook holds no codes",
                hint="load a checkpoint, or call quantizer.initialise(z) with outputs of the encoder",
                exit_code=1,
            )

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]
        self.is_ready = bool(self.ready)


def search(table: Tensor, tokens: Tensor, real: Tensor | None) -> Found:
    """The nearest row of `table` [K, d] for each of `tokens` [N, d]; those not `real` [N] or not finite get -1."""
    codes, finite = nearest(tokens.detach(), table.detach())
    not_finite = ~finite if real is None else real & ~finite
    valid = only_if_some(finite if real is None else real & finite)
    if valid is not None:
        codes = codes.masked_fill(~valid, -1)
    return Found(codes, valid, not_finite.sum())


def look_up(table: Tensor, codes: Tensor, valid: Tensor | None) -> Tensor:
    """Rows of `table` [K, d] for `codes` [N]; a zero row where `valid` [N] is false (None: all are)."""
    if valid is None:
        return table.index_select(0, codes)
    table = torch.cat([table, table.new_zeros(1, table.shape[1])])
    return table.index_select(0, torch.where(valid, codes, table.shape[0] - 1))

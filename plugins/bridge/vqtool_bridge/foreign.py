"""A module of vector-quantize-pytorch behind the contract of vqtool's quantizers, as it is: nothing is fixed."""

from __future__ import annotations

from inspect import signature
from typing import Any

from torch import Tensor, nn

from vqtool.api import Quantized, Quantizer


class Foreign(Quantizer):
    """Calls `module`, which returns (what flows on, indices, loss), and reports what it gives.

    Its loss, weighted inside of the library, is the one term `vqp`. What the library does in `forward` (moving
    averages, starting the codebooks, replacing dead codes) it does in `forward` here too: with gradient accumulation,
    several machines or frozen stages it follows each micro-batch of each rank. `vqtool verify` says what that breaks.
    """

    terms = frozenset({"vqp"})
    module: Any
    straight_through = False  # some pass the gradient on by rotation or through a projection
    nearest = False  # some look elsewhere than for the nearest vector

    def __init__(self, dim: int, sizes: tuple[int, ...], module: nn.Module) -> None:
        super().__init__()
        self.dim, self.codebook_sizes, self.module = dim, sizes, module

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        given = {} if mask is None or "mask" not in signature(self.module.forward).parameters else {"mask": mask.bool()}
        answer = self.module(z, **given)
        loss = answer[2].float().sum() if len(answer) > 2 else z.new_zeros(())  # one number, or one for each level
        passed, codes = answer[0], answer[1].long().reshape(*z.shape[:2], len(self.codebook_sizes))
        if mask is not None:  # the one thing that every caller of vqtool's contract relies on
            passed = passed.masked_fill(~mask.bool()[..., None], 0)
            codes = codes.masked_fill(~mask.bool()[..., None], -1)
        return Quantized(passed, codes, passed.detach(), terms={"vqp": loss})

    def decode(self, codes: Tensor) -> Tensor:
        none = (codes < 0).all(-1, keepdim=True)
        index = codes.clamp_min(0) if len(self.codebook_sizes) > 1 else codes[..., 0].clamp_min(0)
        of_levels = hasattr(self.module, "get_output_from_indices")
        value = self.module.get_output_from_indices(index) if of_levels else self.module.indices_to_codes(index)
        return value.masked_fill(none, 0)

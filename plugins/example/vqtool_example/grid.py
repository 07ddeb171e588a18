"""A quantizer without a learnt codebook: each feature is rounded to the nearest of K evenly spaced values."""

from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Gt
from torch import Tensor

from vqtool.api import Quantized, Quantizer

Size = Annotated[int, Gt(1), Doc("values per feature")]
Reach = Annotated[float, Gt(0), Doc("the largest value")]


class Grid(Quantizer):
    """D features are D codebooks of K values up to `reach`; the term `commitment` keeps inputs within."""

    terms = frozenset({"commitment"})
    values: Tensor

    def __init__(self, dim: int, *, codebook_size: Size = 16, reach: Reach = 2.0) -> None:
        super().__init__()  # `dim` is given by the task, what is keyword-only by the recipe
        self.dim, self.codebook_sizes = dim, (codebook_size,) * dim
        self.register_buffer("values", torch.linspace(-reach, reach, codebook_size))

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        finite = z.isfinite().all(-1)  # [B, T]
        real = torch.ones_like(finite) if mask is None else mask.bool()
        valid = (finite & real)[..., None]
        inputs = torch.where(valid, z.float(), 0)
        steps = (inputs.detach() - self.values[0]) / (self.values[1] - self.values[0])
        codes = steps.round().long().clamp(0, len(self.values) - 1)
        hard = torch.where(valid, self.values[codes], 0)
        terms = {"commitment": (inputs - hard).square().sum() / (valid.sum() * self.dim).clamp_min(1)}
        passed = hard + (inputs - inputs.detach())  # in value the codes, in gradient the input
        return Quantized(passed, codes.masked_fill(~valid, -1), hard, terms=terms, not_finite=(~finite & real).sum())

    def decode(self, codes: Tensor) -> Tensor:
        values = torch.where(codes >= 0, self.values[codes.clamp_min(0)], 0)
        return torch.nn.functional.pad(values, (0, self.dim - codes.shape[-1]))

    def vectors(self) -> tuple[Tensor, ...]:
        return tuple(self.values[:, None] * row for row in torch.eye(self.dim, device=self.values.device))

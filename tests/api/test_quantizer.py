"""From the base class of quantizers: `decode` refuses codes that no codebook holds, and costs graphs nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vqtool.conformance import Subject
from vqtool.errors import VqtoolError
from vqtool.quantizers.fsq import FSQ
from vqtool.quantizers.residual import ResidualEMA

SUBJECT = Subject(ResidualEMA, options={"levels": 2, "codebook_size": 48})


class Decoding(nn.Module):
    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, codes: Tensor) -> Tensor:
        value: Tensor = self.quantizer.decode(codes)
        return value


def test_a_foreign_code_is_named_with_its_codebook_and_range() -> None:
    quantizer = SUBJECT.started(train=False)
    codes = torch.zeros(2, 3, 2, dtype=torch.long)
    for value in (48, -2):
        codes[1, 2, 1] = value
        with pytest.raises(VqtoolError, match=f"code {value} is not one of `level1`, whose codes are 0 to 47"):
            quantizer.decode(codes)
    codes[1, 2, 1] = -1
    assert quantizer.decode(codes).isfinite().all()
    with pytest.raises(VqtoolError, match="whole numbers, not float32"):
        quantizer.decode(codes.float())
    with pytest.raises(VqtoolError, match="4 columns, and the quantizer has 2 codebooks"):
        quantizer.decode(codes.repeat(1, 1, 2))
    assert quantizer.decode(codes[:0]).shape == (0, 3, 8)


def test_a_wrong_vector_is_no_answer_either() -> None:
    quantizer = FSQ(3, levels=(3, 3, 3))
    with pytest.raises(VqtoolError, match="code 27 is not one of `codebook`, whose codes are 0 to 26"):
        quantizer.decode(torch.full((1, 1, 1), 27))


@torch.no_grad()
def test_graphs_have_no_trace_of_the_check() -> None:
    quantizer = SUBJECT.started(train=False)
    codes = quantizer(SUBJECT.tokens()).codes
    plain = quantizer.decode(codes)
    torch.compiler.reset()
    compiled = torch.compile(Decoding(quantizer), fullgraph=True, backend="eager")(codes)
    program = torch.export.export(Decoding(quantizer), (codes,))
    assert torch.equal(compiled, plain)
    assert torch.equal(program.module()(codes), plain)
    assert "aten.min" not in str(program.graph)
    assert "aten._local_scalar_dense" not in str(program.graph)

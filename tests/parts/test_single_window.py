"""One window alone, laid out in memory as a convolution leaves it, is quantized as in any other layout."""

from __future__ import annotations

import pytest
import torch

from vqtool.catalog import catalog
from vqtool.conformance import Subject


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", catalog().names("quantizer"))
def test_a_transposed_window_of_its_own(kind: str, training: bool) -> None:
    subject = Subject(catalog().load("quantizer", kind), length=300)
    quantizer = subject.started(train=training)
    x = torch.randn(1, subject.dim, 300, generator=torch.Generator().manual_seed(0))
    z, plain = x.transpose(1, 2).requires_grad_(), x.transpose(1, 2).contiguous().requires_grad_()
    out, wanted = quantizer(z), quantizer(plain)
    assert not z.is_contiguous()
    assert torch.equal(out.codes, wanted.codes)
    for each, loss in ((z, out), (plain, wanted)):
        (loss.z.square().sum() + sum(loss.terms.values())).backward()
        assert each.grad is not None
    torch.testing.assert_close(z.grad, plain.grad)

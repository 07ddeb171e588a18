"""Mixed rows: sums of two rows of the batch, as large as the row they replace, in training alone."""

from __future__ import annotations

import pytest
import torch

from vqtool.api import DataSpec, Field, Norm, Parts
from vqtool.errors import VqtoolError
from vqtool.parts.conditioners.spectrum import SpectrumConditioner
from vqtool.parts.decoders.patch import PatchDecoder
from vqtool.parts.encoders.patch import PatchEncoder
from vqtool.parts.tasks.autoencode import Autoencode, mixed
from vqtool.quantizers.vq import EMA

SPEC = DataSpec({"x": Field((1, 16), "signal"), "wave": Field((1, 16), "wave")})


def test_a_mixed_row_is_a_sum_of_two_and_as_large_as_the_first():
    torch.manual_seed(0)
    x = torch.linalg.qr(torch.randn(16, 16)).Q[:6, None] * torch.arange(1.0, 7)[:, None, None]
    y = mixed(x, 1.0)
    torch.testing.assert_close(y.square().mean((1, 2)), x.square().mean((1, 2)))
    share = torch.einsum("bcl,acl->ba", y, x) / x.square().sum((1, 2))
    own = torch.eye(6, dtype=torch.bool)
    assert float(share[~(own | own.roll(-1, 1))].abs().max()) < 1e-5  # of itself and of the row before it only
    assert torch.equal(mixed(x, 0.0), x)


def test_rows_of_nothing_stay_finite():
    x = torch.zeros(3, 1, 8)
    x[0] = 1.0
    assert mixed(x, 1.0).isfinite().all()


def chain(mix: float) -> tuple[Autoencode, Parts]:
    torch.manual_seed(0)
    encoder = PatchEncoder(1, 16, patch=4)
    parts = Parts({"norm": Norm(SPEC), "encoder": encoder, "quantizer": EMA(encoder.dim, codebook_size=4)})
    parts["decoder"] = PatchDecoder(encoder.dim, 1, 16, encoder.stride)
    parts.quantizer.initialise(encoder(torch.randn(8, 1, 16)))
    return Autoencode(mix=mix), parts


def test_only_training_rows_are_mixed():
    task, parts = chain(1.0)
    batch = {"x": torch.randn(8, 1, 16)}
    assert not torch.equal(task.step(parts.train(), batch)["target"], batch["x"])
    assert torch.equal(task.step(parts.eval(), batch)["target"], batch["x"])
    assert torch.equal(chain(0.0)[0].step(parts.train(), batch)["target"], batch["x"])


def test_conditioned_rows_cannot_be_mixed():
    def make(role, *wiring, optional=False):
        return SpectrumConditioner(SPEC, dim=4) if role == "conditioner" else None

    with pytest.raises(VqtoolError, match="cannot be mixed"):
        Autoencode(mix=0.5).build(make, SPEC)

"""A trained model in bfloat16 and float16: the networks compute in it, codes are searched for in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vqtool
from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.api.precision import HALVES
from vqtool.errors import VqtoolError
from vqtool.model import precision as precisions
from vqtool.model.load import load
from vqtool.model.precision import require_precision

SMALL = ["stage.tokenizer.steps=20", "stage.prior.steps=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a prior, with a few steps of each stage."""
    folder = tmp_path_factory.mktemp("precision")
    assert session(write_recipe(folder, prior=True), folder / "run", SMALL).train() == 0
    return folder / "run"


@pytest.mark.parametrize("precision", HALVES)
def test_networks_compute_in_it_and_results_are_float32(run: Path, precision: str) -> None:
    plain, half = load(run), vqtool.load(run, precision=precision)
    x = torch.randn(6, 1, 32, generator=torch.Generator().manual_seed(0))
    inside: list[torch.dtype] = []
    read: list[Tensor] = []
    for module in half.parts.encoder.modules():
        if isinstance(module, nn.Conv1d):
            module.register_forward_hook(lambda _, __, y: inside.append(y.dtype))
    half.parts.quantizer.register_forward_pre_hook(lambda _, z: read.append(z[0].float()))
    coded = half.encode(x)
    assert set(inside) == {HALVES[precision]}
    with torch.no_grad():
        assert torch.equal(coded["codes"], plain.parts.quantizer(read[0]).codes)  # those of a search in float32
    assert (coded["codes"] == plain.encode(x)["codes"]).double().mean() > 0.8
    signal = half.decode(coded)
    assert signal.dtype == torch.float32
    torch.testing.assert_close(signal, plain.decode(coded), rtol=0.02, atol=0.02)
    assert {tensor.dtype for tensor in half.parts.state_dict().values() if tensor.is_floating_point()} == {
        torch.float32
    }
    embedded = half.embed(x)
    assert embedded["features"].dtype == torch.float32
    assert half.generate(2, temperature=1.0, seeds=[0, 1]).shape == (2, 1, 32)


def test_back_in_float32_it_is_the_same_model(run: Path) -> None:
    x = torch.randn(6, 1, 32)
    plain, changed = load(run), load(run, precision="bf16")
    assert not torch.equal(changed.embed(x)["features"], plain.embed(x)["features"])
    assert torch.equal(changed.compute_in("fp32").embed(x)["features"], plain.embed(x)["features"])


def test_a_precision_that_is_not_there_is_one_error(run: Path) -> None:
    with pytest.raises(VqtoolError, match="there is no precision `fp8`"):
        load(run, precision="fp8")


class Unable:
    """An autocast that torch does not have."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("User specified an unsupported autocast device_type")


def test_what_a_device_cannot_is_one_error_before_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_precision.cache_clear()
    monkeypatch.setattr(precisions.torch, "autocast", Unable)
    with pytest.raises(VqtoolError, match="cannot compute in fp16 on `cpu`") as error:
        load(run, precision="fp16")
    assert error.value.exit_code == 1
    with pytest.raises(VqtoolError, match="cannot compute in bf16 on `cpu`"):
        session(write_recipe(tmp_path, prior=True), tmp_path / "run", ["stage.prior.precision=bf16"])
    assert not list((tmp_path / "run").glob("*.safetensors"))
    require_precision.cache_clear()

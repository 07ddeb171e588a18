"""Quantizers of other libraries become ours with the same codes to the last index, and go back as they were."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vqtool
from tests.foreign.reference import (
    CASES,
    Case,
    D,
    Dac,
    Encodec,
    Lucidrains,
    Vqgan,
    installed,
    latents,
    ours,
    real,
    same,
)
from vqtool.errors import VqtoolError
from vqtool.foreign.convert import convert
from vqtool.foreign.slots import divisible
from vqtool.quantizers import VQ, Residual
from vqtool.quantizers.core.codebook import Codebook
from vqtool.quantizers.core.composable import Composable

ALL = CASES | dict(real())
STRESS = {"plain": (1.0, 0.0), "tiny": (1e-3, 0.0), "far": (1.0, 10.0), "tiny and far": (1e-3, 10.0)}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def made(name: str) -> tuple[Case, Any]:
    case = ALL[name]
    return case, case.make().eval()


@torch.no_grad()
def moved(quantizer: Composable) -> None:
    """Change every codebook and map."""
    for inner in quantizer.modules():
        if isinstance(inner, Codebook):
            inner.codes.add_(0.3 * torch.randn_like(inner.codes))
            inner.keep_length()
            if inner.kind == "ema":
                inner.weights.mul_(1.7).add_(0.01)
    for parameter in quantizer.parameters():
        parameter.mul_(1.01)


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_codes_are_the_same_to_the_last_index(name: str) -> None:
    case, module = made(name)
    if name.endswith("unstarted"):
        module(latents("BTD"))  # in evaluation too, this library starts on what it sees first
    quantizer = ours(module)
    assert quantizer.layout == case.layout
    assert not quantizer.training
    for scale, offset in STRESS.values():
        x = latents(case.layout, 16) * scale + offset
        assert torch.equal(quantizer(x).codes, case.encode(module, x)), (scale, offset)


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_what_was_not_changed_comes_back_bit_for_bit(name: str) -> None:
    case, module = made(name)
    quantizer = ours(module)
    back = vqtool.convert(quantizer, to=case.library)
    assert isinstance(back, dict)
    assert same(back, dict(module.state_dict()))


@pytest.mark.parametrize("name", [name for name in ALL if not name.endswith("unstarted")])
@torch.no_grad()
def test_what_was_changed_is_loaded_strictly_and_gives_the_same_codes(name: str) -> None:
    case, module = made(name)
    quantizer = ours(module)
    x = latents(case.layout, 16)
    before = case.encode(module, x)
    moved(quantizer)
    module.load_state_dict(vqtool.convert(quantizer, to=case.library), strict=True)
    assert torch.equal(case.encode(module, x), quantizer(x).codes)
    assert not torch.equal(quantizer(x).codes, before)


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].library not in ("dac", "vqgan")])
def test_counts_become_moving_averages(name: str) -> None:
    """In the order of the codes; a shared codebook's once for each level."""
    if "learned" in name:
        return
    _, module = made(name)
    counts = [t for n, t in module.state_dict().items() if n.endswith(("cluster_size", "cluster_usage"))]
    known = ours(module).code_use()
    assert known is not None
    assert torch.equal(torch.cat([t.flatten() for t in counts]), torch.cat(known))


@torch.no_grad()
def test_decoding_gives_the_vectors_of_the_original() -> None:
    module = Encodec(8).eval()
    quantizer, x = ours(module), latents("BCL")
    rest, total = x.transpose(1, 2).reshape(-1, D), torch.zeros(4 * 50, D)
    for layer in module.vq.layers:
        value = layer(rest)[1]
        rest, total = rest - value, total + value
    result = quantizer(x)
    assert torch.equal(result.z.transpose(1, 2).reshape(-1, D), total)
    assert torch.equal(quantizer.decode(result.codes), result.z)
    tables = quantizer.vectors()
    assert tables is not None
    summed = sum(table[result.codes[..., q]] for q, table in enumerate(tables))
    torch.testing.assert_close(summed.transpose(1, 2), result.z)


def test_sums_that_are_divided_give_the_codes_to_the_last_bit() -> None:
    codes, counts = torch.randn(500, 16), torch.rand(500) * 100 + 1e-3
    sums, kept = divisible(codes, counts)
    assert torch.equal(sums / kept[:, None], codes)
    assert float((kept / counts).log2().abs().max()) <= 0.5001


def test_a_quantizer_is_found_in_its_model_and_in_a_state_dict() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.quantizer = nn.Conv1d(1, D, 3), Dac(nn.Identity().forward).eval()

    model, x = Model().eval(), latents("BCL")
    with torch.no_grad():
        expected = model.quantizer.encode(x)
        assert torch.equal(ours(model)(x).codes, expected)
        prefixed = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        assert vqtool.convert(prefixed)(x).codes.shape == expected.shape  # type: ignore[operator]  # a quantizer


@torch.no_grad()
def test_a_quantizer_of_ours_goes_into_a_module_of_the_same_shape() -> None:
    quantizer, module, x = Residual(D, "BCL", levels=4, of=partial(VQ, codebook_size=32)), Encodec(), latents("BCL")
    quantizer.initialise(x)
    with pytest.raises(VqtoolError, match="was not converted"):
        vqtool.convert(quantizer, to="encodec")
    state = vqtool.convert(quantizer, to="encodec", into=module)
    assert isinstance(state, dict)
    module.load_state_dict(state, strict=True)
    assert torch.equal(module.encode(x), quantizer.eval()(x).codes)
    with pytest.raises(VqtoolError, match="a quantizer of vqgan, not of encodec"):
        vqtool.convert(quantizer, to="encodec", into=Vqgan())


def test_what_has_no_equal_says_why(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="no quantizer that vqtool can convert"):
        convert({"encoder.weight": torch.randn(4, 4)})
    wav2vec2 = {"quantizer.codevectors": torch.randn(1, 64, 8), "quantizer.weight_proj.weight": torch.randn(64, 32)}
    with pytest.raises(VqtoolError) as caught:
        convert(wav2vec2)
    assert "logits of another width" in str(caught.value.hint)
    shared = Lucidrains(3, 8, False)
    shared.project_in, shared.project_out = nn.Linear(D, 48), nn.Linear(48, D)
    shared._codebook.embed = shared._codebook.embed[:1]
    shared._codebook.embed_avg, shared._codebook.cluster_size = shared._codebook.embed_avg[:1], torch.ones(1, 32)
    with pytest.raises(VqtoolError, match="6 heads of this quantizer share one codebook"):
        convert(shared.state_dict())
    affine = Lucidrains().state_dict() | {"_codebook.codebook_mean": torch.ones(1, 1, D)}
    with pytest.raises(VqtoolError, match="made with `affine_param`"):
        convert(affine)
    cut = {name: tensor for name, tensor in Dac(nn.Identity().forward).state_dict().items() if "in_proj.w" not in name}
    with pytest.raises(VqtoolError, match="without all of its tensors"):
        convert(cut)
    with pytest.raises(VqtoolError, match="this is a quantizer of vqtool"):
        convert(ours(Encodec()))
    with pytest.raises(VqtoolError, match="was converted from encodec"):
        convert(ours(Encodec()), to="dac")
    with pytest.raises(VqtoolError, match='there is no library "moshi"'):
        convert(Encodec(), to="moshi")


@pytest.mark.skipif(not installed("vector_quantize_pytorch"), reason="vector-quantize-pytorch is not installed")
@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        ("VectorQuantize", {"heads": 2, "codebook_dim": 12}, "2 heads of this quantizer share one codebook"),
        ("VectorQuantize", {"codebook_dim": 8, "layernorm_after_project_in": True}, "`layernorm_after_project_in`"),
        ("VectorQuantize", {"affine_param": True}, "`affine_param`"),
        ("ResidualVQ", {"num_quantizers": 2, "implicit_neural_codebook": True}, "`implicit_neural_codebook`"),
        ("ResidualVQ", {"num_quantizers": 2, "beam_size": 2}, "a beam"),
        ("FSQ", None, "no quantizer that vqtool can convert"),
        ("LFQ", None, "no quantizer that vqtool can convert"),
    ],
)
def test_options_without_an_equal_are_named(kind: str, options: dict[str, Any] | None, why: str) -> None:
    import vector_quantize_pytorch

    make = getattr(vector_quantize_pytorch, kind)
    if options is None:
        module = make([8, 5, 5], dim=D) if kind == "FSQ" else make(dim=D, codebook_size=32)
    else:
        module = make(dim=D, codebook_size=32, **options)
    with pytest.raises(VqtoolError, match=why):
        convert(module)

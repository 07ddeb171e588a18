"""Quantizers of other libraries become ours with the same codes to the last index, and go back as they were."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

import vqtool
from tests.foreign.reference import CASES, Case, D, Dac, Encodec, Lucidrains, Vqgan, installed, latents, real
from vqtool.api import DataSpec, Field, Parts
from vqtool.commands import convert as command
from vqtool.commands import improve
from vqtool.console import out
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.reading import report_of
from vqtool.errors import VqtoolError
from vqtool.foreign.convert import convert, quantizer_in
from vqtool.foreign.slots import divisible
from vqtool.model.model import Model
from vqtool.quantizers import VQ, Residual
from vqtool.quantizers.core.codebook import Codebook
from vqtool.quantizers.core.composable import Composable
from vqtool.recipe.recipe import parse

ALL = CASES | dict(real())
RECIPE = """
data = { kind = "arrays", path = "x.npy" }
encoder = { kind = "identity" }
quantizer = { kind = "vq" }
decoder = { kind = "identity" }
stage = [{ name = "one", task = "autoencode", steps = 1, losses = { mse = 1.0 } }]
"""
STRESS = {"plain": (1.0, 0.0), "tiny": (1e-3, 0.0), "far": (1.0, 10.0), "tiny and far": (1e-3, 10.0)}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def made(name: str) -> tuple[Case, Any]:
    case = ALL[name]
    return case, case.make().eval()


def ours(module: nn.Module) -> Composable:
    quantizer = vqtool.convert(module)
    assert isinstance(quantizer, Composable)
    return quantizer


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


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


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


# --- files -----------------------------------------------------------------------------------------------------------


def saved(folder: Path, module: nn.Module, name: str = "quantizer") -> Path:
    """A model's file with an encoder, in bfloat16, beside the quantizer."""
    tensors = {f"{name}.{n}": t.detach().clone() for n, t in module.state_dict().items()}
    path = folder / "model.safetensors"
    safetensors.torch.save_file(tensors | {"encoder.weight": torch.randn(8, 3).bfloat16()}, path, {"format": "pt"})
    return path


def run(source: Path, to: str, target: Path, **options: Any) -> dict[str, Any]:
    """What `vqtool convert --json` says."""
    documents: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(out, "document", documents.append)
        assert command.run(source=source, to=to, out_file=target, **{"into": None, "part": None} | options) == 0
    return documents[0]


@pytest.mark.parametrize("name", CASES)
def test_a_file_becomes_a_checkpoint_and_the_same_file_again(name: str, tmp_path: Path) -> None:
    case, module = made(name)
    path, own, again = saved(tmp_path, module, "quantize"), tmp_path / "q.safetensors", tmp_path / "again.safetensors"
    result = run(path, "vqtool", own)
    assert result["library"] == case.library
    assert result["part"].startswith("quantize")
    x = latents(case.layout)
    with torch.no_grad():
        assert torch.equal(quantizer_in(own)(x).codes, case.encode(module, x))
        rows = x if case.layout != "BTD" else x.transpose(1, 2)
        codes = vqtool.load(own).encode(rows.flatten(2))["codes"]
        assert torch.equal(codes, case.encode(module, x).flatten(1, -2))
    assert run(own, case.library, again, into=path)["changed"] == []
    assert again.read_bytes() == path.read_bytes()
    alone = tmp_path / "alone.safetensors"
    run(own, case.library, alone)
    root = result["part"].removeprefix("quantize").lstrip(".")
    inner = module.get_submodule(root) if root else module
    inner.load_state_dict(safetensors.torch.load_file(alone), strict=True)


def dying(levels: int = 4) -> tuple[Encodec, Tensor]:
    """A residual quantizer that fits its latents [40, D, 64], but for half of its second level, far away."""
    module = Encodec().eval()
    x = torch.randn(40, D, 64) * torch.linspace(2, 0.2, D)[:, None]
    rest = x.transpose(1, 2).reshape(-1, D)
    for number, layer in enumerate(module.vq.layers):
        book = layer._codebook
        book.embed.copy_(rest[torch.randperm(len(rest))[:32]])
        if number == 1:
            book.embed[16:] += 100
            book.cluster_size[16:] = 1e-9
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
        rest = rest - layer(rest)[1].detach()
    return module, x


def test_codes_behind_a_map_are_diagnosed_where_they_are_compared(tmp_path: Path) -> None:
    """Eight dimensions out of the latents' 24: behind the map, 16 dimensions would look collapsed."""
    own = tmp_path / "q.safetensors"
    run(saved(tmp_path, Dac(weight_norm)), "vqtool", own)
    report = diagnosed(report_of(own))
    assert [book.vectors is not None and book.vectors.shape for book in report.codebooks] == [(32, 8)] * 4
    assert not {f.id for f in report.findings if f.severity in ("warn", "fail")}


@torch.no_grad()
def test_dead_codes_come_to_life_on_latents_and_go_back_into_the_model(tmp_path: Path) -> None:
    module, x = dying()
    path, own, better = saved(tmp_path, module), tmp_path / "q.safetensors", tmp_path / "better.safetensors"
    run(path, "vqtool", own)
    found = {f.id for f in diagnosed(report_of(own)).findings if f.severity == "fail"}
    assert "dead-codes" in found
    np.save(tmp_path / "latents.npy", x.transpose(1, 2).numpy())
    documents: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(out, "document", documents.append)
        improve.run(checkpoint=own, data=None, latents=tmp_path / "latents.npy", merge=False, steps=10, out_file=better,
                    device="cpu")  # fmt: skip
    before, after = documents[0]["before"], documents[0]["after"]
    assert documents[0]["codebooks"][1]["revived"] >= 16
    assert before["codes.used"] < 0.9 < after["codes.used"]
    assert after["mse"] < 0.9 * before["mse"]
    into = tmp_path / "better-model.safetensors"
    run(better, "encodec", into, into=path)
    old, new = safetensors.torch.load_file(path), safetensors.torch.load_file(into)
    assert list(old) == list(new)
    assert torch.equal(old["encoder.weight"], new["encoder.weight"])
    module.load_state_dict({n.removeprefix("quantizer."): t for n, t in new.items() if n.startswith("quantizer")})
    assert torch.equal(module.encode(x), quantizer_in(better)(x).codes)
    left = x.transpose(1, 2) - quantizer_in(better)(x).z.transpose(1, 2)
    assert float(left.square().mean()) < float(before["mse"])


def test_improve_in_python_takes_latents_or_an_encoder() -> None:
    module, x = dying()
    quantizer = ours(module)
    result = vqtool.improve(quantizer, x, steps=0, device="cpu")
    assert result["before"]["codes.used"] < 0.9 < result["after"]["codes.used"]
    assert quantizer.layout == "BCL"
    assert not quantizer.training
    quantizer = ours(module)

    class Encoder(nn.Module):
        def encode(self, rows: Tensor) -> Tensor:
            return rows[:, 1:] * 1.0

    again = vqtool.improve(quantizer, [torch.cat([x[:, :1], x], 1)], encoder=Encoder(), steps=0, device="cpu")
    assert again["after"]["mse"] == result["after"]["mse"]
    with pytest.raises(VqtoolError, match="features"):
        vqtool.improve(quantizer, x.transpose(1, 2))
    with pytest.raises(VqtoolError, match="should give tensors of latents, not tuple"):
        vqtool.improve(quantizer, [x], encoder=lambda rows: (rows,))


@torch.no_grad()
def test_codes_chosen_by_their_direction_come_to_life_too() -> None:
    module = Dac(nn.Identity().forward).eval()
    module.quantizers[0].codebook.weight[4:] = module.quantizers[0].codebook.weight[:1] * 3
    quantizer, x = ours(module), torch.randn(40, D, 64)
    used = quantizer(x).codes[..., 0].unique().numel()
    result = vqtool.improve(quantizer, x, steps=0, device="cpu")
    assert used <= 5
    assert quantizer(x).codes[..., 0].unique().numel() >= 31
    assert result["after"]["mse"] < result["before"]["mse"]


def test_a_folder_is_copied_with_the_quantizer_in_it(tmp_path: Path) -> None:
    """One that is split over files that an index names."""
    folder, module = tmp_path / "model", Encodec().eval()
    folder.mkdir()
    tensors = {f"quantizer.{name}": tensor for name, tensor in module.state_dict().items()}
    parts = {"a.safetensors": dict(list(tensors.items())[:7]),
             "b.safetensors": dict(list(tensors.items())[7:]) | {"x": torch.ones(2)}}  # fmt: skip
    for name, some in parts.items():
        safetensors.torch.save_file(some, folder / name)
    places = {tensor: name for name, some in parts.items() for tensor in some}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text("{}")
    own, better = tmp_path / "q.safetensors", tmp_path / "better"
    run(folder, "vqtool", own)
    quantizer = quantizer_in(own)
    checkpoint = safetensors.torch.load_file(own)
    changed = "parts.quantizer.levels.3.codebook.codes"
    with safetensors.safe_open(str(own), "pt") as file:
        safetensors.torch.save_file(checkpoint | {changed: checkpoint[changed] + 1}, own, file.metadata())
    result = run(own, "encodec", better, into=folder)
    assert result["part"] == "quantizer"
    assert {n.rsplit(".", 1)[1] for n in result["changed"]} == {"embed", "embed_avg", "cluster_size", "inited"}
    assert (better / "a.safetensors").read_bytes() == (folder / "a.safetensors").read_bytes()
    assert (better / "config.json").read_text() == "{}"
    new = safetensors.torch.load_file(better / "b.safetensors")
    assert torch.equal(new["quantizer.vq.layers.3._codebook.embed"], checkpoint[changed] + 1)
    assert quantizer.codebook_sizes == (32,) * 4
    with pytest.raises(VqtoolError, match="exists already"):
        run(own, "encodec", better, into=folder)


def test_a_torch_file_keeps_what_else_it_holds(tmp_path: Path) -> None:
    path, own, again = tmp_path / "model.ckpt", tmp_path / "q.safetensors", tmp_path / "again.ckpt"
    module = Vqgan()
    held = {"state_dict": {"quantize.embedding.weight": module.embedding.weight.detach(), "post.bias": torch.ones(3)},
            "epoch": 3}  # fmt: skip
    torch.save(held, path)
    run(path, "vqtool", own)
    run(own, "vqgan", again, into=path)
    found = torch.load(again, weights_only=True)
    assert found["epoch"] == 3
    assert same(found["state_dict"], held["state_dict"])


def test_the_first_of_several_quantizers_is_not_taken_by_chance(tmp_path: Path) -> None:
    path = tmp_path / "two.safetensors"
    tensors = {f"{name}.quantize.embedding.weight": torch.randn(8, 4) for name in ("top", "bottom")}
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(VqtoolError, match="holds 2 quantizers") as caught:
        convert(path)
    assert "--part top.quantize" in str(caught.value.hint)
    with pytest.raises(VqtoolError, match="holds no quantizer `middle`"):
        convert(path, part="middle")
    found = convert(path, part="top.quantize")
    codes = found.codebook.codes  # type: ignore[union-attr]  # a VQ
    assert torch.equal(codes, tensors["top.quantize.embedding.weight"])


# --- what cannot be converted ----------------------------------------------------------------------------------------


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


def test_a_command_refuses_what_would_do_harm(tmp_path: Path) -> None:
    path, own = saved(tmp_path, Encodec()), tmp_path / "q.safetensors"
    run(path, "vqtool", own)
    with pytest.raises(VqtoolError, match="--latents is for quantizers that `vqtool convert` made"):
        improve.on_latents(Model(parse(RECIPE), DataSpec({"x": Field((1, 8), "signal")}), Parts(), {}), path, None)
    for options, why in (
        ({"source": path, "to": "encodec", "target": tmp_path / "x.safetensors"}, "is not a checkpoint of vqtool"),
        ({"source": own, "to": "vqtool", "target": tmp_path / "x.safetensors"}, "is a checkpoint of vqtool"),
        ({"source": path, "to": "vqtool", "target": own}, "exists already"),
        ({"source": path, "to": "vqtool", "target": path}, "is an input as well"),
        ({"source": path, "to": "vqtool", "target": tmp_path / "q.pt"}, "should be a .safetensors file"),
        ({"source": own, "to": "dac", "target": tmp_path / "x.safetensors"}, "was converted from encodec"),
    ):
        with pytest.raises(VqtoolError, match=why):
            run(**options)  # type: ignore[arg-type]  # three paths and a word
    other = tmp_path / "other"
    other.mkdir()
    smaller = Encodec()
    del smaller.vq.layers[3]
    with pytest.raises(VqtoolError, match="the quantizers differ"):
        run(own, "encodec", tmp_path / "x.safetensors", into=saved(other, smaller))
    with pytest.raises(VqtoolError, match="a quantizer of dac, not of encodec"):
        run(own, "encodec", tmp_path / "x.safetensors", into=saved(other, Dac(nn.Identity().forward)))
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("shape", "layout", "why"),
    [
        ((4, 7, 9), None, "the quantizer takes 24 features"),
        ((4, 24, 24), None, "which axis holds the 24 features"),
        ((4, 24, 9), "NTD", "9 channels, and the model knows 24"),
        ((4, 24), "NDT", "not latents of the layout NDT"),
        ((1, 24, 2), None, "too few to train"),
    ],
)
def test_latents_that_do_not_fit_are_refused(shape: Any, layout: str | None, why: str, tmp_path: Path) -> None:
    own, path = tmp_path / "q.safetensors", tmp_path / "latents.npy"
    run(saved(tmp_path, Encodec()), "vqtool", own)
    np.save(path, np.zeros(shape, dtype=np.float32))
    with pytest.raises(VqtoolError, match=why):
        improve.run(checkpoint=own, data=None, latents=path, layout=layout, merge=False, steps=1, out_file=None,
                    device="cpu")  # fmt: skip

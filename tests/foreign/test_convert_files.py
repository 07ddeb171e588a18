"""Files: a quantizer of another library out of its model, made better by `vqtool improve`, and back into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

import vqtool
from tests.foreign.reference import CASES, D, Dac, Encodec, Vqgan, latents, ours, same
from vqtool.api import DataSpec, Field, Parts
from vqtool.commands import convert as command
from vqtool.commands import improve
from vqtool.console import out
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.reading import report_of
from vqtool.errors import VqtoolError
from vqtool.foreign.convert import convert, quantizer_in
from vqtool.model.model import Model
from vqtool.recipe.recipe import parse

RECIPE = """
data = { kind = "arrays", path = "x.npy" }
encoder = { kind = "identity" }
quantizer = { kind = "vq" }
decoder = { kind = "identity" }
stage = [{ name = "one", task = "autoencode", steps = 1, losses = { mse = 1.0 } }]
"""


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


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
    case = CASES[name]
    module = case.make().eval()
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

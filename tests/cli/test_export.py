"""`vqtool export`: what it writes gives what PyTorch gives, for other batch sizes too; the rest is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.run import document, vqtool
from tests.training.tiny import write_recipe
from vqtool.api import Encodes
from vqtool.commands.export import need
from vqtool.errors import VqtoolError
from vqtool.model.load import capable


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny trained tokenizer."""
    folder = tmp_path_factory.mktemp("export")
    done = vqtool("train", write_recipe(folder), "-o", folder / "run", "-s", "stage.tokenizer.steps=3")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def in_torch(run: Path, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and their reconstruction."""
    model, task = capable(run, Encodes, "encode")
    model.parts.eval()
    with torch.no_grad():
        coded = task.encode(model.parts, {"x": x})
        return coded["codes"], task.decode(model.parts, coded, {})


def folders_named(*files: Path) -> list[str]:
    """The folders of this machine that files hold: an exported model is passed on."""
    places = (str(Path(__file__).parents[2]), str(Path(torch.__file__).parents[1]), str(files[0].parent))
    return [place for place in places for file in files if place.encode() in file.read_bytes()]


def test_onnx(run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    result = document("export", run, "--to", "onnx")
    assert result["paths"]["encode"]["outputs"] == ["codes"]
    assert result["paths"]["decode"]["difference"] <= 1e-5
    x = torch.randn(7, 1, 32, generator=torch.Generator().manual_seed(1))  # not the batch it was traced with
    codes, x_hat = in_torch(run, x)
    (got,) = onnxruntime.InferenceSession(run / "encode.onnx").run(None, {"x": x.numpy()})
    assert np.array_equal(got, codes.numpy())
    (back,) = onnxruntime.InferenceSession(run / "decode.onnx").run(None, {"codes": got})
    np.testing.assert_allclose(back, x_hat.numpy(), atol=1e-5)
    assert folders_named(run / "encode.onnx", run / "decode.onnx") == []


TRANSFORMER = "kind = 'transformer', width = 16, layers = 1, heads = 2"


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_transformers(tmp_path: Path, to: str) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    parts = ["-s", f"encoder={{{TRANSFORMER}, patch = 8}}", "-s", f"decoder={{{TRANSFORMER}}}"]
    done = vqtool("train", write_recipe(tmp_path), "-o", tmp_path / "run", *parts, "-s", "stage.tokenizer.steps=3")
    assert done.returncode == 0, done.stderr
    paths = document("export", tmp_path / "run", "--to", to)["paths"]
    assert max(paths[way]["difference"] for way in ("encode", "decode")) <= 1e-5


def test_pt2(run: Path, tmp_path: Path) -> None:
    result = document("export", run, "--to", "pt2", "-o", tmp_path / "out")
    assert Path(result["paths"]["encode"]["file"]) == tmp_path / "out" / "encode.pt2"
    x = torch.randn(7, 1, 32, generator=torch.Generator().manual_seed(1))
    codes, x_hat = in_torch(run, x)
    (got,) = torch.export.load(tmp_path / "out" / "encode.pt2").module()(x)
    assert torch.equal(got, codes)
    torch.testing.assert_close(torch.export.load(tmp_path / "out" / "decode.pt2").module()(got)[0], x_hat)
    assert folders_named(*(tmp_path / "out").iterdir()) == []


BRANCHES = '''
"""A decoder whose way depends on the values."""
from torch import nn
from vqtool.api import Decoder
from vqtool.catalog import Component, hookimpl


class Branches(Decoder):
    def __init__(self, dim, channels, length, stride, condition_dim):
        super().__init__()
        self.out = nn.Linear(dim, stride)

    def forward(self, z, condition=None):
        y = self.out(z).flatten(1)[:, None]
        return y if float(y.sum()) > 0 else -y


@hookimpl
def vqtool_components():
    yield Component("decoder", "branches", f"{__name__}:Branches", "Branches.")
'''


def test_what_cannot_be_exported_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "branches.py").write_text(BRANCHES)
    recipe = write_recipe(tmp_path)
    recipe.write_text(
        recipe.read_text().replace('kind = "conv1d"\nwidth = 8\n\n[train]', 'kind = "branches"\n\n[train]')
    )
    plugin = ("--plugin", tmp_path / "branches.py")
    done = vqtool("train", recipe, "-o", tmp_path / "run", "-s", "stage.tokenizer.steps=2", *plugin)
    assert done.returncode == 0, done.stderr
    refused = vqtool("export", tmp_path / "run", "--to", "pt2", *plugin)
    assert refused.returncode == 1
    assert "`decode` cannot be exported to pt2" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "run" / "decode.pt2").exists()


def test_an_unknown_format(run: Path) -> None:
    refused = vqtool("export", run, "--to", "tflite")
    assert refused.returncode == 2
    assert "`--to`: `tflite` is not one of `onnx`, `pt2`" in refused.stderr


def test_a_library_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(VqtoolError, match="`--to onnx` needs the library `no_such_library`") as caught:
        need("no_such_library")
    assert caught.value.hint == "pip install 'vqtool[onnx]'"
